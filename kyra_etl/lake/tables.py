"""Records of our own as Parquet beside `events/`, for plain DuckDB, a notebook or Athena, without our tools.

    sync_runs/date=<day of the run>/<run>.parquet         one row a run; maintenance makes one file a day of them
    log_files/date=<day of the run>/<run>.parquet         the log files a run changed; the latest row of a key counts
    alert_events/date=<day of the run>/<run>.parquet      the events of the alerts a run changed
    alerts/date=<day first seen>/alerts.parquet           the alerts of that day as they are now
    status/status.parquet                                 every integration as it is now

The state database is the truth; these are copies, written after each run.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import pyarrow as pa

from kyra_etl.lake import layout
from kyra_etl.lake.storage import Storage
from kyra_etl.lake.writer import parquet_options

_TEXTS = pa.list_(pa.string())
_TIME = pa.timestamp("us")


def _schema(texts: str = "", times: str = "", counts: str = "", **others: pa.DataType) -> pa.Schema:
    kinds = ((texts, pa.string()), (times, _TIME), (counts, pa.int64()))
    fields = [(name, kind) for names, kind in kinds for name in names.split()]
    return pa.schema([*fields, *others.items()])


TABLES: Mapping[str, pa.Schema] = {
    "sync_runs": _schema(
        "run_id verb integration state skipped error",
        "started_at finished_at",
        "listed hinted carried loaded already_loaded ignored quarantined gone pending records events duplicates"
        " conflicts malformed expired alerts batches",
        lag_p50=pa.float64(),
        lag_p95=pa.float64(),
        lag_max=pa.float64(),
    ),
    "log_files": _schema(
        "integration bucket key etag account region state reason batch_id run_id sha256",
        "last_modified loaded_at first_event_at last_event_at next_retry_at",
        "size uncompressed records events duplicates conflicts malformed expired attempts",
        day=pa.date32(),
    ),
    "alerts": _schema(
        "alert_id detection title severity status closed_reason account region actor source_ip target summary",
        "first_seen last_seen",
        "event_count",
        historical=pa.bool_(),
        attack=_TEXTS,
        attack_legacy=_TEXTS,
        event_ids=_TEXTS,
    ),
    "alert_events": _schema("alert_id event_id", "event_time", historical=pa.bool_()),
    "status": _schema(
        "integration state reason next_step",
        "last_sync_at last_event_at",
        "events_processed loaded pending quarantined gone",
        lag_p50=pa.float64(),
        lag_p95=pa.float64(),
    ),
}

LATEST = {
    "sync_runs": "run_id",
    "log_files": "integration, bucket, key, etag",
    "alert_events": "alert_id, event_id",
}
"""Tables of which every run writes a file, and what names a thing in them: the row of the latest run's file counts."""

