"""What other collectors lost or doubled, as their users reported it, played against ours.

Each test is named after the report. Timings are those of the report where it gives any.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import discover
from kyra_etl.errors import KyraError, ObjectError, TransientError
from kyra_etl.folder import FolderBucket
from kyra_etl.lake import open_lake
from kyra_etl.model import Integration, Limits, RunReport
from kyra_etl.state import State
from kyra_etl.sync import sync
from tests.simulation import truth
from tests.simulation.bucket import Delivery, SimBucket
from tests.simulation.process import Fate, Process
from tests.simulation.timeline import Timeline

DAY = datetime(2026, 1, 30)


def at(clock: str, day: datetime = DAY) -> datetime:
    hours, minutes, *seconds = map(int, clock.split(":"))
    return day + timedelta(hours=hours, minutes=minutes, seconds=seconds[0] if seconds else 0)


class House:
    """A bucket, a lake and a state; the time is what a test says it is."""

    def __init__(self, folder: Path) -> None:
        self.lake = folder / "lake"
        self.state = State.open(f"sqlite:///{folder}/state.db")
        self.deliveries: list[Delivery] = []
        self.broken: Callable[[str], KyraError | None] = lambda _: None
        self.page = 1000

    def deliver(
        self, name: str, when: datetime, *, account: int = 1, region: str = "us-east-1", recipient: int | None = None
    ) -> str:
        """A log file of one event, which is called as the file is; `name` begins with its day and minute."""
        day = datetime.strptime(name[:8], "%Y%m%d")
        record = {
            "eventID": f"{account} {region} {name}",
            "eventTime": f"{day:%Y-%m-%d}T00:00:00Z",
            "recipientAccountId": f"{recipient or account:012d}",
        }
        key = (
            f"AWSLogs/{account:012d}/CloudTrail/{region}/{day:%Y/%m/%d}/"
            f"{account:012d}_CloudTrail_{region}_{name}.json.gz"
        )
        self.deliveries.append(Delivery(key, gzip.compress(json.dumps({"Records": [record]}).encode()), when))
        return key

    def sync(self, now: datetime) -> RunReport:
        rng = random.Random(0)
        process = Process("sync", Fate(Timeline(now, rng), rng, (), {}, (), now))
        return sync(
            Integration("acme", "trail"),
            bucket=_Breaking("trail", self.deliveries, process, self.page, self.broken),
            lake=open_lake(str(self.lake)),
            state=self.state,
            corpus=None,
            limits=Limits(list_threads=4),
            clock=lambda: now,
        )

    def holds_everything_once(self) -> bool:
        held = truth.events_in(self.lake)
        wanted = truth.events_of((each.key, each.body) for each in self.deliveries)
        return held.keys() == wanted and set(held.values()) <= {1}


class _Breaking(SimBucket):
    def __init__(self, *arguments: Any) -> None:
        *arguments, self._broken = arguments  # type: ignore[assignment]
        super().__init__(*arguments)

    def read(self, key: str) -> bytes:
        problem = self._broken(key)
        if problem is not None:
            raise problem
        return super().read(key)

    def _keys(self, prefix: str) -> list[str]:
        problem = self._broken(f"list {prefix}")
        if problem is not None:
            raise problem
        return super()._keys(prefix)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_wazuh_33108_files_named_earlier_arrive_after_files_named_later(house: House) -> None:
    """A file named 18:25 was there at 18:20:26; three named 18:20 came at 18:21:57 to 18:22:22, and were never read."""
    house.deliver("20260130T1815Z_aaaaaaaaaaaaaaaa", at("18:16:40"))
    house.deliver("20260130T1825Z_mmmmmmmmmmmmmmmm", at("18:20:26"))
    house.deliver("20260130T1820Z_zzzzzzzzzzzzzzzz", at("18:21:57"))
    house.deliver("20260130T1820Z_bbbbbbbbbbbbbbbb", at("18:22:10"))
    house.deliver("20260130T1820Z_AAAAAAAAAAAAAAAA", at("18:22:22"))

    loaded = [house.sync(at(clock)).loaded for clock in ("18:21", "18:22", "18:26", "18:31")]

    assert loaded == [2, 1, 2, 0]
    assert house.holds_everything_once()


def test_wazuh_33108_its_mend_remembers_500_keys_and_looks_back_on_more(house: House) -> None:
    """624 files a day, two days looked through, the newest 500 remembered: 748 were read again in every run."""
    yesterday = DAY - timedelta(days=1)
    for day in (yesterday, DAY):
        for number in range(624):
            house.deliver(f"{day:%Y%m%d}T0005Z_{number:016d}", day + timedelta(minutes=6))

    first, *others = (house.sync(at(clock)) for clock in ("01:00", "01:05", "01:10"))

    assert first.loaded == 1248
    assert [(run.loaded, run.events, run.duplicates, run.already_loaded) for run in others] == [(0, 0, 0, 1248)] * 2
    assert house.holds_everything_once()


def test_beats_39065_a_scan_that_is_cut_short_moves_nothing_on(house: House) -> None:
    """An aborted scan advanced the time from which objects were looked at; the older rest was never read."""
    house.page = 5
    keys = [house.deliver(f"20260130T{number:04d}Z_{number:016d}", at("10:00")) for number in range(30)]
    asked = []

    def broken(what: str) -> KyraError | None:
        asked.append(what)
        late = what.startswith("list ") and "/CloudTrail/us-east-1/" in what and len(asked) > 8
        return TransientError("S3 did not answer in time.") if late else None

    house.broken = broken
    with pytest.raises(TransientError):
        house.sync(at("10:05"))
    before = len(truth.events_in(house.lake))
    house.broken = lambda _: None
    house.sync(at("10:10"))

    assert before < len(keys)
    assert house.holds_everything_once()


@pytest.mark.parametrize("small", [8, 0], ids=["looked through whole", "looked back on"])
def test_tailpipe_a_day_is_not_over_when_the_next_one_begins(
    house: House, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """Once an object of day D was collected, one of D-1 that came later, or had failed, was never collected."""
    monkeypatch.setattr(discover, "SMALL_REGION", small)
    yesterday = DAY - timedelta(days=1)
    failing = house.deliver(f"{yesterday:%Y%m%d}T2350Z_failing000000000", at("23:52", yesterday))
    house.deliver(f"{yesterday:%Y%m%d}T2355Z_intime0000000000", at("23:56", yesterday))
    house.deliver("20260130T0000Z_nextday000000000", at("00:01"))
    house.deliver(f"{yesterday:%Y%m%d}T2355Z_late000000000000", at("00:30"))
    house.deliver(f"{yesterday:%Y%m%d}T2355Z_later00000000000", at("23:00"))
    house.broken = lambda what: ObjectError("server_error", "S3 failed.") if what == failing else None

    first = house.sync(at("00:05"))
    house.broken = lambda _: None
    others = [house.sync(at(clock)).loaded for clock in ("00:20", "00:40", "23:30")]

    assert (first.loaded, first.quarantined) == (2, 1)
    assert others == [1, 1, 1]
    assert house.holds_everything_once()


def test_wazuh_27202_the_account_after_a_thousand_is_collected_too(house: House) -> None:
    """One page of a thousand folders was asked for, and the accounts beyond it were never seen."""
    for account in range(1, 1002):
        house.deliver("20260130T0000Z_0000000000000000", at("00:01"), account=account, recipient=1)

    assert house.sync(at("00:05")).loaded == 1001
    assert house.holds_everything_once()


def test_wazuh_regions_are_each_accounts_own(house: House) -> None:
    """The first account's regions were used for all others, and regions only others had were skipped."""
    for account, regions in enumerate((["us-east-1"], ["eu-west-1", "us-east-1"], ["ap-southeast-5"]), 1):
        for region in regions:
            house.deliver("20260130T0000Z_0000000000000000", at("00:01"), account=account, region=region)

    assert house.sync(at("00:05")).loaded == 4
    house.deliver("20260130T0010Z_0000000000000000", at("00:11"), account=1, region="mx-central-1")
    assert house.sync(at("00:15")).loaded == 1
    assert house.holds_everything_once()


