"""The ledger: what became of every log file ever seen, and of the batches that loaded them.

    observe ─▶ workable ─▶ plan ─▶ (heartbeat …) ─▶ commit        nothing is loaded but by `commit`
       carry, take_over ─┘           └─▶ abandon

A log file is one (integration, bucket, key, etag), exactly: an overwritten object is a new one. It is pending,
planned in a batch, loaded, quarantined until its next try, or gone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import ColumnElement, Connection, and_, exists, func, literal, or_, select, update

from kyra_etl.model import LedgerEntry, LogFile
from kyra_etl.state import tables
from kyra_etl.state.batches import Batches, is_backfilling
from kyra_etl.state.checkpoints import Checkpoints
from kyra_etl.state.columns import Time, clean
from kyra_etl.state.commits import Commits
from kyra_etl.state.database import Database, chunks
from kyra_etl.state.entries import How, entries_query, entry, in_order, link
from kyra_etl.state.lineage import Lineage
from kyra_etl.state.pruning import Pruning, pruned_among
from kyra_etl.state.tally import Tallies

_files, _links, _batches, _runs = tables.log_files, tables.run_files, tables.batches, tables.runs

_other_links, _other_runs = _links.alias("other_links"), _runs.alias("other_runs")
_FOUND_BY_BACKFILL = (
    exists()
    .where(_other_links.c.log_file_id == _files.c.id)
    .where(_other_runs.c.run_id == _other_links.c.run_id, _other_runs.c.verb == "backfill")
    .correlate(_files)
)
_OF_A_LOAD = (
    exists()
    .where(_other_links.c.log_file_id == _files.c.id)
    .where(_other_runs.c.run_id == _other_links.c.run_id, _other_runs.c.verb == "load")
    .where(_other_runs.c.state == "running")
    .correlate(_files)
)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a page of listed or hinted log files was: `already_loaded + linked + repeated` is its size."""

    already_loaded: int
    """Loaded before, nothing to do; only counted."""
    linked: int
    """Not loaded yet, and from now on this run's business."""
    new: int
    """Of those linked: never seen before."""
    repeated: int = 0
    """This run's business already: hinted and listed, or listed twice."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Log files that a run can plan: their ids in the order they are to be loaded, and the bytes of all as stored."""

    ids: array[int]
    size: int
    historical: array[int]
    """Those of another run's backfill, which come last: their alerts are no news."""


@dataclass(frozen=True, slots=True)
class _Known:
    id: int
    state: str
    linked: bool


