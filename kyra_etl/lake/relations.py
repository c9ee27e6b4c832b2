"""What `events` and `activity` are for one detection, read so that many detections share the reading.

Most of a run's cost is opening files and taking rows apart, not looking at them. So the new events are held in memory,
and what several detections look at is read once, while it fits into memory: the events around them, and `activity`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, Protocol

import duckdb

from kyra_etl.cloudtrail.schema import ACTIVITY, EVENTS
from kyra_etl.detection.rule import Detection
from kyra_etl.lake import Lake, recent
from kyra_etl.lake.views import between, listed, literal, moment, of_batches, reading
from kyra_etl.model import DataFile

IN_MEMORY = 200_000
"""New events up to this number are held in memory once; more are read from their files by each detection."""

SHARED = 1_000_000
"""Older rows up to this number are read once for all detections; of more, each reads its own."""

_NEEDED = ("account", "event_id", "event_time", "event_name", "batch_id")
"""Columns that the engine itself reads."""

_NEAR = timedelta(minutes=60)
"""The widest lookback that events of any name are held for; those of some names are held for any."""

_ALIKE = 1.5
"""Spans of so many times their length together are taken as one; what lies between them changes no finding."""

_SPANS = 50
"""Spans of time that are spelt out in SQL; more are joined."""


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


class _Seen(NamedTuple):
    """When the new events of one name, account and batch happened."""

    account: str
    event_name: str | None
    batch_id: str | None
    first: datetime
    last: datetime


@dataclass
class _Shared:
    """What several detections read, made when the first one asks; False where it is too much to hold."""

    around: tuple[Detection, ...] = ()
    """Those that look at events around the new ones: at all of them nearby, or only at those of some names."""
    learning: tuple[Detection, ...] = ()
    """Those with a baseline."""
    tables: dict[str, bool] = field(default_factory=dict)
    reach: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    """From when to when anybody looks, by the kind of files."""
    files: dict[str, tuple[datetime, datetime, list[DataFile]]] = field(default_factory=dict)


class Relations:
    """The relations on one connection: `take` new events, then `relate` them for each detection.

    Leaves the views `_new` (the new events of the chosen batches), `events` and `activity`.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        lake: Lake,
        committed: Committed,
        trusted: Callable[[Detection], bool],
    ) -> None:
        self._connection, self._lake, self._committed, self._trusted = connection, lake, committed, trusted
        self._seen: list[_Seen] = []
        self._chosen: frozenset[str] | None = frozenset()
        self._taken_rows = 0
        self.copies = True
        """Whether copies of recent events are read; not after something could not be."""
        self.rows = 0
        """Rows that the last detection looked at, as far as they were read for it."""
        self._execute(f"CREATE OR REPLACE TEMP TABLE _no_activity AS {reading(ACTIVITY, ())}")
        self._shared = _Shared()

    def take(
        self,
        listed: Callable[[], Sequence[DataFile]],
        within: str,
        rows: int | None,
        detections: Collection[Detection],
    ) -> None:
        """Take the events of data files that meet the condition as the new ones; `detections` will look at them.

        `rows` says how many they are, where the files hold others too.
        """
        files = listed()
        source = f"SELECT * FROM ({reading(EVENTS, self._lake.readable(files))}) WHERE {within}"
        self._taken_rows = sum(file.rows for file in files) if rows is None else rows
        small = self._taken_rows <= IN_MEMORY
        self._execute(f"CREATE OR REPLACE TEMP TABLE _held AS {source if small else reading(EVENTS, ())}")
        self._execute(f"CREATE OR REPLACE TEMP VIEW _taken AS {'SELECT * FROM _held' if small else source}")
        if self._taken_rows <= recent.MOST and sum(file.rows for file in files) == self._taken_rows:
            self._lake.keep_recent(files, self._connection.table("_held").to_arrow_table())
        self._chosen = frozenset()
        self._seen = [
            _Seen(*row)
            for row in self._execute(
                "SELECT account, event_name, batch_id, min(event_time), max(event_time) FROM _taken GROUP BY ALL"
            ).fetchall()
        ]
        awake = [each for each in detections if self._concerning(each, None)]
        looking = [each for each in awake if each.lookback and _looks(each)]
        learning = tuple(each for each in awake if each.baseline)
        around = (each for each in looking if self._trusted(each) and (each.only_named or each.lookback <= _NEAR))
        self._shared = _Shared(around=tuple(around), learning=learning)
        if looking:
            self._shared.reach["events"] = self._reach(looking)
        if learning:
            self._shared.reach["activity"] = self._learnt(learning)

    def span(self) -> tuple[datetime, datetime] | None:
        """When the first and the last of the new events happened."""
        if not self._seen:
            return None
        return min(seen.first for seen in self._seen), max(seen.last for seen in self._seen)

    def relate(self, detection: Detection, batch_ids: Collection[str] | None) -> bool:
        """Make the relations for one detection; False when no new event (of these batches) concerns it."""
        seen = self._concerning(detection, batch_ids)
        if not seen:
            return False
        self._choose(batch_ids)
        self.rows = self._taken_rows
        spans = self._spans(detection, seen, 2 * detection.lookback)
        looks = detection.lookback and _looks(detection)
        around = self._events(detection, spans) if looks else f"SELECT {self._columns([detection])} FROM _new"
        self._execute(f"CREATE OR REPLACE TEMP VIEW events AS {around}")
        if detection.baseline:
            self._execute(f"CREATE OR REPLACE TEMP VIEW activity AS {self._activity(detection, spans)}")
        else:
            self._execute("CREATE OR REPLACE TEMP VIEW activity AS SELECT * FROM _no_activity")
        return True

    def _columns(self, detections: Sequence[Detection]) -> str:
        """The columns they may read: what is never mentioned cannot be missed, and costs to bind and to hold."""
        if not all(map(self._trusted, detections)):
            return "*"
        words = set(_NEEDED).union(*(_words(each.sql) for each in detections))
        return ", ".join(name for name in EVENTS.names if name in words)

    def _choose(self, batch_ids: Collection[str] | None) -> None:
        """Make `_new`: the new events of these batches, or all."""
        chosen = None if batch_ids is None else frozenset(batch_ids)
        if chosen != self._chosen:
            within = "true" if chosen is None else of_batches(chosen)
            self._execute(f"CREATE OR REPLACE TEMP VIEW _new AS SELECT * FROM _taken WHERE {within}")
            self._chosen = chosen

    def _concerning(self, detection: Detection, batch_ids: Collection[str] | None) -> list[_Seen]:
        return [
            seen
            for seen in self._seen
            if (not detection.event_names or seen.event_name in detection.event_names)
            and (batch_ids is None or seen.batch_id in batch_ids)
        ]

    def _spans(self, detection: Detection, seen: Sequence[_Seen], around: timedelta) -> list[Span]:
        """The times around new events, merged into few spans an account."""
        whole = _by_account(seen)
        if all(span.last - span.first <= 2 * around for span in whole):
            # No gap between two events can be wider than what lies around them.
            return [Span(span.account, span.first - around, span.last + around) for span in whole]
        if not around:
            return whole
        margin = f"INTERVAL {int(around.total_seconds())} SECOND"
        named = f"event_name IN ({listed(detection.event_names)})" if detection.event_names else "true"
        rows = self._execute(
            f"""WITH edges AS (
              SELECT DISTINCT account, event_time - {margin} AS first, event_time + {margin} AS last
              FROM _new WHERE {named}
            ), marked AS (
              SELECT *, coalesce(first > max(last) OVER (PARTITION BY account ORDER BY first
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true) AS starts FROM edges
            ), numbered AS (
              SELECT *, sum(starts::INT) OVER (PARTITION BY account ORDER BY first ROWS UNBOUNDED PRECEDING) AS span
              FROM marked
            )
            SELECT account, min(first), max(last) FROM numbered GROUP BY account, span ORDER BY ALL"""
        ).fetchall()
        return [Span(*row) for row in rows]

    def _events(self, detection: Detection, spans: Sequence[Span]) -> str:
        within = self._within(spans)
        if detection.only_named:
            within += f" AND event_name IN ({listed(detection.event_names)})"
        shared = self._shared
        first, last = min(span.first for span in spans), max(span.last for span in spans)
        files = self._near("events", {span.account for span in spans}, first, last)
        self.rows = sum(file.rows for file in files)
        if detection in shared.around and self._share_around():
            return f"SELECT {self._columns([detection])} FROM _around AS e WHERE {within}"
        source = self._nearby(files, first, last)
        return f"SELECT * FROM ({source}) AS e WHERE {between(first, last)} AND {within}"

    def _within(self, spans: Sequence[Span]) -> str:
        first, last = min(span.first for span in spans), max(span.last for span in spans)
        if len(spans) * (last - first) <= _ALIKE * sum((span.last - span.first for span in spans), timedelta()):
            # Every account's new events are of the same minutes: one comparison a row, not one an account.
            return f"{self._of_accounts({span.account for span in spans})} AND {between(first, last)}"
        if len(spans) <= _SPANS:
            times = (between(span.first, span.last) for span in spans)
            each = (f"(account = {literal(span.account)} AND {time})" for span, time in zip(spans, times, strict=True))
            return f"({' OR '.join(each)})"
        values = ", ".join(f"({literal(s.account)}, {moment(s.first)}, {moment(s.last)})" for s in spans)
        self._execute(
            f"CREATE OR REPLACE TEMP TABLE _spans AS SELECT * FROM (VALUES {values}) AS s(account, first, last)"
        )
        return (
            "EXISTS (SELECT 1 FROM _spans AS s WHERE s.account = e.account AND e.event_time BETWEEN s.first AND s.last)"
        )

    def _of_accounts(self, accounts: Collection[str]) -> str:
        """The condition that a row, of an account with new events, is of one of these."""
        others = {seen.account for seen in self._seen}.difference(accounts)
        # Comparing every row with every account costs more than most detections do.
        if not others:
            return "true"
        if len(others) < len(accounts):
            return f"account NOT IN ({listed(others)})"
        return f"account IN ({listed(accounts)})"

    def _share_around(self) -> bool:
        """Read what detections look at around the new events, once; False when there is too much.

        Around an event lies the same for all of them, and a small file costs more to open than to read.
        """
        tables, sharing = self._shared.tables, self._shared.around
        if "_around" not in tables:
            named = [each for each in sharing if each.only_named]
            wide = [each for each in sharing if not each.only_named]
            first, last = self._reach(sharing)
            files = self._near("events", {seen.account for seen in self._seen}, first, last)
            tables["_around"] = len(sharing) > 1 and sum(file.rows for file in files) <= SHARED
            if tables["_around"]:
                names = listed({name for each in named for name in each.event_names})
                by_name = f"event_name IN ({names})" if named else "false"
                near = between(*self._reach(wide)) if wide else "false"
                source = f"SELECT {self._columns(sharing)} FROM ({self._nearby(files, first, last)})"
                where = f"{between(first, last)} AND ({by_name} OR {near})"
                self._execute(f"CREATE OR REPLACE TEMP TABLE _around AS {source} WHERE {where}")
        return tables["_around"]

    def _nearby(self, files: Sequence[DataFile], first: datetime, last: datetime) -> str:
        """SQL of the rows of these files, from copies of whole runs where there are any."""
        accounts = {seen.account for seen in self._seen}
        if not self.copies:
            return reading(EVENTS, self._lake.readable(files))
        copies, stood_for = self._lake.kept_recent(self._files("events", first, last), accounts, first, last)
        others = reading(EVENTS, self._lake.readable(file for file in files if file.path not in stood_for))
        if not copies:
            return others
        kept = f"SELECT * FROM read_parquet([{listed(copies)}], hive_partitioning = false)"
        kept += f" WHERE account IN ({listed(accounts)})"
        return f"{others} UNION ALL BY NAME {kept}"

    def _reach(self, detections: Sequence[Detection]) -> tuple[datetime, datetime]:
        """From when to when they look around the new events."""
        reached = []
        for each in detections:
            seen = self._concerning(each, None)
            reached.append(min(one.first for one in seen) - 2 * each.lookback)
            reached.append(max(one.last for one in seen) + 2 * each.lookback)
        return min(reached), max(reached)

    def _activity(self, detection: Detection, spans: Sequence[Span]) -> str:
        accounts = {span.account for span in spans}
        first, last = _back(spans, detection.baseline)
        files = self._near("activity", accounts, first, last)
        self.rows += sum(file.rows for file in files)
        if detection in self._shared.learning and self._share_activity():
            return (
                f"SELECT * FROM _activity WHERE {self._of_accounts(accounts)} "
                f"AND date BETWEEN DATE '{first.date()}' AND DATE '{last.date()}'"
            )
        return reading(ACTIVITY, self._lake.readable(files))

    def _share_activity(self) -> bool:
        """Read the activity of the accounts with new events, once; False when there is too much of it."""
        tables, learning = self._shared.tables, self._shared.learning
        if "_activity" not in tables:
            files = self._near("activity", {seen.account for seen in self._seen}, *self._learnt(learning))
            tables["_activity"] = sum(file.rows for file in files) <= SHARED
            if tables["_activity"]:
                rows, others = self._lake.gathered(files)
                self._connection.register("_gathered", rows)
                source = f"{reading(ACTIVITY, self._lake.readable(others))} UNION ALL BY NAME SELECT * FROM _gathered"
                self._execute(f"CREATE OR REPLACE TEMP TABLE _activity AS {source}")
                self._connection.unregister("_gathered")
        return tables["_activity"]

    def _learnt(self, learning: Sequence[Detection]) -> tuple[datetime, datetime]:
        """From when to when the activity reaches that they learn from."""
        around = max(2 * each.lookback for each in learning)
        first, last = _back(_by_account(self._seen), max(each.baseline for each in learning))
        return first - around, last + around

    def _near(self, kind: str, accounts: Collection[str], first: datetime, last: datetime) -> list[DataFile]:
        return [
            file
            for file in self._files(kind, first, last)
            if file.account in accounts
            and (file.min_time is None or file.min_time <= last)
            and (file.max_time is None or file.max_time >= first)
        ]

    def _files(self, kind: str, first: datetime, last: datetime) -> list[DataFile]:
        """The files with anything of that time, or more, of all accounts with new events: listed once for everybody."""
        known = self._shared.files.get(kind)
        if known is None or first < known[0] or last > known[1]:
            far = self._shared.reach.get(kind, (first, last))
            first, last = min(first, far[0]), max(last, far[1])
            everybody = {seen.account for seen in self._seen}
            times = (first, last) if kind == "events" else None
            files = self._committed.data_files(
                kind, accounts=everybody, first=first.date(), last=last.date(), times=times
            )
            known = self._shared.files[kind] = first, last, list(files)
        return known[2]

    def _execute(self, sql: str) -> Any:
        return self._connection.execute(sql)


def _looks(detection: Detection) -> bool:
    return "events" in _words(detection.sql)


@cache
def _words(sql: str) -> frozenset[str]:
    """The words of a statement, in small letters: SQL makes no difference."""
    return frozenset(re.findall(r"\w+", sql.lower()))


def _by_account(seen: Iterable[_Seen]) -> list[Span]:
    whole: dict[str, Span] = {}
    for each in seen:
        known = whole.get(each.account, Span(each.account, each.first, each.last))
        whole[each.account] = Span(each.account, min(known.first, each.first), max(known.last, each.last))
    return [whole[account] for account in sorted(whole)]


def _back(spans: Sequence[Span], baseline: timedelta) -> tuple[datetime, datetime]:
    """How far back a baseline reaches. A day more: a row counts by its last use, which may lie later than its date."""
    return min(span.first for span in spans) - baseline - timedelta(days=1), max(span.last for span in spans)
