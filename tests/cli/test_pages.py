"""Pages of `kyra search`: newest first, no event twice and none left out, whatever arrives between two pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import config, search, wiring
from kyra_etl.errors import QueryError
from kyra_etl.lake.layout import Reach
from tests.cli.conftest import ACCOUNT, Kyra, put, record

DAYS = 6


def event(n: int, **more: Any) -> dict[str, Any]:
    """The n-th event: four at each hour, and twelve each day."""
    at = datetime(2026, 1, 1) + timedelta(days=n // 12, hours=n // 4 % 3)
    return record(f"e{n:03d}", "Rare" if n % 31 == 7 else "Common", eventTime=f"{at.isoformat()}Z", **more)


@pytest.fixture
def days(kyra: Kyra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of log files, loaded; searching looks through a day at first."""
    monkeypatch.setattr(search, "FIRST", 12)
    folder = tmp_path / "logs"
    put(folder, "all", *(event(n) for n in range(12 * DAYS)))
    assert kyra("load", folder, "--no-detect").code == 0
    return folder


def pages(kyra: Kyra, query: str, limit: int, between: Callable[[int], None] = lambda page: None) -> list[list[str]]:
    """Ids of every page, each asked for with the place the one before ended with."""
    found: list[list[str]] = []
    after: list[str] = []
    while True:
        ran = kyra("search", query, "--limit", limit, "--json", *after)
        found.append([row["event_id"] for row in ran.json])
        if "there are more" not in ran.err:
            return found
        after = ["--after", ran.err.split("--after ")[1].rstrip(".\n")]
        between(len(found))


@pytest.mark.parametrize("limit", [4, 7, 100])
def test_pages_together_are_everything_in_order(kyra: Kyra, days: Path, limit: int) -> None:
    everything = [row["event_id"] for row in kyra("search", "name:*", "--limit", 0, "--json").json]
    found = pages(kyra, "name:*", limit) if limit > 5 else pages(kyra, "name:* from:2026-01-05", limit)
    expected = everything if limit > 5 else [id_ for id_ in everything if int(id_[1:]) >= 48]

    assert len(everything) == 12 * DAYS
    assert [id_ for page in found for id_ in page] == expected
    assert {len(page) for page in found[:-1]} <= {limit}
    times = {row["event_id"]: row["event_time"] for row in kyra("search", "--limit", 0, "--json", "").json}
    assert sorted(everything, key=lambda id_: (times[id_], -int(id_[1:])), reverse=True) == everything


def test_events_that_arrive_meanwhile_move_no_page(kyra: Kyra, days: Path) -> None:
    def arrive(page: int) -> None:
        newer = record(f"new{page}", "Common", eventTime=f"2026-01-08T0{page}:00:00Z")
        older = record(f"old{page}", "Common", eventTime=f"2025-12-0{page}T00:00:00Z")
        put(days, f"late{page}", newer, older)
        assert kyra("load", days, "--no-detect").code == 0

    found = [id_ for page in pages(kyra, "name:*", 30, between=arrive) for id_ in page]

    assert found[: 12 * DAYS] == [f"e{n:03d}" for n in sorted(range(12 * DAYS), key=lambda n: (-(n // 4), n))]
    assert found[12 * DAYS :] == ["old2", "old1"]


def test_contradicting_copies_of_an_event_share_a_page(kyra: Kyra, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    put(folder, "one", *(record(f"e{n}") for n in range(4)))
    put(folder, "two", record("e1", userAgent="other"), record("e2", userAgent="other"))
    assert kyra("load", folder, "--no-detect", "--json").json["events"] == 6

    assert pages(kyra, "name:*", 2) == [["e0"], ["e1", "e1"], ["e2", "e2"], ["e3"]]
    assert pages(kyra, "name:*", 1) == [["e0"], ["e1", "e1"], ["e2", "e2"], ["e3"]]


def test_no_older_day_is_read_than_the_page_needs(days: Path) -> None:
    with wiring.open(config.load()) as parts:
        found = wiring.search_of(parts, "name:Common", limit=15)
        asked: list[Reach] = []
        ask = found._analyst.query
        found._analyst.query = lambda *args, **more: asked.append(more["within"]) or ask(*args, **more)  # type: ignore
        portions = iter(found)

        first = next(portions)
        assert len(first) == 12 - 1  # the newest day, but for a rare event
        assert [(reach.first, reach.last) for reach in asked] == [(datetime(2026, 1, 6).date(),) * 2]
        assert sum(len(rows) for rows in portions) == 4
        assert [reach.first for reach in asked] == [datetime(2026, 1, 6).date(), datetime(2026, 1, 4).date()]
        assert found.more

        rare = wiring.search_of(parts, "name:Rare", limit=1)
        assert [row["event_id"] for rows in rare for row in rows] == ["e069"]
        assert rare.more


def test_accounts_and_times_of_the_query_bound_the_files(days: Path) -> None:
    with wiring.open(config.load()) as parts:
        asked: list[Reach] = []
        found = wiring.search_of(parts, f"account:{ACCOUNT} event_time:2026-01-02..2026-01-03", limit=None)
        files = found._files
        found._files = lambda reach: asked.append(reach) or files(reach)  # type: ignore[func-returns-value]

        assert sum(len(rows) for rows in found) == 24
        assert asked == [Reach(datetime(2026, 1, 2).date(), datetime(2026, 1, 3).date(), frozenset({ACCOUNT}))]


def test_table_grows_and_shows_every_row_once(kyra: Kyra, days: Path) -> None:
    put(days, "long", record("long", "Common" * 3, eventTime="2026-01-01T23:00:00Z", errorCode="AccessDenied"))
    kyra("load", days, "--no-detect")
    lines = kyra("search", "name:*", "--limit", 0).out.splitlines()

    assert lines[0].split() == ["event_time", "account", "aws_region", "event_name", "principal", "source_ip_address"]
    heads = [line for line in lines if line.startswith("event_time")]
    assert len(heads) == 2
    assert "error_code" in heads[1]
    assert len(lines) == 12 * DAYS + 1 + len(heads)


def test_histogram_counts_hours_and_days(kyra: Kyra, days: Path) -> None:
    by_day = kyra("search", "name:*", "--histogram", "day", "--json").json
    assert by_day == [{"time": f"2026-01-0{n + 1}T00:00:00Z", "events": 12} for n in range(DAYS)]
    by_hour = kyra("search", "name:*", "from:2026-01-06", "--histogram", "hour", "--json").json
    assert [(row["time"][11:13], row["events"]) for row in by_hour] == [("00", 4), ("01", 4), ("02", 4)]

    shown = kyra("search", "name:Rare", "--histogram", "day")
    assert shown.err == "3 events.\n"
    assert shown.out.splitlines()[1].endswith("▇" * 50)
    assert kyra("search", "name:None", "--histogram", "hour", "--json").json == []
    assert kyra("search", "name:*", "--histogram", "year").code == 2


@pytest.mark.parametrize("place", ["", "x", "2026-01-01", "2026-01-01T00:00:00Z/012345678901", "soon/1/2", "//"])
def test_what_is_no_place_is_refused(kyra: Kyra, place: str) -> None:
    assert kyra("search", "x", "--after", place).code == 2


def test_place_holds_any_event_id() -> None:
    place = search.Place(datetime(2026, 1, 1, 2, 3, 4, 567), "012345678901", "a/b'c/../d")

    assert search.Place.parse(str(place)) == place
    with pytest.raises(QueryError):
        search.Place.parse("2026-01-01T00:00:00Z/012345678901/")
