"""Discovery: every account, every region, both layouts, and late files found by set difference."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from kyra_etl.backfill import backfill
from kyra_etl.errors import UsageError
from kyra_etl.folder import FolderBucket
from kyra_etl.lake import Lake, open_lake
from kyra_etl.model import Integration, Limits, RunReport, Window
from kyra_etl.state import State
from kyra_etl.sync import sync


class House:
    """A folder as a bucket, with a clock that tests set."""

    def __init__(self, tmp_path: Path) -> None:
        self.bucket_dir = tmp_path / "bucket"
        self.bucket_dir.mkdir()
        self.now = datetime(2026, 3, 10, 12)
        self.state = State.open(f"sqlite:///{tmp_path}/state.db")
        self.lake: Lake = open_lake(str(tmp_path / "lake"))
        self.integration = Integration(name="acme", bucket=self.bucket_dir.as_uri())

    def put(self, account: str, region: str, day: date, event_id: str, *, layout: str = "", prefix: str = "") -> None:
        folder = self.bucket_dir / prefix / "AWSLogs" / layout / account / "CloudTrail" / region / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{account}_CloudTrail_{region}_{day:%Y%m%d}T0105Z_{event_id}.json").write_text(
            f'{{"Records": [{{"eventID": "{event_id}", "eventTime": "{day:%Y-%m-%d}T01:02:03Z", "eventName": "X"}}]}}'
        )

    def sync(self, integration: Integration | None = None) -> RunReport:
        return sync(
            integration or self.integration,
            bucket=FolderBucket(self.bucket_dir, clock=lambda: self.now),
            lake=self.lake,
            state=self.state,
            corpus=None,
            limits=Limits(),
            clock=lambda: self.now,
        )

    def backfill(self, first: date, end: date) -> list[RunReport]:
        window = Window(datetime(first.year, first.month, first.day), datetime(end.year, end.month, end.day))
        return list(
            backfill(
                self.integration,
                window,
                bucket=FolderBucket(self.bucket_dir, clock=lambda: self.now),
                lake=self.lake,
                state=self.state,
                corpus=None,
                limits=Limits(),
                clock=lambda: self.now,
            )
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.state.close()


TODAY = date(2026, 3, 10)


def test_both_layouts_and_each_accounts_own_regions_are_found(house: House) -> None:
    house.put("111122223333", "eu-west-1", TODAY, "a")
    house.put("012345678901", "ap-east-1", TODAY, "b")
    house.put("012345678901", "us-east-1", TODAY, "c", layout="o-abc123def4")
    house.put("111122223333", "eu-west-1", TODAY, "d", layout="o-abc123def4")

    assert house.sync().events == 4


def test_only_below_the_prefix(house: House) -> None:
    house.put("111122223333", "eu-west-1", TODAY, "a", prefix="trails/prod")
    house.put("111122223333", "eu-west-1", TODAY, "b")

    report = house.sync(Integration(name="acme", bucket=house.integration.bucket, prefix="trails/prod"))

    assert report.events == 1


def test_an_account_that_appears_later_is_loaded_with_its_past(house: House) -> None:
    house.put("111122223333", "eu-west-1", TODAY, "a")
    house.sync()
    for back in range(60):
        house.put("444455556666", "eu-west-1", TODAY - timedelta(days=back), f"b{back}")

    assert house.sync().events == 60


@pytest.mark.parametrize("days_late", [0, 1, 2, 7, 30])
def test_a_late_file_is_loaded_within_a_day(house: House, days_late: int) -> None:
    for back in range(90):
        house.put("111122223333", "eu-west-1", TODAY - timedelta(days=back), f"a{back}")
    house.sync()
    house.put("111122223333", "eu-west-1", TODAY - timedelta(days=days_late), "late")

    found = 0
    for _ in range(25):
        house.now += timedelta(hours=1)
        found += house.sync().events

    assert found == 1


def test_a_steady_run_lists_few_of_many_days(house: House) -> None:
    for back in range(90):
        house.put("111122223333", "eu-west-1", TODAY - timedelta(days=back), f"a{back}")
    assert house.sync().listed == 90

    house.now += timedelta(minutes=5)

    assert house.sync().listed <= 3


def test_tomorrows_folder_is_listed_before_midnight(house: House) -> None:
    for back in range(20):
        house.put("111122223333", "eu-west-1", TODAY - timedelta(days=back), f"a{back}")
    house.sync()
    house.now = datetime(2026, 3, 10, 23, 58)
    house.put("111122223333", "eu-west-1", TODAY + timedelta(days=1), "ahead")

    assert house.sync().events == 1


def test_a_backfill_loads_its_days_one_by_one_and_a_second_one_nothing(house: House) -> None:
    for back in range(5):
        house.put("111122223333", "eu-west-1", TODAY - timedelta(days=back), f"a{back}")

    first = house.backfill(date(2026, 3, 7), date(2026, 3, 10))
    second = house.backfill(date(2026, 3, 7), date(2026, 3, 10))

    assert [report.events for report in first] == [1, 1, 1]
    assert [(report.events, report.already_loaded) for report in second] == [(0, 1)] * 3
    assert house.sync().events == 2


def test_a_backfill_refuses_an_empty_or_future_range(house: House) -> None:
    with pytest.raises(UsageError, match="empty"):
        house.backfill(TODAY, TODAY)
    with pytest.raises(UsageError, match="future"):
        house.backfill(TODAY + timedelta(days=3), TODAY + timedelta(days=9))


def test_a_paused_integration_is_left_alone(house: House) -> None:
    house.put("111122223333", "eu-west-1", TODAY, "a")

    report = house.sync(Integration(name="acme", bucket=house.integration.bucket, paused=True))

    assert report.skipped == "the integration is paused"
