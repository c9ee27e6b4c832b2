"""The diary of runs: what was started, how it ended, and its report."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, case, delete, exists, false, func, insert, or_, select, update

from kyra_etl.errors import StateError
from kyra_etl.model import RunReport
from kyra_etl.state import tables
from kyra_etl.state.database import PAGE, Database, chunks

MOST = 500
"""Runs that one run makes up for at its end, where nothing could be published for long."""

RunState = Literal["running", "succeeded", "failed", "skipped"]

_runs, _links, _files, _batches = tables.runs, tables.run_files, tables.log_files, tables.batches

KEPT = 100
"""The latest runs of an integration, from which status tells how it is, however long ago they were."""


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
        values["published"] = state == "skipped"  # there is nothing of it to publish
        with self._database.write() as connection:
            ending = update(_runs).where(_runs.c.run_id == run_id).values(values)
            ended = connection.execute(ending.returning(_runs.c.integration, _runs.c.verb)).all()
            if not ended:
                raise StateError(f"The run {run_id} is not in the state database.", "Start it before finishing it.")
            self._count(connection, ended, state, now)

    def lost(self, run_ids: Iterable[str], error: str, now: datetime) -> None:
        """Notes that these runs ended without saying so; those that are not running stay as they are."""
        values = {"state": "failed", "error": error, "finished_at": now, "published": False}
        with self._database.write() as connection:
            for ids in chunks(sorted(set(run_ids))):
                lost = update(_runs).where(_runs.c.run_id.in_(ids), _runs.c.state == "running")
                ended = connection.execute(lost.values(values).returning(_runs.c.integration, _runs.c.verb)).all()
                self._count(connection, ended, "failed", now)

    def _count(self, connection: Connection, ended: Sequence[Row[Any]], state: RunState, now: datetime) -> None:
        """Adds runs to what metrics tell of all that ever ended."""
        c = tables.run_totals.c
        for (integration, verb), runs in sorted(Counter(map(tuple, ended)).items()):
            adding = self._database.insert(tables.run_totals).values(
                integration=integration, verb=verb, state=state, runs=runs, last_finished_at=now
            )
            new = adding.excluded
            latest = case((new.last_finished_at > c.last_finished_at, new.last_finished_at), else_=c.last_finished_at)
            sums = {"runs": c.runs + new.runs, "last_finished_at": latest}
            connection.execute(adding.on_conflict_do_update(index_elements=[c.integration, c.verb, c.state], set_=sums))

    def unpublished(self, held: Iterable[str], before: datetime) -> list[dict[str, Any]]:
        """Runs that ended and are not in the lake yet, oldest first, as in `recent`; the first MOST of them.

        Those too that began before then, have not said how they ended, and are not among those `held` by anybody.
        """
        c = _runs.c
        over = or_(c.state != "running", and_(c.started_at < before, c.run_id.not_in(sorted(held))))
        query = select(_runs).where(c.published == false(), over).order_by(c.started_at, c.run_id).limit(MOST)
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def mark_published(self, run_id: str, state: RunState) -> None:
        """Notes that a run, with what it changed, is in the lake, unless it is in another state by now."""
        told = update(_runs).where(_runs.c.run_id == run_id, _runs.c.state == state)
        with self._database.write() as connection:
            connection.execute(told.values(published=True))

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

    def prune(self, before: datetime, alive: Callable[[], object] = lambda: None) -> int:
        """Takes runs off that began before then, and returns how many that were.

        Of one that committed a batch it leaves when it was and how it ended, for `kyra explain`; of others nothing.
        Kept whole are those that status looks at (the latest KEPT of each integration, the last of each verb and
        state), those under way, and those of log files that are not settled. What metrics count stays.
        """
        kept, oldest = self._needed()
        c, taken = _runs.c, 0
        of_batch, linked = (exists().where(table.c.run_id == c.run_id) for table in (_batches, _links))
        old = select(c.run_id, c.integration, c.started_at).where(c.started_at < before, c.state != "running")
        old = old.where(or_(c.report.is_not(None), ~of_batch, linked))
        for rows in self._database.pages(old, c.started_at, c.run_id):
            names = [
                row["run_id"]
                for row in rows
                if row["run_id"] not in kept and row["started_at"] < oldest.get(row["integration"], datetime.min)
            ]
            for ids in chunks(names):
                self._unlink(ids, alive)
                with self._database.write() as connection:
                    connection.execute(delete(_runs).where(c.run_id.in_(ids), ~of_batch))
                    connection.execute(update(_runs).where(c.run_id.in_(ids)).values(report=None))
                taken += len(ids)
                alive()
        return taken

    def publishing(self) -> datetime | None:
        """When the first run began that is not in the lake yet, or under way; None when there is none."""
        with self._database.read() as connection:
            began: datetime | None = connection.scalar(
                select(func.min(_runs.c.started_at)).where(_runs.c.published == false())
            )
        return began

    def _needed(self) -> tuple[set[str], dict[str, datetime]]:
        """Runs that stay whole, and by integration the time from which on all of them do."""
        c, oldest = _runs.c, dict[str, datetime]()
        with self._database.read() as connection:
            ended = connection.execute(select(tables.run_totals)).all()
            names = sorted({row.integration for row in ended})
            open_ = select(_links.c.run_id).join(_files, _files.c.id == _links.c.log_file_id).distinct()
            unsettled = _files.c.state.in_(["pending", "planned", "quarantined"])
            open_ = open_.where(_files.c.integration.in_(names), unsettled)
            kept = set(connection.scalars(open_))
            for row in ended:
                same = c.integration == row.integration, c.verb == row.verb, c.state == row.state
                last = select(c.run_id).where(*same).order_by(c.started_at.desc(), c.run_id.desc()).limit(1)
                kept.update(connection.scalars(last))
            for name in names:
                latest = select(c.started_at).where(c.integration == name).order_by(c.started_at.desc())
                if at := connection.scalar(latest.offset(KEPT - 1).limit(1)):
                    oldest[name] = at
        return kept, oldest

    def _unlink(self, run_ids: Sequence[str], alive: Callable[[], object]) -> None:
        """Forgets which log files these runs dealt with: of a backfill they may be many, and a transaction is short."""
        c = _links.c
        some = select(c.run_id, c.log_file_id).where(c.run_id.in_(run_ids)).order_by(c.run_id).limit(PAGE)
        while True:
            with self._database.write() as connection:
                found = connection.execute(some).all()
                for run_id, links in groupby(found, key=lambda link: link.run_id):
                    for ids in chunks([link.log_file_id for link in links]):
                        connection.execute(delete(_links).where(c.run_id == run_id, c.log_file_id.in_(ids)))
            if len(found) < PAGE:
                return
            alive()

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
