"""What `events` and `activity` are for one detection, on one connection: views of what was taken, or of files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import duckdb

from kyra_etl.cloudtrail.schema import ACTIVITY
from kyra_etl.detection.rule import Detection
from kyra_etl.lake.taken import Seen, Span, Taken, back, by_account, looks
from kyra_etl.lake.views import between, listed, literal, moment, of_batches, reading

_ALIKE = 1.5
"""Spans of so many times their length together are taken as one; what lies between them changes no finding."""

_SPANS = 50
"""Spans of time that are spelt out in SQL; more are joined."""


class Relations:
    """The relations on one connection: `relate` them for each detection.

    Leaves the views `_new` (the new events of the chosen batches), `events` and `activity`.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, taken: Taken) -> None:
        self._connection, self._taken = connection, taken
        self._chosen: tuple[int, frozenset[str] | None] | None = None
        self.rows = 0
        """Rows that the last detection looked at, as far as they were read for it."""
        self._execute(f"CREATE OR REPLACE TEMP TABLE _no_activity AS {reading(ACTIVITY, ())}")

    def relate(self, detection: Detection, batch_ids: Collection[str] | None) -> bool:
        """Make the relations for one detection; False when no new event (of these batches) concerns it."""
        seen = self._taken.concerning(detection, batch_ids)
        self.rows = self._taken.rows if seen else 0
        if not seen:
            return False
        self._choose(batch_ids)
        spans = self._spans(detection, seen, 2 * detection.lookback)
        source = (
            self._events(detection, spans)
            if looks(detection)
            else f"SELECT {self._taken.columns([detection])} FROM _new"
        )
        self._execute(f"CREATE OR REPLACE TEMP VIEW events AS {source}")
        if detection.baseline:
            self._execute(f"CREATE OR REPLACE TEMP VIEW activity AS {self._activity(detection, spans)}")
        else:
            self._execute("CREATE OR REPLACE TEMP VIEW activity AS SELECT * FROM _no_activity")
        return True

    def _choose(self, batch_ids: Collection[str] | None) -> None:
        """Make `_new`: the new events of these batches, or all."""
        chosen = None if batch_ids is None else frozenset(batch_ids)
        if (self._taken.times, chosen) != self._chosen:
            within = "true" if chosen is None else of_batches(chosen)
            self._execute(f"CREATE OR REPLACE TEMP VIEW _new AS SELECT * FROM _taken WHERE {within}")
            self._chosen = self._taken.times, chosen

    def _spans(self, detection: Detection, seen: Sequence[Seen], around: timedelta) -> list[Span]:
        """The times around new events, merged into few spans an account."""
        whole = by_account(seen)
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
        taken = self._taken
        within = self._within(spans)
        if detection.only_named:
            within += f" AND event_name IN ({listed(detection.event_names)})"
        first, last = min(span.first for span in spans), max(span.last for span in spans)
        files = taken.near("events", {span.account for span in spans}, first, last)
        self.rows = sum(file.rows for file in files)
        if taken.around(self._connection, detection):
            return f"SELECT {taken.columns([detection])} FROM _around AS e WHERE {within}"
        source = taken.nearby(files, first, last)
        return f"SELECT * FROM ({source}) AS e WHERE {between(first, last)} AND {within}"

    def _within(self, spans: Sequence[Span]) -> str:
        first, last = min(span.first for span in spans), max(span.last for span in spans)
        if len(spans) * (last - first) <= _ALIKE * sum((span.last - span.first for span in spans), timedelta()):
            # Every account's new events are of the same minutes: one comparison a row, not one an account.
            return f"{self._taken.of_accounts({span.account for span in spans})} AND {between(first, last)}"
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

    def _activity(self, detection: Detection, spans: Sequence[Span]) -> str:
        taken = self._taken
        accounts = {span.account for span in spans}
        first, last = back(spans, detection.baseline)
        files = taken.near("activity", accounts, first, last)
        self.rows += sum(file.rows for file in files)
        if taken.activity(self._connection, detection):
            return (
                f"SELECT * FROM _activity WHERE {taken.of_accounts(accounts)} "
                f"AND date BETWEEN DATE '{first.date()}' AND DATE '{last.date()}'"
            )
        return reading(ACTIVITY, taken.lake.readable(files))

    def _execute(self, sql: str) -> Any:
        return self._connection.execute(sql)
