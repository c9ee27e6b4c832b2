"""Records of our own as Parquet beside `events/`, for plain DuckDB, a notebook or Athena, without our tools.

    sync_runs/date=<day of the run>/<run>.parquet         one row a run
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
