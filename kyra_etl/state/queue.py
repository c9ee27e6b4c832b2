"""The detections that committed batches still wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update

from kyra_etl.state import tables
from kyra_etl.state.database import Database

_queue, _batches = tables.detection_queue, tables.batches
_OF_THE_QUEUE = ("batch_id", "detection", "attempts", "last_error")


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One detection to be run on one batch."""

    batch_id: str
    detection: str
    attempts: int
    """Failed ones so far."""
    last_error: str | None
    historical: bool
    """The batch came by backfill, initial sync or load."""
    queued_at: datetime


class Queue:
    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self, *, live_only: bool = False) -> list[QueueEntry]:
        """Everything queued, oldest batch first; with `live_only`, without what is historical."""
        query = (
            select(*(_queue.c[name] for name in _OF_THE_QUEUE), _batches.c.historical, _queue.c.queued_at)
            .join(_batches, _batches.c.batch_id == _queue.c.batch_id)
            .order_by(_queue.c.queued_at, _queue.c.batch_id, _queue.c.detection)
        )
        if live_only:
            query = query.where(~_batches.c.historical)
        with self._database.read() as connection:
            return [QueueEntry(*row) for row in connection.execute(query)]

    def fail(self, entries: Sequence[tuple[str, str]], error: str, now: datetime) -> None:
        """Keeps entries, (batch_id, detection), for the next run, with what went wrong."""
        failed = {"attempts": _queue.c.attempts + 1, "last_error": error[:2000], "failed_at": now}
        if entries:
            statement = update(_queue).where(_queue.c.batch_id == bindparam("b"), _queue.c.detection == bindparam("d"))
            with self._database.write() as connection:
                connection.execute(statement.values(failed), [{"b": batch_id, "d": name} for batch_id, name in entries])

    def clear(self, entries: Sequence[tuple[str, str]]) -> None:
        """Takes entries, (batch_id, detection), off; taking one off twice is harmless."""
        if entries:
            with self._database.write() as connection:
                clear(connection, entries)

    def depth(self) -> int:
        """How many entries wait."""
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(_queue)) or 0

    def failing(self) -> list[dict[str, Any]]:
        """Detections with failed entries: detection, batches, attempts (most), last_error and failed_at (latest)."""
        query = select(_queue).where(_queue.c.attempts > 0).order_by(_queue.c.detection, _queue.c.failed_at)
        failing: dict[str, dict[str, Any]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                known = failing.setdefault(row.detection, {"detection": row.detection, "batches": 0, "attempts": 0})
                known["batches"] += 1
                known["attempts"] = max(known["attempts"], row.attempts)
                known |= {"last_error": row.last_error, "failed_at": row.failed_at}
        return list(failing.values())


def clear(connection: Connection, entries: Sequence[tuple[str, str]]) -> None:
    """Takes entries off inside somebody's transaction."""
    if entries:
        statement = delete(_queue).where(_queue.c.batch_id == bindparam("b"), _queue.c.detection == bindparam("d"))
        connection.execute(statement, [{"b": batch_id, "d": detection} for batch_id, detection in entries])