class Ledger(Batches, Commits, Tallies, Checkpoints, Lineage, Pruning):
    def __init__(self, database: Database) -> None:
        self._database = database

    def observe(
        self, run_id: str, integration: str, bucket: str, files: Sequence[LogFile], how: How, now: datetime
    ) -> Observed:
        """Takes in a page of at most about 1,000 log files that exist in the bucket.

        Unknown ones become pending, those found gone earlier become pending again, and all that are not loaded
        are linked to the run. Any number of runs may observe the same files at once.
        """
        wanted = {(clean(file.key), clean(file.etag)): file for file in files}
        with self._database.read() as connection:
            known = _look_up(connection, run_id, integration, bucket, wanted)
            off = _taken_off(connection, integration, bucket, wanted, known)
        loaded = sum(1 for k in known.values() if k.state == "loaded" and not k.linked) + len(off)
        repeated = sum(1 for k in known.values() if k.linked) + len(files) - len(wanted)
        open_ = {
            name: file
            for name, file in wanted.items()
            if name not in off and (name not in known or not (known[name].linked or known[name].state == "loaded"))
        }
        if not open_:  # the usual page of the usual run: nothing to write
            return Observed(already_loaded=loaded, linked=0, new=0, repeated=repeated)

        with self._database.write() as connection:
            known = _look_up(connection, run_id, integration, bucket, open_)
            off = _taken_off(connection, integration, bucket, open_, known)
            unknown = sorted(name for name in open_ if name not in known and name not in off)
            rows = [_row(integration, bucket, name, open_[name], now) for name in unknown]
            new: Sequence[int] = []
            if rows:
                inserting = self._database.insert(_files).on_conflict_do_nothing().returning(_files.c.id)
                new = connection.execute(inserting, rows).scalars().all()
            waiting = [k.id for k in known.values() if k.state != "loaded" and not k.linked]
            reopening = [k.id for k in known.values() if k.state == "gone" and not k.linked]
            for ids in chunks(reopening):
                again = update(_files).where(_files.c.id.in_(ids))
                connection.execute(again.values(state="pending", reason=None, detail=None, changed_at=now))
            link(self._database, connection, run_id, [*new, *waiting], how)
        raced = sum(1 for k in known.values() if k.state == "loaded" and not k.linked) + len(off)
        return Observed(
            already_loaded=loaded + raced,
            linked=len(new) + len(waiting),
            new=len(new),
            repeated=repeated + sum(1 for k in known.values() if k.linked),
        )

    def overwritten(self, integration: str, bucket: str, files: Sequence[LogFile], now: datetime) -> int:
        """Calls gone what a page of log files has taken the place of: the same keys with other bytes, not loaded yet.

        For a bucket that reads what is there, whatever etag was asked for. Returns how many these were.
        """
        there = {clean(file.key): clean(file.etag) for file in files}
        query = select(_files.c.id, _files.c.key, _files.c.etag).where(
            _files.c.integration == integration,
            _files.c.bucket == bucket,
            _files.c.state.in_(["pending", "quarantined"]),
        )
        with self._database.read() as connection:
            held = [connection.execute(query.where(_files.c.key.in_(keys))).all() for keys in chunks(sorted(there))]
        old = [row.id for rows in held for row in rows if row.etag != there[row.key]]
        if not old:
            return 0
        going = update(_files).where(_files.c.state.in_(["pending", "quarantined"]))
        going = going.values(state="gone", reason="overwritten", detail=None, next_retry_at=None, changed_at=now)
        with self._database.write() as connection:
            return sum(connection.execute(going.where(_files.c.id.in_(ids))).rowcount for ids in chunks(old))

    def loaded(self, integration: str, bucket: str, files: Sequence[LogFile]) -> set[tuple[str, str]]:
        """(key, etag) of those of a page of log files that are loaded."""
        wanted = {(clean(file.key), clean(file.etag)): file for file in files}
        with self._database.read() as connection:
            known = _look_up(connection, "", integration, bucket, wanted)
            off = _taken_off(connection, integration, bucket, wanted, known)
        loaded = off | {name for name, one in known.items() if one.state == "loaded"}
        return {(wanted[name].key, wanted[name].etag) for name in loaded}

    def carry(self, run_id: str, integration: str, now: datetime, *, bucket: str | None = None) -> int:
        """Links what earlier runs left undone, and says how many.

        That is pending, or quarantined and due by `now`, or planned in a batch whose lease ended. What a backfill
        found is left to it while its lease lasts, and what a load found until that has ended. With `bucket`, only what
        lies there.
        """
        # Wrapped, or SQLite would take its index on buckets, which leads through everything ever loaded.
        of_bucket = () if bucket is None else (func.coalesce(_files.c.bucket, "") == bucket,)
        with self._database.write() as connection:
            clock = self._database.clock(connection)
            orphaned = select(_batches.c.batch_id).where(
                _batches.c.integration == integration,
                _batches.c.state == "planned",
                _batches.c.lease_expires_at <= clock,
            )
            left = select(literal(run_id), _files.c.id, literal("carried")).where(
                _files.c.integration == integration,
                _files.c.state.in_(["pending", "quarantined", "planned"]),
                *of_bucket,
                or_(
                    _files.c.state == "pending",
                    and_(_files.c.state == "quarantined", _files.c.next_retry_at <= now),
                    and_(_files.c.state == "planned", _files.c.batch_id.in_(orphaned)),
                ),
                ~exists().where(_links.c.run_id == run_id, _links.c.log_file_id == _files.c.id),
                ~and_(is_backfilling(integration, clock), _FOUND_BY_BACKFILL),
                ~_OF_A_LOAD,
            )
            carrying = self._database.insert(_links).from_select(["run_id", "log_file_id", "how"], left)
            return connection.execute(carrying, execution_options={"preserve_rowcount": True}).rowcount

    def workable(self, run_id: str, now: datetime | None = None) -> list[LedgerEntry]:
        """The run's log files that can be planned: pending, or quarantined and due; by day, then key.

        Due by `now`, else by the time the run began, so that a run never retries what it quarantined itself.
        """
        due = literal(now, Time) if now else _runs.c.started_at
        query = (
            entries_query()
            .join(_links, _links.c.log_file_id == _files.c.id)
            .join(_runs, _runs.c.run_id == _links.c.run_id)
            .where(
                _links.c.run_id == run_id,
                _is_workable(due),
            )
        )
        with self._database.read() as connection:
            return in_order(entry(row) for row in connection.execute(query))

    def waiting(self, run_id: str) -> Waiting:
        """What `workable` holds, by day, as bare ids: a backlog of any length fits into memory."""
        left_behind = and_(_links.c.how == "carried", _runs.c.verb != "backfill", _FOUND_BY_BACKFILL)
        query = (
            select(_files.c.id, _files.c.size, left_behind.label("historical"))
            .join(_links, _links.c.log_file_id == _files.c.id)
            .join(_runs, _runs.c.run_id == _links.c.run_id)
            .where(_links.c.run_id == run_id, _is_workable(_runs.c.started_at))
            .order_by(func.coalesce(_files.c.day, date.min), _files.c.id)
        )
        ids, historical, size = array("q"), array("q"), 0
        with self._database.read() as connection:
            for id_, bytes_, is_historical in connection.execute(query):
                (historical if is_historical else ids).append(id_)
                size += bytes_
        return Waiting(ids, size, historical)

    def entries(self, ids: Sequence[int]) -> Iterator[LedgerEntry]:
        """Log files by id, in the order given, read some at a time."""
        for some in chunks(ids):
            with self._database.read() as connection:
                found = {row.id: entry(row) for row in connection.execute(entries_query().where(_files.c.id.in_(some)))}
            yield from (found[id_] for id_ in some if id_ in found)

    def quarantined(self, integration: str | None = None) -> list[LedgerEntry]:
        """What is in quarantine, by day, then key."""
        query = entries_query().where(_files.c.state == "quarantined")
        if integration is not None:
            query = query.where(_files.c.integration == integration)
        with self._database.read() as connection:
            return in_order(entry(row) for row in connection.execute(query))

    def retry(self, integration: str | None = None, keys: Sequence[str] | None = None, *, now: datetime) -> int:
        """Makes quarantined log files pending at once (all, or those of an integration, or those named)."""
        statement = update(_files).where(_files.c.state == "quarantined")
        if integration is not None:
            statement = statement.where(_files.c.integration == integration)
        statement = statement.values(state="pending", next_retry_at=None, changed_at=now)
        with self._database.write() as connection:
            if keys is None:
                return connection.execute(statement).rowcount
            named = [statement.where(_files.c.key.in_(chunk)) for chunk in chunks(keys)]
            return sum(connection.execute(one).rowcount for one in named)


