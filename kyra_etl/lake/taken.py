"""The new events, and what many detections look at besides, in tables that every connection of an engine sees.

Most of a run's cost is opening files and taking rows apart, not looking at them. So the new events are held in memory,
and what several detections look at is read once, while it fits into memory: the events around them, and `activity`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from kyra_etl.cloudtrail.schema import ACTIVITY, EVENTS
from kyra_etl.detection.rule import Detection
from kyra_etl.lake import Lake, recent
from kyra_etl.lake.views import between, listed, literal, reading
from kyra_etl.model import DataFile

IN_MEMORY = 200_000
"""New events up to this number are held in memory once; more are read from their files by each detection."""

SHARED = 1_000_000
"""Older rows up to this number are held in memory for all detections.

Of more events each reads its own; more activity is copied to a file of this machine first.
"""

_NEEDED = ("account", "event_id", "event_time", "event_name", "batch_id")
"""Columns that the engine itself reads."""

_NEAR = timedelta(minutes=60)
"""The widest lookback that events of any name are held for; those of some names are held for any."""


class Committed(Protocol):
    """What the engine asks of the ledger."""

    def data_files(
        self,
        kind: str,
        *,
        accounts: Collection[str] | None,
        first: date | None,
        last: date | None,
        times: tuple[datetime, datetime] | None,
    ) -> Sequence[DataFile]: ...

    def historical_batches(self, batch_ids: Iterable[str]) -> set[str]: ...


class Span(NamedTuple):
    """A stretch of time of one account, both ends included."""

    account: str
    first: datetime
    last: datetime


class Seen(NamedTuple):
    """When the new events of one name, account and batch happened."""

    account: str
    event_name: str | None
    batch_id: str | None
    first: datetime
    last: datetime


@dataclass
class _Shared:
    """What several detections read, made when the first one asks; False where each reads its own."""

    around: tuple[Detection, ...] = ()
    """Those that look at events around the new ones: at all of them nearby, or only at those of some names."""
    learning: tuple[Detection, ...] = ()
    """Those with a baseline."""
    tables: dict[str, bool] = field(default_factory=dict)
    reach: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    """From when to when anybody looks, by the kind of files."""
    files: dict[str, tuple[datetime, datetime, list[DataFile]]] = field(default_factory=dict)
    making: dict[str, Lock] = field(
        default_factory=lambda: {name: Lock() for name in ("_around", "_activity", "files")}
    )
    """Whoever asks while another makes it waits for that one."""


class Taken:
    """The new events, `_taken`, and in `_around` and `_activity` what detections look at besides.

    `take` is for one thread alone; the rest is asked by those that evaluate, each on its own connection.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        lake: Lake,
        committed: Committed,
        trusted: Callable[[Detection], bool],
        scratch: Path,
    ) -> None:
        self._connection, self._committed, self._trusted = connection, committed, trusted
        self.lake, self._scratch = lake, scratch
        self.seen: list[Seen] = []
        self.rows = 0
        """How many events were taken."""
        self._whole: Sequence[DataFile] = ()
        self.times = 0
        """How often anything was taken."""
        self.copies = True
        """Whether copies of recent events are read; not after something could not be."""
        self._shared = _Shared()

    def take(
        self,
        listed_files: Callable[[], Sequence[DataFile]],
        within: str,
        rows: int | None,
        detections: Collection[Detection],
    ) -> None:
        """Take the events of data files that meet the condition as the new ones; `detections` will look at them.

        `rows` says how many they are, where the files hold others too.
        """
        files = listed_files()
        source = f"SELECT * FROM ({reading(EVENTS, self.lake.readable(files))}) WHERE {within}"
        self.rows = sum(file.rows for file in files) if rows is None else rows
        small = self.rows <= IN_MEMORY
        self._connection.execute(f"CREATE OR REPLACE TABLE _held AS {source if small else reading(EVENTS, ())}")
        self._connection.execute(f"CREATE OR REPLACE VIEW _taken AS {'SELECT * FROM _held' if small else source}")
        self._whole = files if self.rows <= recent.MOST and sum(file.rows for file in files) == self.rows else ()
        self.times += 1
        self.seen = [
            Seen(*row)
            for row in self._connection.execute(
                "SELECT account, event_name, batch_id, min(event_time), max(event_time) FROM _taken GROUP BY ALL"
            ).fetchall()
        ]
        awake = [each for each in detections if self.concerning(each, None)]
        looking = [each for each in awake if looks(each)]
        learning = tuple(each for each in awake if each.baseline)
        around = (each for each in looking if self._trusted(each) and (each.only_named or each.lookback <= _NEAR))
        self._shared = _Shared(around=tuple(around), learning=learning)
        if looking:
            self._shared.reach["events"] = self._reach(looking)
        if learning:
            self._shared.reach["activity"] = self._learnt(learning)

    def close(self) -> None:
        """Remove what was copied."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def keep(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Keep the new events once more, for the runs to come, where all of their files are new."""
        if self._whole:
            self.lake.keep_recent(self._whole, connection.table("_held").to_arrow_table())
            self._whole = ()

    def span(self) -> tuple[datetime, datetime] | None:
        """When the first and the last of the new events happened."""
        if not self.seen:
            return None
        return min(seen.first for seen in self.seen), max(seen.last for seen in self.seen)

    def concerning(self, detection: Detection, batch_ids: Collection[str] | None) -> list[Seen]:
        """The new events (of these batches) that a detection is about."""
        return [
            seen
            for seen in self.seen
            if (not detection.event_names or seen.event_name in detection.event_names)
            and (batch_ids is None or seen.batch_id in batch_ids)
        ]

    def columns(self, detections: Sequence[Detection]) -> str:
        """The columns they may read: what is never mentioned cannot be missed, and costs to bind and to hold."""
        if not all(map(self._trusted, detections)):
            return "*"
        words = set(_NEEDED).union(*(_words(each.sql) for each in detections))
        return ", ".join(name for name in EVENTS.names if name in words)

    def of_accounts(self, accounts: Collection[str]) -> str:
        """The condition that a row, of an account with new events, is of one of these."""
        others = {seen.account for seen in self.seen}.difference(accounts)
        # Comparing every row with every account costs more than most detections do.
        if not others:
            return "true"
        if len(others) < len(accounts):
            return f"account NOT IN ({listed(others)})"
        return f"account IN ({listed(accounts)})"

    def around(self, connection: duckdb.DuckDBPyConnection, detection: Detection) -> bool:
        """Whether `_around` holds what a detection looks at around the new events; made when it is first asked for.

        Around an event lies the same for all of them, and a small file costs more to open than to read.
        """
        sharing, tables = self._shared.around, self._shared.tables
        if detection not in sharing:
            return False
        with self._shared.making["_around"]:
            if "_around" not in tables:
                named = [each for each in sharing if each.only_named]
                wide = [each for each in sharing if not each.only_named]
                first, last = self._reach(sharing)
                files = self.near("events", {seen.account for seen in self.seen}, first, last)
                few = len(sharing) > 1 and sum(file.rows for file in files) <= SHARED
                if few:
                    names = listed({name for each in named for name in each.event_names})
                    by_name = f"event_name IN ({names})" if named else "false"
                    near = between(*self._reach(wide)) if wide else "false"
                    source = f"SELECT {self.columns(sharing)} FROM ({self.nearby(files, first, last)})"
                    where = f"{between(first, last)} AND ({near} OR {by_name})"
                    connection.execute(f"CREATE OR REPLACE TABLE _around AS {source} WHERE {where}")
                tables["_around"] = few
        return tables["_around"]

    def activity(self, connection: duckdb.DuckDBPyConnection, detection: Detection) -> bool:
        """Whether `_activity` holds what a detection learns from; made when it is first asked for."""
        learning, tables = self._shared.learning, self._shared.tables
        if detection not in learning:
            return False
        with self._shared.making["_activity"]:
            if "_activity" not in tables:
                files = self.near("activity", {seen.account for seen in self.seen}, *self._learnt(learning))
                few = sum(file.rows for file in files) <= SHARED
                (self._hold if few else self._copy)(connection, files)
                tables["_activity"] = True
        return True

    def _hold(self, connection: duckdb.DuckDBPyConnection, files: Sequence[DataFile]) -> None:
        """Make `_activity` of these files, in memory."""
        tables, others = zip(*self.lake.gathered(files), strict=True)
        connection.register("_gathered", pa.concat_tables(tables))
        read = reading(ACTIVITY, self.lake.readable(chain(*others)))
        connection.execute(f"CREATE OR REPLACE TABLE _learnt AS {read} UNION ALL BY NAME SELECT * FROM _gathered")
        connection.unregister("_gathered")
        connection.execute("CREATE OR REPLACE VIEW _activity AS SELECT * FROM _learnt")

    def _copy(self, connection: duckdb.DuckDBPyConnection, files: Sequence[DataFile]) -> None:
        """Make `_activity` of these files, on disk: opening them for each detection takes minutes on S3."""
        self._scratch.mkdir(mode=0o700, exist_ok=True)
        paths, others = [self._scratch / name for name in ("gathered.parquet", "others.parquet")], list[DataFile]()
        with pq.ParquetWriter(paths[0], ACTIVITY) as writer:
            for rows, missing in self.lake.gathered(files):
                writer.write_table(rows)
                others += missing
        read = reading(ACTIVITY, self.lake.readable(others))
        connection.execute(f"COPY ({read}) TO {literal(str(paths[1]))} (FORMAT parquet)")
        source = f"SELECT * FROM read_parquet({literal([*map(str, paths)])}, hive_partitioning = false)"
        connection.execute(f"CREATE OR REPLACE VIEW _activity AS {source}")

    def nearby(self, files: Sequence[DataFile], first: datetime, last: datetime) -> str:
        """SQL of the rows of these files, from copies of whole runs where there are any."""
        accounts = {seen.account for seen in self.seen}
        if not self.copies:
            return reading(EVENTS, self.lake.readable(files))
        copies, stood_for = self.lake.kept_recent(self._files("events", first, last), accounts, first, last)
        others = [file for file in files if file.path not in stood_for]
        parts = [reading(EVENTS, self.lake.readable(others))] if others or not copies else []
        if copies:
            kept = f"SELECT * FROM read_parquet([{listed(copies)}], hive_partitioning = false)"
            parts.append(f"{kept} WHERE account IN ({listed(accounts)})")
        return " UNION ALL BY NAME ".join(parts)

    def near(self, kind: str, accounts: Collection[str], first: datetime, last: datetime) -> list[DataFile]:
        """The files of these accounts with anything of that time."""
        return [
            file
            for file in self._files(kind, first, last)
            if file.account in accounts
            and (file.min_time is None or file.min_time <= last)
            and (file.max_time is None or file.max_time >= first)
        ]

    def _reach(self, detections: Sequence[Detection]) -> tuple[datetime, datetime]:
        """From when to when they look around the new events."""
        reached = []
        for each in detections:
            seen = self.concerning(each, None)
            reached.append(min(one.first for one in seen) - 2 * each.lookback)
            reached.append(max(one.last for one in seen) + 2 * each.lookback)
        return min(reached), max(reached)

    def _learnt(self, learning: Sequence[Detection]) -> tuple[datetime, datetime]:
        """From when to when the activity reaches that they learn from."""
        around = max(2 * each.lookback for each in learning)
        first, last = back(by_account(self.seen), max(each.baseline for each in learning))
        return first - around, last + around

    def _files(self, kind: str, first: datetime, last: datetime) -> list[DataFile]:
        """The files with anything of that time, or more, of all accounts with new events: listed once for everybody."""
        with self._shared.making["files"]:
            known = self._shared.files.get(kind)
            if known is None or first < known[0] or last > known[1]:
                far = self._shared.reach.get(kind, (first, last))
                first, last = min(first, far[0]), max(last, far[1])
                everybody = {seen.account for seen in self.seen}
                times = (first, last) if kind == "events" else None
                files = self._committed.data_files(
                    kind, accounts=everybody, first=first.date(), last=last.date(), times=times
                )
                known = self._shared.files[kind] = first, last, list(files)
            return known[2]


def looks(detection: Detection) -> bool:
    """Whether it reads `events` around the new ones."""
    return detection.lookback > timedelta() and "events" in _words(detection.sql)


@cache
def _words(sql: str) -> frozenset[str]:
    """The words of a statement, in small letters: SQL makes no difference."""
    return frozenset(re.findall(r"\w+", sql.lower()))


def by_account(seen: Iterable[Seen]) -> list[Span]:
    """From the first to the last of an account."""
    whole: dict[str, Span] = {}
    for each in seen:
        known = whole.get(each.account, Span(each.account, each.first, each.last))
        whole[each.account] = Span(each.account, min(known.first, each.first), max(known.last, each.last))
    return [whole[account] for account in sorted(whole)]


def back(spans: Sequence[Span], baseline: timedelta) -> tuple[datetime, datetime]:
    """How far back a baseline reaches. A day more: a row counts by its last use, which may lie later than its date."""
    return min(span.first for span in spans) - baseline - timedelta(days=1), max(span.last for span in spans)
