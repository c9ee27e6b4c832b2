"""The diary of runs: what was started, how it ended, and its report."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import insert, select, update

from kyra_etl.errors import StateError
from kyra_etl.model import RunReport
from kyra_etl.state import tables
from kyra_etl.state.database import Database, chunks

RunState = Literal["running", "succeeded", "failed", "skipped"]

_runs = tables.runs


class Runs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, verb: str, integration: str, now: datetime) -> str:
        """Notes that a run begins. Its id sorts by time: 20260102T030405-ab12cd34."""
        run_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        row = {"run_id": run_id, "verb": verb, "integration": integration, "state": "running", "started_at": now}
        with self._database.write() as connection:
            connection.execute(insert(_runs).values(row))
        return run_id

    def finish(
        self, run_id: str, report: RunReport | None, *, state: RunState, error: str | None = None, now: datetime
    ) -> None:
        """Notes how the run ended. Raises StateError for a run that was never started."""
        values = {"state": state, "error": error, "finished_at": now, "report": _plain(report)}
        with self._database.write() as connection:
            if connection.execute(update(_runs).where(_runs.c.run_id == run_id).values(values)).rowcount != 1:
                raise StateError(f"The run {run_id} is not in the state database.", "Start it before finishing it.")

    def lost(self, run_ids: Iterable[str], error: str, now: datetime) -> None:
        """Notes that these runs ended without saying so; those that are not running stay as they are."""
        values = {"state": "failed", "error": error, "finished_at": now}
        with self._database.write() as connection:
            for ids in chunks(sorted(set(run_ids))):
                lost = update(_runs).where(_runs.c.run_id.in_(ids), _runs.c.state == "running")
                connection.execute(lost.values(values))

    def recent(
        self, integration: str | None = None, verb: str | None = None, limit: int | None = 20
    ) -> list[dict[str, Any]]:
        """The latest runs, newest first: run_id, verb, integration, state, started_at, finished_at, error, report.

        `report` is RunReport as JSON values (times in ISO 8601), None where the run left none.
        """
        query = select(_runs).order_by(_runs.c.started_at.desc(), _runs.c.run_id.desc()).limit(limit)
        if integration is not None:
            query = query.where(_runs.c.integration == integration)
        if verb is not None:
            query = query.where(_runs.c.verb == verb)
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def every(self) -> Iterator[list[dict[str, Any]]]:
        """All runs as in `recent`, oldest first, some thousands at a time."""
        return self._database.pages(select(_runs), _runs.c.run_id)

    def last(
        self, integration: str, state: RunState | None = "succeeded", verb: str | None = None
    ) -> dict[str, Any] | None:
        """The latest run of an integration that ended in `state` (None: any), as in `recent`."""
        query = select(_runs).where(_runs.c.integration == integration)
        if state is not None:
            query = query.where(_runs.c.state == state)
        if verb is not None:
            query = query.where(_runs.c.verb == verb)
        query = query.order_by(_runs.c.started_at.desc(), _runs.c.run_id.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else dict(row)


def _plain(report: RunReport | None) -> Any:
    return None if report is None else json.loads(json.dumps(report.as_json(), default=_text))


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
