"""Batches: planned once, owned under a lease, taken over when the lease ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Update, and_, exists, insert, select, update

from kyra_etl.model import Batch, LedgerEntry
from kyra_etl.state import tables
from kyra_etl.state.columns import clean
from kyra_etl.state.database import Database, chunks
from kyra_etl.state.entries import entries_query, entry, in_order, link

_files, _batches, _runs, _leases = tables.log_files, tables.batches, tables.runs, tables.leases


class Batches:
    _database: Database

    def plan(
        self,
        run_id: str,
        integration: str,
        bucket: str,
        entries: Sequence[LedgerEntry],
        *,
        owner: str,
        lease_seconds: float,
        historical: bool,
        now: datetime,
    ) -> Batch | None:
        """Puts those of `entries` that nobody planned meanwhile into a new batch; None when there is none left."""
        with self._database.write() as connection:
            rows: list[Row[Any]] = []
            where = (clean(integration), clean(bucket))
            for ids in chunks(sorted({e.id for e in entries})):
                query = entries_query().where(_files.c.id.in_(ids), _files.c.state.in_(["pending", "quarantined"]))
                # Not asked for: it would lead SQLite through all that the bucket ever had.
                rows += [row for row in connection.execute(query) if (row.integration, row.bucket) == where]
            if not rows:
                return None
            batch_id = f"{now:%Y%m%dT%H%M%S}-{_digest(integration, bucket, rows)}"
            connection.execute(
                insert(_batches).values(
                    batch_id=batch_id,
                    integration=integration,
                    bucket=bucket,
                    run_id=run_id,
                    state="planned",
                    attempt=1,
                    owner=owner,
                    lease_expires_at=self._database.clock(connection) + timedelta(seconds=lease_seconds),
                    historical=historical,
                    planned_at=now,
                )
            )
            for ids in chunks([row.id for row in rows]):
                planning = update(_files).where(_files.c.id.in_(ids))
                connection.execute(
                    planning.values(state="planned", batch_id=batch_id, plans=_files.c.plans + 1, changed_at=now)
                )
            return Batch(batch_id, integration, bucket, 1, _of_batch(connection, batch_id), run_id, historical)

    def take_over(
        self, run_id: str, integration: str, *, owner: str, lease_seconds: float, bucket: str | None = None
    ) -> list[Batch]:
        """The integration's batches whose lease ended, now this run's, under the next attempt: the old one is void.

        With `bucket`, only those of its log files: a run can only read its own. Their log files count as carried by
        this run. Those of a backfill are left to it while its own lease lasts.
        """
        c = _batches.c
        of_bucket = () if bucket is None else (c.bucket == bucket,)
        of_backfill = exists().where(_runs.c.run_id == c.run_id, _runs.c.verb == "backfill")
        is_one = exists().where(_runs.c.run_id == run_id, _runs.c.verb == "backfill")
        with self._database.write() as connection:
            clock = self._database.clock(connection)
            taking = (
                update(_batches)
                .where(c.integration == integration, c.state == "planned", c.lease_expires_at <= clock, *of_bucket)
                .where(~and_(of_backfill, is_backfilling(integration, clock), ~is_one))
                .values(
                    attempt=c.attempt + 1,
                    run_id=run_id,
                    owner=owner,
                    lease_expires_at=clock + timedelta(seconds=lease_seconds),
                )
                .returning(c.batch_id, c.bucket, c.attempt, c.historical)
            )
            batches = [
                Batch(batch_id, integration, bucket, attempt, _of_batch(connection, batch_id), run_id, historical)
                for batch_id, bucket, attempt, historical in connection.execute(taking).all()
            ]
            link(self._database, connection, run_id, [e.id for batch in batches for e in batch.entries], "carried")
        return sorted(batches, key=lambda batch: batch.batch_id)

    def claim(self, batch_id: str, *, owner: str, lease_seconds: float) -> Batch | None:
        """The planned batch under its next attempt, for the run that planned it; None when there is nothing left to do.

        For work that is handed out: whoever had it before finds its commit refused.
        """
        c = _batches.c
        with self._database.write() as connection:
            until = self._database.clock(connection) + timedelta(seconds=lease_seconds)
            claiming = update(_batches).where(c.batch_id == batch_id, c.state == "planned")
            claiming = claiming.values(attempt=c.attempt + 1, owner=owner, lease_expires_at=until)
            claimed = connection.execute(claiming.returning(c.integration, c.bucket, c.attempt, c.run_id, c.historical))
            row = claimed.first()
            if row is None:
                return None
            entries = _of_batch(connection, batch_id)
            return Batch(batch_id, row.integration, row.bucket, row.attempt, entries, row.run_id, row.historical)

    def keep(self, batch_ids: Sequence[str], *, owner: str, lease_seconds: float) -> None:
        """Moves the end of the leases on of those that this owner planned and nobody has claimed yet."""
        c = _batches.c
        with self._database.write() as connection:
            until = self._database.clock(connection) + timedelta(seconds=lease_seconds)
            for ids in chunks(batch_ids):
                waiting = update(_batches).where(c.batch_id.in_(ids), c.state == "planned", c.owner == owner)
                connection.execute(waiting.values(lease_expires_at=until))

    def give_up(self, batch_ids: Sequence[str], *, owner: str, reason: str, now: datetime) -> None:
        """Gives the log files back of those that this owner planned and nobody has claimed."""
        c = _batches.c
        with self._database.write() as connection:
            for ids in chunks(batch_ids):
                unclaimed = update(_batches).where(c.batch_id.in_(ids), c.state == "planned", c.owner == owner)
                unclaimed = unclaimed.values(state="abandoned", reason=reason, settled_at=now).returning(c.batch_id)
                for batch_id in connection.execute(unclaimed).scalars().all():
                    give_back(connection, batch_id, now)

    def heartbeat(self, batch: Batch, lease_seconds: float) -> bool:
        """Moves the end of the lease on. False when the batch is somebody else's by now, or settled."""
        with self._database.write() as connection:
            until = self._database.clock(connection) + timedelta(seconds=lease_seconds)
            return connection.execute(still_ours(batch).values(lease_expires_at=until)).rowcount == 1

    def abandon(self, batch: Batch, reason: str, now: datetime) -> None:
        """Gives the log files back as pending, if the batch is still planned under this attempt."""
        with self._database.write() as connection:
            giving_up = still_ours(batch).values(state="abandoned", reason=reason, settled_at=now)
            if connection.execute(giving_up).rowcount == 1:
                give_back(connection, batch.batch_id, now)

    def live_batches(self) -> set[tuple[str, int]]:
        """(batch_id, attempt) of every planned batch: any other staging is dead."""
        query = select(_batches.c.batch_id, _batches.c.attempt).where(_batches.c.state == "planned")
        with self._database.read() as connection:
            return {(batch_id, attempt) for batch_id, attempt in connection.execute(query)}

    def historical_batches(self, batch_ids: Iterable[str]) -> set[str]:
        """Those of `batch_ids` that came by backfill, initial sync or load."""
        query = select(_batches.c.batch_id).where(_batches.c.historical)
        with self._database.read() as connection:
            found = (
                connection.scalars(query.where(_batches.c.batch_id.in_(c))) for c in chunks(sorted(set(batch_ids)))
            )
            return {batch_id for some in found for batch_id in some}


