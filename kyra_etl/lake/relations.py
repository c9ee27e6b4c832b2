"""The records of our own that can be queried beside the events: names and columns."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

_TEXT, _FLAG, _TIME, _COUNT = pa.string(), pa.bool_(), pa.timestamp("us"), pa.int64()
_TEXTS = pa.list_(_TEXT)

_COUNTS = ("records", "events", "duplicates", "conflicts", "malformed", "expired")

RELATIONS: Mapping[str, pa.Schema] = {
    "alerts": pa.schema(
        [
            ("alert_id", _TEXT),
            ("detection", _TEXT),
            ("title", _TEXT),
            ("severity", _TEXT),
            ("attack", _TEXTS),
            ("attack_legacy", _TEXTS),
            ("account", _TEXT),
            ("region", _TEXT),
            ("actor", _TEXT),
            ("source_ip", _TEXT),
            ("target", _TEXT),
            ("summary", _TEXT),
            ("first_seen", _TIME),
            ("last_seen", _TIME),
            ("event_count", _COUNT),
            ("event_ids", _TEXTS),
            ("status", _TEXT),
            ("historical", _FLAG),
            ("closed_reason", _TEXT),
        ]
    ),
    "alert_events": pa.schema([("alert_id", _TEXT), ("event_id", _TEXT), ("event_time", _TIME), ("historical", _FLAG)]),
    "log_files": pa.schema(
        [
            ("integration", _TEXT),
            ("bucket", _TEXT),
            ("key", _TEXT),
            ("etag", _TEXT),
            ("size", _COUNT),
            ("last_modified", _TIME),
            ("account", _TEXT),
            ("region", _TEXT),
            ("day", pa.date32()),
            ("state", _TEXT),
            ("reason", _TEXT),
            ("detail", _TEXT),
            ("attempts", _COUNT),
            ("next_retry_at", _TIME),
            ("observed_at", _TIME),
            ("loaded_at", _TIME),
            ("run_id", _TEXT),
            ("batch_id", _TEXT),
            *((name, _COUNT) for name in _COUNTS),
            ("uncompressed", _COUNT),
            ("sha256", _TEXT),
            ("first_event_at", _TIME),
            ("last_event_at", _TIME),
        ]
    ),
    "sync_runs": pa.schema(
        [
            ("run_id", _TEXT),
            ("verb", _TEXT),
            ("integration", _TEXT),
            ("state", _TEXT),
            ("started_at", _TIME),
            ("finished_at", _TIME),
            ("error", _TEXT),
            ("skipped", _TEXT),
            *(
                (name, _COUNT)
                for name in (
                    "listed",
                    "hinted",
                    "carried",
                    "loaded",
                    "already_loaded",
                    "ignored",
                    "quarantined",
                    "gone",
                    "pending",
                    *_COUNTS,
                    "alerts",
                    "batches",
                )
            ),
            ("lag_p50", pa.float64()),
            ("lag_p95", pa.float64()),
            ("lag_max", pa.float64()),
        ]
    ),
    "status": pa.schema(
        [
            ("integration", _TEXT),
            ("state", _TEXT),
            ("reason", _TEXT),
            ("next_step", _TEXT),
            ("last_sync", _TIME),
            ("last_event_at", _TIME),
            ("lag_p50", pa.float64()),
            ("lag_p95", pa.float64()),
            ("events", _COUNT),
            ("loaded", _COUNT),
            ("pending", _COUNT),
            ("quarantined", _COUNT),
            ("gone", _COUNT),
        ]
    ),
}
"""By name; the columns the state keeps, without its own bookkeeping."""
