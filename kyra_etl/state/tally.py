"""Counting: every term by its own query over one snapshot, so that numbers that agree prove something."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, select

from kyra_etl.model import Window
from kyra_etl.state import tables
from kyra_etl.state.database import Database

_files, _links, _batches, _runs = tables.log_files, tables.run_files, tables.batches, tables.runs
_ever = tables.totals

STATES = ("pending", "planned", "loaded", "quarantined", "gone")
_LEFT = [state for state in STATES if state != "loaded"]


class Tallies:
    _database: Database

    def tally(self, run_id: str) -> dict[str, Any]:
        """What became of the run's log files.

        hinted, carried, linked_listed: by how they came to the run. loaded (by this run), already_loaded (by another,
        after this one had linked them), quarantined, gone, pending (planned ones too): by where they are now.
        records, events, duplicates, conflicts, malformed, expired: over the files loaded by this run.
        batches, quarantined_by_reason, and lag_p50, lag_p95, lag_max in seconds from a file's last event to its
        delivery (None when no loaded file has both times).
        """
        c = _files.c
        loaded = (c.state == "loaded", c.run_id == run_id)
        counted: dict[str, tuple[ColumnElement[bool], ...]] = {
            "hinted": (_links.c.how == "hinted",),
            "carried": (_links.c.how == "carried",),
            "linked_listed": (_links.c.how == "listed",),
            "loaded": loaded,
            "already_loaded": (c.state == "loaded", c.run_id != run_id),
            "quarantined": (c.state == "quarantined",),
            "gone": (c.state == "gone",),
            "pending": (c.state.in_(["pending", "planned"]),),
        }
        summed = ("records", "events", "duplicates", "conflicts", "malformed", "expired")
        with self._database.read() as connection:
            terms: dict[str, Any] = {
                name: connection.scalar(_of_run(run_id, func.count()).where(*terms)) for name, terms in counted.items()
            }
            for name in summed:
                total = connection.scalar(_of_run(run_id, func.sum(c[name])).where(*loaded))
                terms[name] = int(total or 0)
            committed = select(func.count()).where(_batches.c.run_id == run_id, _batches.c.state == "committed")
            terms["batches"] = connection.scalar(committed)
            reasons = (
                _of_run(run_id, c.reason, func.count().label("files"))
                .where(c.state == "quarantined")
                .group_by(c.reason)
            )
            terms["quarantined_by_reason"] = {
                row.reason: row.files for row in connection.execute(reasons.order_by(c.reason))
            }
            times = _of_run(run_id, c.last_modified, c.last_event_at).where(*loaded)
            times = times.where(c.last_modified.is_not(None), c.last_event_at.is_not(None))
            lags = sorted((at - last).total_seconds() for at, last in connection.execute(times))
        return terms | {
            "lag_p50": _percentile(lags, 0.5),
            "lag_p95": _percentile(lags, 0.95),
            "lag_max": _percentile(lags, 1.0),
        }

    def by_day(self, run_id: str) -> list[dict[str, Any]]:
        """The run's log files by day, oldest first: day, loaded, pending, and the records of those it loaded."""
        c = _files.c
        mine = and_(c.state == "loaded", c.run_id == run_id)
        summed = ("records", "events", "duplicates", "conflicts", "malformed", "expired")
        query = _of_run(
            run_id,
            c.day,
            func.sum(case((mine, 1), else_=0)).label("loaded"),
            func.sum(case((c.state.in_(["pending", "planned"]), 1), else_=0)).label("pending"),
            *(func.sum(case((mine, c[name]), else_=0)).label(name) for name in summed),
        )
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(c.day).order_by(c.day)).mappings().all()
        return [{name: int(value) if name != "day" else value for name, value in row.items()} for row in rows]

    def quarantine(self, integration: str, since: datetime) -> list[dict[str, Any]]:
        """What is in quarantine by reason, most first: reason, files, recent (seen since), detail (of one of them)."""
        c = _files.c
        query = select(
            c.reason,
            func.count().label("files"),
            func.sum(case((c.observed_at >= since, 1), else_=0)).label("recent"),
            func.max(c.detail).label("detail"),
        ).where(c.integration == integration, c.state == "quarantined")
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(c.reason)).mappings().all()
        found = [dict(row) | {"recent": int(row["recent"])} for row in rows]
        return sorted(found, key=lambda row: (-row["files"], row["reason"]))

    def volume(self, integration: str, bucket: str, window: Window) -> dict[str, int]:
        """What was loaded from a bucket with events in the window: files, bytes (as stored), records, duplicates."""
        c = _files.c
        query = select(
            func.count().label("files"),
            *(func.sum(c[name]).label(label) for name, label in (("size", "bytes"), ("records", "records"))),
            func.sum(c.duplicates).label("duplicates"),
        ).where(c.integration == integration, c.state == "loaded", c.bucket == bucket)
        query = query.where(c.last_event_at >= window.start, c.first_event_at < window.end)
        with self._database.read() as connection:
            return {name: int(value or 0) for name, value in connection.execute(query).mappings().one().items()}

    def first_days(self, integration: str) -> dict[str, date]:
        """The first day that the lake has events of, by account, of the accounts the integration's listing found."""
        c, folders = tables.data_files.c, tables.checkpoints.c
        accounts = select(folders.account).where(folders.integration == integration).distinct().subquery()
        # Of each account by itself: grouped, every day of it would be read.
        own = c.live, c.account == accounts.c.account, c.kind == "activity"
        first = select(func.min(c.date)).where(*own).scalar_subquery()
        with self._database.read() as connection:
            return {account: day for account, day in connection.execute(select(accounts.c.account, first)) if day}

    def states(self, integration: str, bucket: str | None = None) -> dict[str, int]:
        """Log files (of one bucket) by state, none left out: pending, planned, loaded, quarantined, gone."""
        with self._database.read() as connection:
            return _states(connection, integration, bucket)

    def counts(self, integration: str) -> dict[str, Any]:
        """Everything the ledger ever saw of an integration.

        pending, planned, loaded, quarantined, gone: log files by state. records, events, duplicates, malformed, bytes
        (as stored), last_loaded_at, first_event_at, last_event_at: over all it loaded.
        """
        c = _ever.c
        sums = [func.sum(c[name]).label(name) for name in ("records", "events", "duplicates", "malformed", "bytes")]
        times = [func.min(c.first_event_at).label("first_event_at")]
        times += [func.max(c[name]).label(name) for name in ("last_event_at", "last_loaded_at")]
        with self._database.read() as connection:
            query = select(*sums, *times).where(c.integration == integration)
            totals = dict(connection.execute(query).mappings().one())
            states = _states(connection, integration, None)
        added = {column.name: int(totals[column.name] or 0) for column in sums}
        return states | added | {column.name: totals[column.name] for column in times}

    def pace(self) -> float | None:
        """Compressed bytes a second, listing and detections included, over the last runs that loaded a mebibyte.

        None when there were none.
        """
        c = _runs.c
        size = func.sum(_batches.c.bytes)
        loading = select(c.started_at, c.finished_at, size.label("bytes")).join(_batches, _batches.c.run_id == c.run_id)
        loading = loading.where(c.state == "succeeded", c.finished_at > c.started_at)
        loading = loading.group_by(c.run_id, c.started_at, c.finished_at).having(size >= 2**20)
        with self._database.read() as connection:
            rows = connection.execute(loading.order_by(c.started_at.desc()).limit(10)).all()
        seconds = sum((row.finished_at - row.started_at).total_seconds() for row in rows)
        return sum(int(row.bytes) for row in rows) / seconds if rows else None

    def log_files(self) -> Iterator[list[dict[str, Any]]]:
        """Every row in the order they were first seen, some thousands at a time."""
        return self._database.pages(select(_files), _files.c.id)

    def log_files_of(self, run_id: str) -> Iterator[list[dict[str, Any]]]:
        """What a run settled, some thousands of rows at a time."""
        return self._database.pages(_of_run(run_id, *_files.c).where(_files.c.run_id == run_id), _files.c.id)


def _states(connection: Connection, integration: str, bucket: str | None) -> dict[str, int]:
    c = _files.c
    # What is loaded is nearly everything, and known; the bucket is wrapped, or SQLite might take the index that leads
    # through all of it.
    left = select(c.state, func.count()).where(c.integration == integration, c.state.in_(_LEFT)).group_by(c.state)
    loaded = select(func.sum(_ever.c.files)).where(_ever.c.integration == integration)
    if bucket is not None:
        left = left.where(func.coalesce(c.bucket, "") == bucket)
        loaded = loaded.where(_ever.c.bucket == bucket)
    found = dict(connection.execute(left).tuples().all())
    found["loaded"] = int(connection.scalar(loaded) or 0)
    return {state: found.get(state, 0) for state in STATES}


def _of_run(run_id: str, *columns: Any) -> Select[Any]:
    linked = _links.join(_files, _files.c.id == _links.c.log_file_id)
    return select(*columns).select_from(linked).where(_links.c.run_id == run_id)


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank: always a value that occurred."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else None