def _is_workable(due: ColumnElement[datetime]) -> ColumnElement[bool]:
    return or_(_files.c.state == "pending", and_(_files.c.state == "quarantined", _files.c.next_retry_at <= due))


def _look_up(
    connection: Connection, run_id: str, integration: str, bucket: str, wanted: Mapping[tuple[str, str], LogFile]
) -> dict[tuple[str, str], _Known]:
    """What the ledger knows of exactly these (key, etag)."""
    known: dict[tuple[str, str], _Known] = {}
    mine = and_(_links.c.log_file_id == _files.c.id, _links.c.run_id == run_id)
    query = select(_files.c.id, _files.c.key, _files.c.etag, _files.c.state, _links.c.how).outerjoin(_links, mine)
    query = query.where(_files.c.integration == integration, _files.c.bucket == bucket)
    for keys in chunks(sorted({key for key, _ in wanted})):
        for id_, key, etag, state, how in connection.execute(query.where(_files.c.key.in_(keys))):
            if (key, etag) in wanted:
                known[key, etag] = _Known(id_, state, how is not None)
    return known


def _taken_off(
    connection: Connection,
    integration: str,
    bucket: str,
    files: Mapping[tuple[str, str], LogFile],
    known: Mapping[tuple[str, str], _Known],
) -> set[tuple[str, str]]:
    """Those that the ledger does not know because they were loaded so long ago."""
    unknown = {name: file for name, file in files.items() if name not in known}
    return pruned_among(connection, integration, bucket, unknown) if unknown else set()


def _row(integration: str, bucket: str, name: tuple[str, str], file: LogFile, now: datetime) -> dict[str, object]:
    return {
        "integration": integration,
        "bucket": bucket,
        "key": name[0],
        "etag": name[1],
        "size": file.size,
        "last_modified": file.last_modified,
        "account": file.account,
        "region": file.region,
        "day": file.day,
        "state": "pending",
        "observed_at": now,
        "changed_at": now,
    }
