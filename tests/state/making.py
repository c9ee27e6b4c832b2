"""Small makers of the values that travel through the state database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from kyra_etl.model import Batch, Commit, DataFile, FileOutcome, Finding, LogFile
from kyra_etl.state import State

NOW = datetime(2026, 3, 4, 12, 0, 0)
DAY = date(2026, 3, 4)


def file(n: int, etag: str = "e", **more: Any) -> LogFile:
    values: dict[str, Any] = {
        "key": f"AWSLogs/111111111111/CloudTrail/eu-west-1/2026/03/04/{n:06}.json.gz",
        "etag": etag,
        "size": 100 + n,
        "last_modified": NOW,
        "account": "111111111111",
        "region": "eu-west-1",
        "day": DAY,
    }
    return LogFile(**(values | more))


def observed(state: State, files: Sequence[LogFile], now: datetime = NOW, integration: str = "acme") -> str:
    """A run that has listed these files."""
    run_id = state.runs.start("sync", integration, now)
    state.ledger.observe(run_id, integration, "logs", files, "listed", now)
    return run_id


def planned(
    state: State, run_id: str, now: datetime = NOW, *, lease: float = 60, historical: bool = False, n: int | None = None
) -> Batch:
    entries = state.ledger.workable(run_id)[:n]
    integration = entries[0].integration
    batch = state.ledger.plan(
        run_id, integration, "logs", entries, owner="me", lease_seconds=lease, historical=historical, now=now
    )
    assert batch is not None
    return batch


def loaded(id_: int, **more: Any) -> FileOutcome:
    values: dict[str, Any] = {"records": 5, "events": 3, "duplicates": 1, "malformed": 1, "sha256": "s"}
    values |= {"uncompressed": 50, "first_event_at": NOW - timedelta(seconds=90)}
    return FileOutcome(id_, "loaded", **(values | {"last_event_at": NOW - timedelta(seconds=60)} | more))


def committing(
    state: State, batch: Batch, outcomes: Sequence[FileOutcome] | None = None, detections: Sequence[str] = ("d",)
) -> Commit:
    """The commit that loads the whole batch into one partition, as deduplication would hand it over now."""
    partition = ("111111111111", DAY)
    name = f"account=111111111111/date=2026-03-04/{batch.batch_id}.parquet"
    data = DataFile("events", f"events/{name}", f"_staging/{batch.batch_id}-{batch.attempt}/{name}", 3, 99, *partition)
    done = [loaded(e.id) for e in batch.entries] if outcomes is None else outcomes
    return Commit(batch, tuple(done), (data,), state.ledger.versions([partition]), tuple(detections))


def sync(state: State, files: Sequence[LogFile], now: datetime = NOW, *, historical: bool = False) -> Batch:
    """Lists, plans and commits these files; a whole run."""
    run_id = observed(state, files, now)
    batch = planned(state, run_id, now, historical=historical)
    state.ledger.commit(committing(state, batch), now)
    state.runs.finish(run_id, None, state="succeeded", error=None, now=now)
    return batch


def log_files(state: State) -> list[dict[str, Any]]:
    """All rows of the ledger."""
    return [row for page in state.ledger.log_files() for row in page]


def finding(event: str, severity: Any = "low", alert: str = "a1", minutes: int = 0, **more: Any) -> Finding:
    values: dict[str, Any] = {
        "detection": "d",
        "account": "111111111111",
        "event_id": event,
        "event_time": NOW + timedelta(minutes=minutes),
        "severity": severity,
        "event_ids": (event,),
        "alert_id": alert,
        "actor": f"actor of {event}",
    }
    return Finding(**(values | more))
