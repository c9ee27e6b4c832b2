"""What detections see around and behind new events is what the ledger lists, whatever was done to the lake before."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from kyra_etl.lake import gathered
from kyra_etl.maintain.rebuild import rebuild
from kyra_etl.maintain.retain import retain
from kyra_etl.model import Limits
from tests.detection.making import SELECT, record, write_detection
from tests.maintain.making import Upkeep

ACCOUNTS = ("111122223333", "444455556666", "777788889999")
START = datetime(2026, 1, 10, 21)
AROUND = timedelta(hours=1)
"""Twice the look-back."""

AROUND_IT = """(SELECT string_agg(e.event_id, ' ' ORDER BY e.event_id) FROM events AS e
  WHERE e.account = events.account AND abs(date_diff('second', e.event_time, events.event_time)) <= 3600)"""
BEHIND_IT = """(SELECT string_agg(name || '=' || used, ' ' ORDER BY name) FROM (
  SELECT a.event_name AS name, sum(a.count)::BIGINT AS used FROM activity AS a
  WHERE a.account = events.account AND a.date > CAST(events.event_time AS DATE) - 5
    AND a.date <= CAST(events.event_time AS DATE) GROUP BY ALL))"""


class Past:
    """A lake that things happen to, and what of it a detection is to see."""

    def __init__(self, house: Upkeep, seed: int) -> None:
        self.house, self.random = house, Random(seed)
        self.now, self.number = START, 0
        for name, more, sees in (
            ("around_it", '-- lookback = "30m"\n', AROUND_IT),
            ("behind_it", '-- lookback = "30m"\n-- baseline = "30d"\n', BEHIND_IT),
        ):
            sql = SELECT.replace("'seen'", sees).replace("event_name AS target", "event_id AS target")
            write_detection(house.detections, name, more=more, sql=f"{sql} WHERE event_name = 'New'")

    def event(self, name: str, account: str, at: datetime) -> dict[str, Any]:
        self.number += 1
        stamp = f"{at:%Y-%m-%dT%H:%M:%SZ}"
        return record(name, "", f"e{self.number:03}", eventTime=stamp, recipientAccountId=account)

    def load(self) -> None:
        """A batch of some accounts: recent events, late ones among them, and one that is judged."""
        self.now += timedelta(minutes=self.random.choice((1, 5, 5, 40, 300)))
        records = []
        for account in self.random.sample(ACCOUNTS, self.random.randint(1, 3)):
            for _ in range(self.random.randint(1, 3)):
                late = timedelta(minutes=self.random.choice((0, 0, 1, 7, 61, 1500)))
                records.append(self.event(self.random.choice("AB"), account, self.now - late))
        new = self.event("New", self.random.choice(ACCOUNTS), self.now)
        waiting = self.random.random() < 0.1
        self.house.load(*records, new, waiting=waiting)
        if not waiting:
            self.compare(new["eventID"], new["recipientAccountId"])

    def compare(self, event_id: str, account: str) -> None:
        told = {a.detection: a.summary for a in self.house.state.alerts.list() if a.target == event_id}
        near = [id_ for id_, at in self.read(account, "event_id", "event_time") if abs(at - self.now) <= AROUND]
        assert told["around_it"] == " ".join(sorted(near))
        days = self.now.date() - timedelta(days=4), self.now.date()
        used = Counter[str]()
        for name, count in self.read(account, "event_name", "count", kind="activity", days=days):
            used[name] += count
        assert told["behind_it"] == " ".join(f"{name}={count}" for name, count in sorted(used.items()))

    def read(
        self, account: str, *columns: str, kind: str = "events", days: tuple[date | None, date | None] = (None, None)
    ) -> list[tuple[Any, ...]]:
        """Columns of all live rows of an account, as they lie there."""
        lake = self.house.lake
        files = self.house.state.ledger.data_files(kind, accounts=[account], first=days[0], last=days[1])
        rows = (pq.ParquetFile(uri).read(list(columns)).to_pylist() for uri in lake.readable(files))
        return [tuple(row[name] for name in columns) for some in rows for row in some]

    def compact(self) -> None:
        self.house.compact(last=self.random.choice((None, self.now.date())))

    def compact_meanwhile(self) -> None:
        """As somebody else does while detections look for copies: files go that were listed a moment ago."""
        name = self.random.choice(("kept_recent", "gathered"))
        real = getattr(self.house.lake, name)

        def replacement(*arguments: Any) -> Any:
            setattr(self.house.lake, name, real)
            self.house.compact(last=self.now.date())
            rebuild(self.house.kit)
            return real(*arguments)

        setattr(self.house.lake, name, replacement)

    def rebuild(self) -> None:
        rebuild(self.house.kit, accounts=self.random.sample(ACCOUNTS, 2))

    def retain(self) -> None:
        self.house.now = self.now
        self.house.limits = Limits(retain={self.random.choice(ACCOUNTS): self.random.choice((1, 2))})
        retain(self.house.kit)
        self.house.limits = Limits()

    def lose_copies(self) -> None:
        for path in self.house.lake.storage.sizes("_gathered"):
            if self.random.random() < 0.5:
                self.house.lake.storage.remove(path)

    def damage_a_copy(self) -> None:
        paths = sorted(self.house.lake.storage.sizes("_gathered"))
        if paths:
            path = Path(self.house.lake.uri(self.random.choice(paths)))
            path.write_bytes(path.read_bytes()[: self.random.randint(0, 2_000)])


@pytest.mark.parametrize("seed", range(4))
def test_detections_see_each_event_of_the_ledger_once(
    folder: Upkeep, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    if seed % 2:  # of those that come with it, what several look at is read once
        monkeypatch.setattr("kyra_etl.resources.detections_dir", lambda: folder.detections)
    monkeypatch.setattr(gathered, "LOOSE", 1)
    monkeypatch.setattr(gathered, "LOOSE_NEWEST", 2)
    past = Past(folder, seed)
    others = (past.compact, past.rebuild, past.retain, past.lose_copies, past.damage_a_copy, past.compact_meanwhile)
    for _ in range(14):
        past.random.choice([past.load] * 6 + list(others))()
