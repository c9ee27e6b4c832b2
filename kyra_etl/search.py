"""Searching the lake: newest first, in portions as they are found, and no further back than the page needs.

The newest days are asked first, then twice as many events, and so on: a page of something frequent costs a day, and
something rare little more than one look at everything. A page is followed by the one after a place, which stays where
it is while new events arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from kyra_etl.errors import QueryError
from kyra_etl.lake.layout import Reach
from kyra_etl.model import DataFile
from kyra_etl.terms import moment, narrowest, terms

if TYPE_CHECKING:
    from kyra_etl.lake.query import Analyst

FIRST = 100_000
"""Events that are looked through for the first rows, at least."""
_COPIES = 8
"""Events with the same id that are kept because they contradict each other; more are unheard of."""

Unit = Literal["hour", "day"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: at an event, in the order of searching."""

    event_time: datetime
    account: str
    event_id: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Place:
        return cls(row["event_time"], row["account"], row["event_id"])

    @classmethod
    def parse(cls, text: str) -> Place:
        """A place as `str` writes it: time/account/event id. Raises QueryError."""
        time, _, rest = text.partition("/")
        account, _, event_id = rest.partition("/")
        if not event_id:
            raise QueryError(f"{text[:60]!r} is not a place to go on from.", "Take the one the last page ended with.")
        return cls(moment(time, now=datetime(1970, 1, 2)), account, event_id)

    def __str__(self) -> str:
        return f"{self.event_time.isoformat()}Z/{self.account}/{self.event_id}"


class Search:
    """Events that match a query, after a place. `files` are the committed ones of a reach.

    Once it was gone through, `more` tells whether others come behind, and `place` where it ended.
    """

    def __init__(
        self,
        analyst: Analyst,
        files: Callable[[Reach], Sequence[DataFile]],
        query: str,
        *,
        now: datetime,
        limit: int | None = None,
        after: str | None = None,
    ) -> None:
        self._analyst, self._files, self._limit = analyst, files, limit
        self._terms = terms(query, now=now)
        self._where, self._params, self._within = self._terms.where, dict(self._terms.params), self._terms.within
        if after is not None:
            self._begin_after(Place.parse(after))
        self.more = False
        self.place: Place | None = None

    def _begin_after(self, place: Place) -> None:
        self._params |= {"time": place.event_time, "day": place.event_time.date(), "acct": place.account}
        self._params |= {"id": place.event_id}
        self._where += (
            " AND date <= $day AND (event_time < $time OR (event_time = $time AND "
            "(account > $acct OR (account = $acct AND event_id > $id))))"
        )
        self._within = narrowest(self._within, Reach(last=place.event_time.date()))

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Portions of rows, none empty, each as soon as it is found. Raises QueryError, LakeError."""
        given = 0
        for reach in self._steps():
            left = None if self._limit is None else self._limit - given
            sql = f"SELECT * FROM events WHERE {self._where} ORDER BY event_time DESC, account, event_id"
            most = None if left is None else left + _COPIES
            answer = self._analyst.query(sql, self._params, limit=most, within=reach)
            rows = answer.as_dicts()
            if left is not None and len(rows) > left:
                rows, self.more = _whole(rows, left, alone=given == 0), True
            if rows:
                given += len(rows)
                self.place = Place.of(rows[-1])
                yield rows
            if self.more:
                return

    def histogram(self, unit: Unit) -> list[tuple[datetime, int]]:
        """How many events match in each hour or day that has some, in their order."""
        sql = f"SELECT date_trunc($unit, event_time), count(*) FROM events WHERE {self._where} GROUP BY 1 ORDER BY 1"
        return [(at, n) for at, n in self._analyst.query(sql, {**self._params, "unit": unit}, within=self._within).rows]

    def _steps(self) -> Iterator[Reach]:
        """Spans of days, the newest first, each of about twice as many events as all before it."""
        events: dict[Any, int] = {}
        for file in self._files(self._within):
            events[file.date] = events.get(file.date, 0) + file.rows
        days = sorted(events, reverse=True)
        begin, seen, enough = 0, 0, FIRST
        for n, day in enumerate(days):
            seen += events[day]
            if seen >= enough or n + 1 == len(days):
                yield Reach(day, days[begin], self._within.accounts)
                begin, seen, enough = n + 1, 0, 2 * enough


def _whole(rows: list[dict[str, Any]], limit: int, *, alone: bool) -> list[dict[str, Any]]:
    """The first rows, at most `limit`, without parting what stands at the same place."""
    end = limit
    if end and Place.of(rows[end]) == Place.of(rows[end - 1]):
        here = Place.of(rows[end])
        end = next(n for n, row in enumerate(rows) if Place.of(row) == here)
        if end == 0 and alone:
            end = sum(Place.of(row) == here for row in rows)
    return rows[:end]
