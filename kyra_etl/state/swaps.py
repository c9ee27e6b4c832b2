"""Swaps: data files put in the place of others, in one transaction that requires that nobody else did so meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import Integer, Select, cast, delete, func, insert, or_, select, update

from kyra_etl.errors import CommitRefused
from kyra_etl.model import DataFile
from kyra_etl.state import tables
from kyra_etl.state.commits import advance, data_file, data_row, partition_versions
from kyra_etl.state.database import Database, chunks

_swaps, _files, _queue, _horizons = tables.swaps, tables.data_files, tables.detection_queue, tables.horizons

Kind = Literal["compact", "retain", "rebuild"]
Partition = tuple[str, date]


@dataclass(frozen=True, slots=True)
class Contents:
    """Files of a partition: `full` ones of events are as large as a compaction makes them, the others are `small`."""

    small: list[DataFile]
    full: list[DataFile]
    activity: list[DataFile]


class Swaps:
    def __init__(self, database: Database) -> None:
        self._database = database

    def plan(self, kind: Kind, account: str, day: date, now: datetime) -> str:
        """Begin to replace files of a partition; the new swap's id. Until it is settled, its staging is not swept."""
        swap_id = f"{kind}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}"
        row = {"swap_id": swap_id, "kind": kind, "account": account, "date": day, "state": "planned", "planned_at": now}
        with self._database.write() as connection:
            connection.execute(insert(_swaps).values(row))
        return swap_id

    def commit(
        self,
        swap_id: str,
        *,
        replaced: Sequence[DataFile],
        made: Sequence[DataFile],
        read: Sequence[DataFile] = (),
        now: datetime,
    ) -> None:
        """Put `made` in the place of `replaced`, wholly or not at all; the partition moves on by a version.

        Raises CommitRefused unless the swap is still planned, and all of `replaced` and `read` are still live.
        """
        paths = [file.path for file in replaced]
        with self._database.write() as connection:
            settling = update(_swaps).where(_swaps.c.swap_id == swap_id, _swaps.c.state == "planned")
            settling = settling.values(state="committed", settled_at=now).returning(_swaps.c.account, _swaps.c.date)
            partition = connection.execute(settling).one_or_none()
            if partition is None:
                raise CommitRefused(f"Swap {swap_id} was called off.", "Nothing was changed; run it again.")
            needed = sorted({*paths, *(file.path for file in read)})
            alive = sum(
                connection.scalar(select(func.count()).where(_files.c.path.in_(some), _files.c.live)) or 0
                for some in chunks(needed)
            )
            if alive != len(needed):
                raise CommitRefused(
                    f"Files of {partition.account}/{partition.date} were replaced by somebody else meanwhile.",
                    "Nothing was changed; run it again.",
                )
            advance(
                self._database,
                connection,
                partition_versions(connection, [(partition.account, partition.date)]),
            )
            for some in chunks(paths):
                retiring = update(_files).where(_files.c.path.in_(some))
                connection.execute(retiring.values(live=False, replaced_by=swap_id, replaced_at=now))
            if made:
                connection.execute(insert(_files), [data_row(file, swap_id=swap_id) for file in made])

    def abandon(self, swap_id: str | None, now: datetime) -> None:
        """Call a planned swap off, or every one of them; those that are settled stay as they are."""
        calling_off = update(_swaps).where(_swaps.c.state == "planned")
        if swap_id is not None:
            calling_off = calling_off.where(_swaps.c.swap_id == swap_id)
        with self._database.write() as connection:
            connection.execute(calling_off.values(state="abandoned", settled_at=now))

    def planned(self) -> set[str]:
        """Ids of the swaps that are under way."""
        with self._database.read() as connection:
            return set(connection.scalars(select(_swaps.c.swap_id).where(_swaps.c.state == "planned")))

    def crowded(
        self, full: int, *, first: date | None, last: date | None, accounts: Collection[str] | None
    ) -> list[Partition]:
        """Partitions to compact: with a file as a batch wrote it, or with several of less than `full` bytes; by day."""
        c = _files.c
        small = cast((c.kind == "events") & (c.size < full), Integer)
        rolled = cast(c.kind == "activity", Integer)
        raw = cast(c.batch_id.is_not(None), Integer)
        query = self._partitions(first, last, accounts).where(c.live, c.published)
        query = query.having(or_(func.sum(raw) > 0, func.sum(small) > 1, func.sum(rolled) > 1))
        with self._database.read() as connection:
            return [(account, day) for account, day in connection.execute(query)]

    def filled(
        self, *, first: date | None = None, last: date | None = None, accounts: Collection[str] | None = None
    ) -> list[Partition]:
        """Partitions that hold anything."""
        query = self._partitions(first, last, accounts).where(_files.c.live)
        with self._database.read() as connection:
            return [(account, day) for account, day in connection.execute(query)]

    def _partitions(self, first: date | None, last: date | None, accounts: Collection[str] | None) -> Select[Any]:
        c = _files.c
        query = select(c.account, c.date).where(c.kind.in_(["events", "activity"])).group_by(c.account, c.date)
        if first is not None:
            query = query.where(c.date >= first)
        if last is not None:
            query = query.where(c.date <= last)
        if accounts is not None:
            query = query.where(c.account.in_(sorted(set(accounts))))
        return query.order_by(c.date, c.account)

    def contents(self, partition: Partition, full: int) -> Contents:
        """The published files of a partition."""
        account, day = partition
        c = _files.c
        query = select(_files).where(c.live, c.published, c.account == account, c.date == day).order_by(c.path)
        small: list[DataFile] = []
        large: list[DataFile] = []
        activity: list[DataFile] = []
        with self._database.read() as connection:
            for row in connection.execute(query).mappings():
                written_once = row["swap_id"] is not None and row["size"] >= full
                group = activity if row["kind"] == "activity" else large if written_once else small
                group.append(data_file(row))
        return Contents(small, large, activity)

    def totals(self) -> dict[str, int]:
        """Of the whole lake: files, bytes and events, and event_files and event_bytes of the events alone."""
        c = _files.c
        query = select(c.kind, func.count(), func.sum(c.size), func.sum(c.rows)).where(c.live).group_by(c.kind)
        with self._database.read() as connection:
            found = {kind: tuple(map(int, numbers)) for kind, *numbers in connection.execute(query)}
        files, bytes_, events = found.get("events", (0, 0, 0))
        return {
            "files": sum(one[0] for one in found.values()),
            "bytes": sum(one[1] for one in found.values()),
            "events": events,
            "event_files": files,
            "event_bytes": bytes_,
        }

    def retired(self, before: datetime) -> list[str]:
        """Final paths that files had which were replaced before then, and are out of readers' way."""
        c = _files.c
        query = select(c.path).where(~c.live, ~c.published, c.replaced_at < before).order_by(c.path)
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def forget(self, paths: Sequence[str]) -> None:
        """Drop replaced files from the books, save those that say where a queued batch's events were."""
        waiting = select(_queue.c.batch_id)
        with self._database.write() as connection:
            for some in chunks(paths):
                unneeded = or_(_files.c.batch_id.is_(None), _files.c.batch_id.not_in(waiting))
                connection.execute(delete(_files).where(_files.c.path.in_(some), ~_files.c.live, unneeded))

    def horizons(self) -> dict[str, date]:
        """By account, the first day that retention left in the lake; what arrives later and is older has expired."""
        with self._database.read() as connection:
            rows = connection.execute(select(_horizons.c.account, _horizons.c.day))
            return {row.account: row.day for row in rows}

    def set_horizons(self, days: Mapping[str, date], now: datetime) -> None:
        """Move horizons on; they never move back."""
        rows = [{"account": account, "day": day, "set_at": now} for account, day in days.items()]
        if not rows:
            return
        moving = self._database.insert(_horizons)
        moving = moving.on_conflict_do_update(
            index_elements=[_horizons.c.account],
            set_={"day": moving.excluded.day, "set_at": moving.excluded.set_at},
            where=_horizons.c.day < moving.excluded.day,
        )
        with self._database.write() as connection:
            connection.execute(moving, rows)