def is_backfilling(integration: str, clock: datetime) -> ColumnElement[bool]:
    """Whether a backfill of the integration holds its lease."""
    return exists().where(_leases.c.name == f"backfill:{integration}", _leases.c.expires_at > clock)


def still_ours(batch: Batch) -> Update:
    """An UPDATE that meets the batch only while it is planned under this very attempt."""
    c = _batches.c
    return update(_batches).where(c.batch_id == batch.batch_id, c.state == "planned", c.attempt == batch.attempt)


def give_back(connection: Connection, batch_id: str, now: datetime) -> None:
    """Makes what is still planned in the batch pending."""
    giving = update(_files).where(_files.c.batch_id == batch_id, _files.c.state == "planned")
    connection.execute(giving.values(state="pending", batch_id=None, changed_at=now))


def _of_batch(connection: Connection, batch_id: str) -> tuple[LedgerEntry, ...]:
    query = entries_query().where(_files.c.batch_id == batch_id, _files.c.state == "planned")
    return tuple(in_order(entry(row) for row in connection.execute(query)))


def _digest(integration: str, bucket: str, rows: Sequence[Row[Any]]) -> str:
    """Names the batch by its exact content; `plans` tells a plan from the one of the same files before it."""
    lines = sorted(f"{row.key}\0{row.etag}\0{row.plans}" for row in rows)
    return hashlib.sha256("\n".join([integration, bucket, *lines]).encode()).hexdigest()[:12]