MEANINGS: Mapping[str, str] = {
    "run_id": "The run",
    "integration": "Integration; 'local' for loaded files",
    "records": "Records in the log files that were loaded",
    "events": "Of these, events that were new",
    "duplicates": "Of these, events the lake had already",
    "malformed": "Of these, records that are no events; they lie in malformed/",
    "expired": "Of these, events of days beyond retention",
    "conflicts": "Events of an id the lake had with other content; both are kept",
    "quarantined": "Log files that could not be read",
    "gone": "Log files that left the bucket before they were read",
    "pending": "Log files known and not loaded yet",
    "loaded": "Log files loaded",
    "batch_id": "Batch that loaded it",
    "alert_id": "The alert",
    "historical": "All that is known of it came by backfill, initial sync or load",
    "lag_p50": "Seconds from an event to its log file's delivery, of half the log files loaded at most",
    "lag_p95": "The same, of 95 in a hundred",
    "lag_max": "The same, of all",
    "sync_runs.verb": "sync, backfill or load",
    "sync_runs.integration": "Integration it was for; 'local' for loaded files",
    "sync_runs.state": "How it ended: succeeded or failed",
    "sync_runs.skipped": "Why it did nothing",
    "sync_runs.error": "What went wrong",
    "sync_runs.started_at": "When it began, UTC",
    "sync_runs.finished_at": "When it ended, UTC",
    "sync_runs.listed": "Keys found by listing",
    "sync_runs.hinted": "Keys known by notices alone",
    "sync_runs.carried": "Log files left over by earlier runs",
    "sync_runs.already_loaded": "Of the keys, log files loaded before",
    "sync_runs.ignored": "Of the keys, those that are no log files",
    "sync_runs.alerts": "New alerts",
    "sync_runs.batches": "Batches committed",
    "log_files.bucket": "Bucket, or folder as file://…",
    "log_files.key": "S3 key or path; as source_key in events",
    "log_files.etag": "S3's ETag, or the SHA-256 of a local file",
    "log_files.account": "Account, as its path says",
    "log_files.region": "Region, as its path says",
    "log_files.day": "Day of its folder",
    "log_files.state": "pending, planned, loaded, quarantined or gone",
    "log_files.reason": "Why it is in quarantine",
    "log_files.run_id": "The run that changed it last",
    "log_files.sha256": "SHA-256 of its uncompressed bytes",
    "log_files.last_modified": "When it was delivered, UTC",
    "log_files.loaded_at": "When it was loaded, UTC",
    "log_files.first_event_at": "Its earliest event_time",
    "log_files.last_event_at": "Its latest event_time",
    "log_files.next_retry_at": "When it is tried again, UTC",
    "log_files.size": "Bytes as stored",
    "log_files.uncompressed": "Bytes uncompressed",
    "log_files.records": "Records in it",
    "log_files.attempts": "How often it was tried in vain",
    "alerts.detection": "Id of the detection",
    "alerts.title": "Its title",
    "alerts.severity": "info, low, medium, high or critical: the highest of its findings",
    "alerts.status": "open, acknowledged or closed",
    "alerts.closed_reason": "Why it was closed",
    "alerts.account": "Account it happened in",
    "alerts.region": "Region it happened in",
    "alerts.actor": "Who did it: principal of events",
    "alerts.source_ip": "From where",
    "alerts.target": "To what",
    "alerts.summary": "What happened, in a sentence",
    "alerts.first_seen": "Time of its earliest event, UTC",
    "alerts.last_seen": "Time of its latest event, UTC",
    "alerts.event_count": "How many events it has",
    "alerts.attack": "ATT&CK techniques",
    "alerts.attack_legacy": "Techniques since revoked that stand for the same",
    "alerts.event_ids": "Its events; event_id of events",
    "alert_events.event_id": "An event of it; event_id of events",
    "alert_events.event_time": "Time of that event, UTC",
    "alert_events.historical": "It came by backfill, initial sync or load",
    "status.state": "Pending, Connected, Degraded, Failed or Paused",
    "status.reason": "Why",
    "status.next_step": "What to do",
    "status.last_sync_at": "When the last sync that worked ended, UTC",
    "status.last_event_at": "Time of the newest event, UTC",
    "status.events_processed": "Events in all",
}
"""What each column means, by `table.column` or, where tables agree, by column."""


def meaning(table: str, column: str) -> str:
    """What a column of a table means."""
    return MEANINGS.get(f"{table}.{column}") or MEANINGS[column]


def write(storage: Storage, table: str, name: str, rows: Iterable[Mapping[str, Any]], day: date | None = None) -> None:
    """Write one file of a table, replacing the file of that name at once; readers see the old one or the new one.

    `rows` may have more fields than the table has columns. Raises LakeError.
    """
    schema = TABLES[table]
    data = pa.Table.from_pylist([{column: row.get(column) for column in schema.names} for row in rows], schema)
    folder = table if day is None else f"{table}/date={day:%Y-%m-%d}"
    path = f"{folder}/{name}.parquet"
    staged = f"{layout.STAGING_DIR}/{layout.TABLES_STAGING}/{secrets.token_hex(8)}.parquet"
    storage.write_parquet(staged, data, **parquet_options(data.schema))
    storage.move(staged, path)
