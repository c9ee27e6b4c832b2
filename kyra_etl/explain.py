"""From an event back to where it came from: log file, batch, run, and the file of the lake that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from kyra_etl.errors import KyraError, UsageError
from kyra_etl.lake import Lake
from kyra_etl.model import DataFile
from kyra_etl.state import State

SHOWN = 20
"""Log files named as further carriers of an event, at most."""


@dataclass(frozen=True, slots=True)
class Source:
    """The log file an event was loaded from. Times are naive UTC, sizes bytes, `sha256` of the uncompressed bytes."""

    integration: str
    bucket: str
    key: str
    etag: str
    size: int
    uncompressed: int
    sha256: str | None
    delivered_at: datetime | None
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True)
class Carrier:
    """Another log file that brought the same event, or may have: `certain` where its content is the same whole file."""

    integration: str
    key: str
    etag: str
    loaded_at: datetime | None
    duplicates: int
    certain: bool


@dataclass(frozen=True, slots=True)
class Lineage:
    """One event and the way it took. `log_file`, `batch` and `run` are None where the ledger no longer has them."""

    event_id: str
    account: str
    event_time: datetime
    event_name: str | None
    integration: str
    source_key: str
    delivered_at: datetime | None
    log_file: Source | None
    batch: dict[str, Any] | None
    """batch_id, attempt, committed_at, historical."""
    run: dict[str, Any] | None
    """run_id, verb, started_at."""
    data_file: str
    """Path in the lake."""
    also_in: tuple[Carrier, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(
    event_id: str, *, lake: Lake, state: State, account: str | None = None, day: date | None = None
) -> list[Lineage]:
    """The way of every committed event of this id: several where contents differ, or accounts.

    `account` and `day` (UTC date of the event) narrow the search, which otherwise reads the ids of the whole lake.
    Raises UsageError for what is no whole event id, KyraError when no event has it.
    """
    if not event_id or any(c.isspace() or not c.isprintable() for c in event_id):
        raise UsageError(
            "An event id is not empty and has no blanks.", "Give one whole event id: event_id of `kyra search --json`."
        )
    accounts = None if account is None else [account]

    def files() -> Sequence[DataFile]:
        return state.ledger.data_files("events", accounts=accounts, first=day, last=day)

    traced, searched = lake.trace(event_id, files)
    if traced.rows:
        found = [_lineage(row, searched[row["file"]], state) for row in traced.rows]
        return sorted(found, key=lambda each: (each.account, each.event_time, each.data_file, each.source_key))
    if traced.longer is not None:
        raise UsageError(
            f"{event_id} is only the beginning of an event id, such as {traced.longer}.", "Give the whole event id."
        )
    where = "The lake" if account is None and day is None else "That part of the lake"
    raise KyraError(
        f"{where} holds no event {event_id} ({sum(file.rows for file in searched):,} events were looked at).",
        "Has its log file come in? `kyra status` tells how far syncs are; `kyra quarantine list` what is set aside.",
    )


def _lineage(row: dict[str, Any], file: DataFile, state: State) -> Lineage:
    versions = state.ledger.loaded_in(row["batch_id"], row["integration"], row["source_key"])
    # A key that was overwritten may be there twice; the event says when its version was delivered.
    version = next((each for each in versions if each["last_modified"] == row["delivered_at"]), None)
    loaded = version or (versions[0] if versions else None)
    origin = state.ledger.origin(row["batch_id"])
    account = file.account or ""
    return Lineage(
        event_id=row["event_id"],
        account=account,
        event_time=row["event_time"],
        event_name=row["event_name"],
        integration=row["integration"],
        source_key=row["source_key"],
        delivered_at=row["delivered_at"],
        log_file=_source(loaded) if loaded else None,
        batch=origin and {name: origin[name] for name in ("batch_id", "attempt", "committed_at", "historical")},
        run=origin and {name: origin[name] for name in ("run_id", "verb", "started_at")},
        data_file=file.path,
        also_in=_also_in(account, row["event_time"], loaded, state),
    )


def _source(row: dict[str, Any]) -> Source:
    names = ("integration", "bucket", "key", "etag", "size", "uncompressed", "sha256", "loaded_at")
    return Source(**{name: row[name] for name in names}, delivered_at=row["last_modified"])


def _also_in(account: str, at: datetime, loaded: dict[str, Any] | None, state: State) -> tuple[Carrier, ...]:
    sha256 = loaded["sha256"] if loaded else None
    found = state.ledger.may_hold(account, at, sha256, limit=SHOWN + 1)
    return tuple(
        Carrier(
            **{name: each[name] for name in ("integration", "key", "etag", "loaded_at", "duplicates")},
            certain=sha256 is not None and each["sha256"] == sha256,
        )
        for each in found
        if loaded is None or each["id"] != loaded["id"]
    )[:SHOWN]
