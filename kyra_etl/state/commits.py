"""The commit: the one transaction in which log files become loaded and data files become part of the lake."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, case, insert, or_, select, update

from kyra_etl.errors import CommitRefused, StateError, VersionMismatch
from kyra_etl.model import Batch, Commit, DataFile, FileOutcome
from kyra_etl.state import tables
from kyra_etl.state.backoff import next_retry
from kyra_etl.state.batches import give_back, still_ours
from kyra_etl.state.database import Database, chunks

_files, _partitions, _data_files = tables.log_files, tables.partitions, tables.data_files
_ever = tables.totals
_OF_A_FILE = [_data_files.c[field.name] for field in fields(DataFile)]

_SUMS = ("records", "events", "duplicates", "conflicts", "malformed", "expired")


class Commits:
    _database: Database

    def versions(self, partitions: Iterable[tuple[str, date]]) -> dict[tuple[str, date], int]:
        """How often each (account, date) was committed to; 0 for never."""
        with self._database.read() as connection:
            return partition_versions(connection, partitions)

    def commit(self, commit: Commit, now: datetime) -> None:
        """Makes the commit true, wholly or not at all.

        Raises CommitRefused unless the batch is still planned under this attempt, and VersionMismatch unless every
        partition still has the version that deduplication read. Log files of the batch without an outcome, or
        with outcome pending, are given back.
        """
        batch = commit.batch
        with self._database.write() as connection:
            sizes = _sizes(connection, batch.batch_id)
            settled = _totals(commit.outcomes, sizes)
            settling = still_ours(batch).values(state="committed", settled_at=now, **settled)
            if connection.execute(settling).rowcount != 1:
                raise CommitRefused(
                    f"Attempt {batch.attempt} of batch {batch.batch_id} no longer owns it.",
                    "Nothing was written; whoever took it over completes it.",
                )
            advance(self._database, connection, commit.versions)
            _settle(connection, commit, sizes, now)
            _add(self._database, connection, batch, settled, now)
            give_back(connection, batch.batch_id, now)
            if commit.data_files:
                rows = [data_row(file, batch_id=batch.batch_id) for file in commit.data_files]
                connection.execute(insert(_data_files), rows)
            if commit.detections:
                queued = [
                    {"batch_id": batch.batch_id, "detection": one, "queued_at": now} for one in set(commit.detections)
                ]
                connection.execute(insert(tables.detection_queue), queued)

    def data_files(
        self,
        kind: str,
        *,
        accounts: Collection[str] | None = None,
        first: date | None = None,
        last: date | None = None,
        batch_ids: Collection[str] | None = None,
        times: tuple[datetime, datetime] | None = None,
    ) -> list[DataFile]:
        """Live files of committed batches, by path: of these accounts, batches, dates `first` to `last` inclusive.

        With `times`, those that may hold an event from the one to the other.
        """
        query = select(*_OF_A_FILE).where(_data_files.c.live, _data_files.c.kind == kind)
        if first is not None:
            query = query.where(_data_files.c.date >= first)
        if last is not None:
            query = query.where(_data_files.c.date <= last)
        if times is not None:
            earliest, latest = _data_files.c.min_time, _data_files.c.max_time
            query = query.where(
                or_(earliest.is_(None), earliest <= times[1]), or_(latest.is_(None), latest >= times[0])
            )
        queries = [query]
        for column, values in ((_data_files.c.account, accounts), (_data_files.c.batch_id, batch_ids)):
            if values is not None:
                queries = [q.where(column.in_(some)) for q in queries for some in chunks(sorted(set(values)))]
        with self._database.read() as connection:
            files = [DataFile(*row) for one in queries for row in connection.execute(one)]
        return sorted(files, key=lambda file: file.path)

    def every_data_file(self) -> list[DataFile]:
        """Live files of every kind, by path."""
        query = select(*_OF_A_FILE).where(_data_files.c.live).order_by(_data_files.c.path)
        with self._database.read() as connection:
            return [DataFile(*row) for row in connection.execute(query)]

    def files_of_batch(self, batch_id: str) -> tuple[list[DataFile], int]:
        """The live files that hold a batch's events, by path, and how many events the batch committed.

        After a compaction these are files that hold events of other batches too.
        """
        with self._database.read() as connection:
            return _files_of_batch(connection, batch_id)

    def files_of_batches(self, batch_ids: Iterable[str]) -> list[DataFile]:
        """The live files of all these batches, by path, as of one moment: never a file and what replaced it."""
        with self._database.read() as connection:
            found = [file for batch_id in batch_ids for file in _files_of_batch(connection, batch_id)[0]]
        return sorted({file.path: file for file in found}.values(), key=lambda file: file.path)

    def unpublished(self) -> list[DataFile]:
        """The live files that still wait in staging for their rename, by path."""
        return self.unsettled()[1]

    def unsettled(self) -> tuple[list[DataFile], list[DataFile]]:
        """Of one moment: replaced files that are still among the others, and live ones not published, by path.

        Whoever moves them moves the replaced ones first: a glob may lack events, never see them twice.
        """
        c = _data_files.c
        with self._database.read() as connection:
            replaced, waiting = (
                [data_file(row) for row in connection.execute(select(_data_files).where(*which)).mappings()]
                for which in ((~c.live, c.published), (c.live, ~c.published))
            )
        return sorted(replaced, key=lambda file: file.path), sorted(waiting, key=lambda file: file.path)

    def mark_published(self, paths: Sequence[str]) -> None:
        """Notes that these files are at their final path; saying so twice is harmless."""
        self._mark(paths, published=True)

    def mark_retired(self, paths: Sequence[str]) -> None:
        """Notes that these replaced files are no longer among the others."""
        self._mark(paths, published=False)

    def _mark(self, paths: Sequence[str], **values: bool) -> None:
        with self._database.write() as connection:
            for some in chunks(paths):
                connection.execute(update(_data_files).where(_data_files.c.path.in_(some)).values(**values))


def advance(database: Database, connection: Connection, read: Mapping[tuple[str, date], int]) -> None:
    """Moves partitions on by one version each, from those that were read. Raises VersionMismatch."""
    now_at = partition_versions(connection, read)
    moved = sorted(partition for partition, version in read.items() if now_at[partition] != version)
    if moved:
        account, day = moved[0]
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        raise VersionMismatch(
            f"Another commit changed the partition {account}/{day}{more} meanwhile.",
            "Nothing was written; deduplicate again and commit again.",
        )
    if read:
        rows = [{"account": account, "date": day, "version": version + 1} for (account, day), version in read.items()]
        moving = database.insert(_partitions)
        moving = moving.on_conflict_do_update(
            index_elements=[_partitions.c.account, _partitions.c.date], set_={"version": moving.excluded.version}
        )
        connection.execute(moving, rows)


def partition_versions(connection: Connection, partitions: Iterable[tuple[str, date]]) -> dict[tuple[str, date], int]:
    versions = dict.fromkeys(partitions, 0)
    c = _partitions.c
    for some in chunks(sorted(versions), 250):
        found = connection.execute(select(c.account, c.date, c.version).where(_among(c, some)))
        versions |= {(account, day): version for account, day, version in found if (account, day) in versions}
    return versions


def _among(c: Any, partitions: Collection[tuple[str, date]]) -> ColumnElement[bool]:
    """Rows of these partitions, and of others of their accounts and days.

    Asked for pair by pair, SQLite would read those of all days there are.
    """
    accounts, days = ({each[n] for each in partitions} for n in (0, 1))
    return and_(c.account.in_(sorted(accounts)), c.date.in_(sorted(days)))


def _sizes(connection: Connection, batch_id: str) -> dict[int, tuple[int, int]]:
    """(bytes as stored, failed attempts so far) of each log file planned in the batch."""
    query = select(_files.c.id, _files.c.size, _files.c.attempts)
    rows = connection.execute(query.where(_files.c.batch_id == batch_id, _files.c.state == "planned"))
    return {id_: (size, attempts) for id_, size, attempts in rows}


def _totals(outcomes: Sequence[FileOutcome], sizes: Mapping[int, tuple[int, int]]) -> dict[str, Any]:
    loaded = [outcome for outcome in outcomes if outcome.state == "loaded"]
    sums = {name: sum(getattr(outcome, name) for outcome in loaded) for name in _SUMS}
    firsts = [outcome.first_event_at for outcome in loaded if outcome.first_event_at]
    lasts = [outcome.last_event_at for outcome in loaded if outcome.last_event_at]
    return sums | {
        "files": len(loaded),
        "bytes": sum(sizes[outcome.id][0] for outcome in loaded if outcome.id in sizes),
        "first_event_at": min(firsts, default=None),
        "last_event_at": max(lasts, default=None),
    }


def _add(database: Database, connection: Connection, batch: Batch, settled: Mapping[str, Any], now: datetime) -> None:
    """Adds what a batch loaded to what the integration ever loaded."""
    latest = now if settled["files"] else None
    adding = database.insert(_ever).values(
        integration=batch.integration, bucket=batch.bucket, batches=1, last_loaded_at=latest, **settled
    )
    new = adding.excluded
    values: dict[str, Any] = {name: _ever.c[name] + new[name] for name in ("batches", "files", "bytes", *_SUMS)}
    # Neither MIN of two nor LEAST is known to both databases, nor what they make of NULL.
    for name, later in (("first_event_at", False), ("last_event_at", True), ("last_loaded_at", True)):
        ours, theirs = _ever.c[name], new[name]
        better = theirs > ours if later else theirs < ours
        values[name] = case((or_(ours.is_(None), better), theirs), else_=ours)
    connection.execute(adding.on_conflict_do_update(index_elements=[_ever.c.integration, _ever.c.bucket], set_=values))


def _settle(connection: Connection, commit: Commit, sizes: Mapping[int, tuple[int, int]], now: datetime) -> None:
    """Writes the outcome of every log file: one statement for each kind of outcome."""
    strangers = [outcome.id for outcome in commit.outcomes if outcome.id not in sizes]
    if strangers:
        raise StateError(
            f"Log file {strangers[0]} is not planned in batch {commit.batch.batch_id}.", "Nothing was written."
        )
    kinds: dict[str, tuple[Callable[[FileOutcome], dict[str, Any]], list[dict[str, Any]]]] = {
        "loaded": (lambda outcome: _loaded(outcome, now), []),
        "quarantined": (lambda outcome: _quarantined(outcome, sizes[outcome.id][1] + 1, now), []),
        "gone": (lambda outcome: {"reason": outcome.reason, "detail": outcome.detail, "next_retry_at": None}, []),
    }
    for outcome in commit.outcomes:
        if outcome.state in kinds:
            values, rows = kinds[outcome.state]
            settled = {"this": outcome.id, "state": outcome.state, "run_id": commit.batch.run_id, "changed_at": now}
            rows.append(settled | values(outcome))
    for _, rows in kinds.values():
        if rows:
            connection.execute(update(_files).where(_files.c.id == bindparam("this")), rows)


def _loaded(outcome: FileOutcome, now: datetime) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in _SUMS} | {
        "uncompressed": outcome.uncompressed,
        "sha256": outcome.sha256,
        "first_event_at": outcome.first_event_at,
        "last_event_at": outcome.last_event_at,
        "loaded_at": now,
        "reason": None,
        "detail": None,
        "next_retry_at": None,
    }


def _quarantined(outcome: FileOutcome, attempts: int, now: datetime) -> dict[str, Any]:
    reason = outcome.reason or "unknown"
    return {
        "reason": reason,
        "detail": (outcome.detail or "")[:2000],
        "attempts": attempts,
        "next_retry_at": next_retry(now, reason, attempts, permanent=outcome.permanent),
        "batch_id": None,
    }


def data_row(file: DataFile, **origin: str) -> dict[str, Any]:
    """A live data file as a row; `origin` is the batch_id or swap_id it comes from."""
    return {field.name: getattr(file, field.name) for field in fields(DataFile)} | {"live": True} | origin


def data_file(row: RowMapping) -> DataFile:
    """A row of `data_files` as its value."""
    return DataFile(**{field.name: row[field.name] for field in fields(DataFile)})


def _files_of_batch(connection: Connection, batch_id: str) -> tuple[list[DataFile], int]:
    c = _data_files.c
    own = select(_data_files).where(c.batch_id == batch_id, c.kind == "events")
    rows = connection.execute(own).mappings().all()
    files = [data_file(row) for row in rows if row["live"]]
    moved = sorted({(row["account"], row["date"]) for row in rows if not row["live"]})
    for some in chunks(moved, 250):
        merged = select(_data_files).where(c.live, c.kind == "events", c.swap_id.is_not(None), _among(c, some))
        found = [data_file(row) for row in connection.execute(merged).mappings()]
        files += [file for file in found if (file.account, file.date) in some]
    return sorted(files, key=lambda file: file.path), sum(row["rows"] for row in rows)