def test_data_prepper_4123_objects_of_the_second_of_the_last_one_seen(house: House) -> None:
    """Objects with the same last-modified second as the newest one seen were skipped."""
    house.deliver("20260130T0005Z_first00000000000", at("00:06:30"))
    assert house.sync(at("00:06:30")).loaded == 1
    house.deliver("20260130T0005Z_second0000000000", at("00:06:30"))

    assert house.sync(at("00:07")).loaded == 1
    assert house.holds_everything_once()


def test_wazuh_one_bad_object_starves_no_other(house: House) -> None:
    """An object that could not be read ended the run, in every run, before the files after it."""
    poison = house.deliver("20260130T0000Z_0000000000000000", at("00:01"))
    house.broken = lambda what: ObjectError("access_denied", "Refused.") if what == poison else None
    for number in range(5):
        house.deliver(f"20260130T0005Z_{number:016d}", at("00:06"))

    first = house.sync(at("00:10"))
    again = house.sync(at("00:15"))
    house.broken = lambda _: None
    last = house.sync(at("00:30"))

    assert (first.loaded, first.quarantined, first.quarantined_by_reason) == (5, 1, {"access_denied": 1})
    assert (again.loaded, again.quarantined) == (0, 1)
    assert (last.loaded, last.quarantined) == (1, 0)
    assert house.holds_everything_once()


def test_beats_52721_one_integration_forgets_nothing_of_another(house: House, tmp_path: Path) -> None:
    """Cleaning up after one input deleted what another had remembered, and everything was read again."""
    house.deliver("20260130T0000Z_0000000000000000", at("00:01"))
    house.sync(at("00:05"))
    other = tmp_path / "other"
    other.mkdir()
    sync(
        Integration("other", other.as_uri()),
        bucket=FolderBucket(other, clock=lambda: at("00:06")),
        lake=open_lake(str(house.lake)),
        state=house.state,
        corpus=None,
        limits=Limits(),
        clock=lambda: at("00:06"),
    )
    house.state.ledger.delete_checkpoints("other")

    again = house.sync(at("00:10"))

    assert (again.loaded, again.already_loaded) == (0, 1)
    assert house.holds_everything_once()
