"""The way back: from what a data file says of an event to its log file, batch and run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select

from kyra_etl.state import tables
from kyra_etl.state.columns import clean
from kyra_etl.state.database import Database

_files, _batches, _runs = tables.log_files, tables.batches, tables.runs

_LOG_FILE = (
    *("id", "integration", "bucket", "key", "etag", "size", "last_modified", "loaded_at", "sha256", "uncompressed"),
    *("records", "events", "duplicates"),
)


class Lineage:
    _database: Database

    def origin(self, batch_id: str) -> dict[str, Any] | None:
        """The batch and its run: batch_id, attempt, committed_at, historical, run_id, verb, started_at; or None."""
        c = _batches.c
        query = (
            select(
                c.batch_id,
                c.attempt,
                c.settled_at.label("committed_at"),
                c.historical,
                c.run_id,
                _runs.c.verb,
                _runs.c.started_at,
            )
            .outerjoin(_runs, _runs.c.run_id == c.run_id)
            .where(c.batch_id == batch_id)
        )
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else dict(row)

    def loaded_in(self, batch_id: str, integration: str, key: str) -> list[dict[str, Any]]:
        """Log files of this key that the batch loaded, one for each etag (see `_LOG_FILE`), as first seen."""
        return self._log_files(
            _files.c.batch_id == batch_id, _files.c.integration == integration, _files.c.key == clean(key)
        )

    def may_hold(self, account: str, at: datetime, sha256: str | None, *, limit: int) -> list[dict[str, Any]]:
        """Log files that delivered an event of `account` at the time `at` again, or may have: as first seen.

        Those of the same content, and those in which duplicates were found and whose events' times span this one's.
        """
        c = _files.c
        spanning = and_(
            c.duplicates > 0,
            c.first_event_at <= at,
            c.last_event_at >= at,
            or_(c.account == account, c.account.is_(None)),
        )
        return self._log_files(spanning if sha256 is None else or_(spanning, c.sha256 == sha256), limit=limit)

    def _log_files(self, *terms: ColumnElement[bool], limit: int | None = None) -> list[dict[str, Any]]:
        query = select(*(_files.c[name] for name in _LOG_FILE)).where(_files.c.state == "loaded", *terms)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_files.c.id).limit(limit)).mappings()
            return [dict(row) for row in rows]
