"""Backfills: planned, in small steps, beside the syncs, stopped and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import backfill as module
from kyra_etl import resources
from kyra_etl.backfill import backfill, beside_syncs, plan, unfinished
from kyra_etl.detect import detect_queued
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import AccessError, CollectError, DamagedFile, StateError, UsageError
from kyra_etl.folder import FolderBucket
from kyra_etl.lake import Lake
from kyra_etl.model import Commit, Integration, Limits, LogFile, RunReport, Window
from kyra_etl.run import load_handed_out
from kyra_etl.state import State
from kyra_etl.sync import sync
from tests.lakes import IN_A_FOLDER

NOW = datetime(2026, 3, 10, 12)
TODAY = NOW.date()
ONE, OTHER = "111122223333", "444455556666"


class House:
    """Thirty days of two accounts, a log file a day each, in a folder."""

    def __init__(self, tmp_path: Path, lake: Lake) -> None:
        self.folder = tmp_path / "bucket"
        self.state = State.open(str(tmp_path / "state.db"))
        self.lake = lake
        self.acme = Integration(name="acme", bucket=self.folder.as_uri())
        self.state.integrations.add(self.acme, NOW)
        self.bucket = FolderBucket(self.folder, clock=lambda: NOW)
        self.limits = Limits(batch_files=2)
        for back in range(30):
            for account in (ONE, OTHER):
                self.put(account, TODAY - timedelta(days=back))

    def put(self, account: str, day: date, name: str = "a") -> None:
        folder = self.folder / f"AWSLogs/{account}/CloudTrail/eu-west-1/{day:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        record = f'{{"eventID": "{account}-{day}-{name}", "eventTime": "{day}T01:02:03Z", "eventName": "X"}}'
        (folder / f"{account}_CloudTrail_eu-west-1_{day:%Y%m%d}T0105Z_{name}.json").write_text(
            f'{{"Records": [{record}]}}'
        )

    def parts(self, **more: Any) -> dict[str, Any]:
        made = {"bucket": self.bucket, "state": self.state, "limits": self.limits, "clock": lambda: NOW}
        return {**made, **more}

    def run(self, first: date, last: date, **more: Any) -> Iterator[RunReport]:
        return backfill(self.acme, days(first, last), lake=self.lake, corpus=None, **self.parts(**more))

    def sync(self) -> RunReport:
        return sync(self.acme, lake=self.lake, corpus=None, **self.parts())


class Refusing(FolderBucket):
    """A folder in which nothing of one account may be listed."""

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        if f"/{OTHER}/" in prefix:
            raise AccessError(f"{prefix} may not be listed.", "Ask for it.")
        yield from super().files(prefix, start_after)


def days(first: date, last: date) -> Window:
    midnight = datetime.min.time()
    return Window(datetime.combine(first, midnight), datetime.combine(last, midnight) + timedelta(days=1))


@pytest.fixture
def house(tmp_path: Path, lake: Lake) -> Iterator[House]:
    made = House(tmp_path, lake)
    yield made
    made.state.close()


LEASE: dict[str, Any] = {"owner": "somebody", "lease_seconds": 60}
FIRST, LAST = TODAY - timedelta(days=9), TODAY - timedelta(days=5)


@IN_A_FOLDER
def test_a_plan_tells_files_bytes_requests_and_time_and_loads_nothing(house: House) -> None:
    list(house.run(FIRST, FIRST))

    told = plan(house.acme, days(FIRST, LAST), **house.parts())

    assert (told.files, told.already_loaded, told.get_requests) == (8, 2, 8)
    assert {day: one.files for day, one in told.days.items()} == {FIRST: 0} | {
        FIRST + timedelta(days=n): 2 for n in range(1, 5)
    }
    size = next(house.folder.rglob("*.json")).stat().st_size
    assert told.bytes == 8 * size
    assert told.list_requests >= 10
    assert (told.measured, told.seconds) == (False, told.bytes / module.GUESS)
    assert told.cost == 0, "a folder costs nothing"
    assert house.state.ledger.counts("acme")["pending"] == 0
    assert told.as_json()["days"][0] == {"day": FIRST, "files": 0, "bytes": 0, "already_loaded": 2}


@IN_A_FOLDER
def test_a_plan_of_one_account_counts_that_account(house: House) -> None:
    assert plan(house.acme, days(FIRST, LAST), accounts=[ONE], **house.parts()).files == 5
    assert [report.loaded for report in house.run(FIRST, LAST, accounts=[OTHER])] == [1] * 5
    assert plan(house.acme, days(FIRST, LAST), **house.parts()).already_loaded == 5


@IN_A_FOLDER
def test_the_days_of_a_plan_end_with_tomorrow(house: House) -> None:
    told = plan(house.acme, days(TODAY, TODAY + timedelta(days=900)), **house.parts())

    assert list(told.days) == [TODAY, TODAY + timedelta(days=1)]


@IN_A_FOLDER
@pytest.mark.parametrize("work", [plan, backfill])
def test_inverted_and_future_ranges_are_refused_before_anything_is_listed(house: House, work: Any) -> None:
    parts = house.parts(bucket=None) | ({"lake": house.lake, "corpus": None} if work is backfill else {})
    with pytest.raises(UsageError, match="empty"):
        list(work(house.acme, Window(NOW, NOW), **parts))
    with pytest.raises(UsageError, match="future"):
        list(work(house.acme, days(date(2027, 1, 1), date(2027, 1, 2)), **parts))


@IN_A_FOLDER
def test_a_range_without_files_is_answered_with_zeros(house: House) -> None:
    reports = list(house.run(date(2025, 1, 1), date(2025, 1, 3)))

    assert [(report.listed, report.loaded) for report in reports] == [(0, 0)] * 3


@IN_A_FOLDER
def test_it_lists_little_ahead_of_what_it_loads(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.limits = Limits(backfill_files=3)
    monkeypatch.setattr("kyra_etl.discover.PAGE", 2)
    for number in range(10):
        house.put(ONE, FIRST, f"more{number}")
    waiting = []
    loading = module.load_found

    def watched(*given: Any) -> int:
        waiting.append(house.state.ledger.counts("acme")["pending"])
        return loading(*given)

    monkeypatch.setattr(module, "load_found", watched)
    (report,) = house.run(FIRST, FIRST)

    assert report.loaded == 12
    assert report.imbalance() is None
    assert max(waiting) <= 5, "a page more at most, however many there are"
    assert len(waiting) >= 3


def test_a_late_file_of_a_day_that_is_done_is_loaded_when_the_day_is_done_again(house: House) -> None:
    list(house.run(FIRST, FIRST))
    house.put(ONE, FIRST, "late")

    (again,) = house.run(FIRST, FIRST)

    assert (again.loaded, again.already_loaded, again.events) == (1, 2, 1)


def test_stopped_anywhere_it_goes_on_where_it_stood(house: House) -> None:
    runs = house.run(FIRST, LAST)
    next(runs), next(runs)
    runs.close()

    reports = list(house.run(FIRST, LAST))

    assert [(report.loaded, report.already_loaded) for report in reports] == [(0, 2)] * 2 + [(2, 0)] * 3


@IN_A_FOLDER
def test_a_refused_folder_keeps_no_day_from_being_loaded_and_is_told_at_the_end(house: House) -> None:
    runs = house.run(FIRST, LAST, bucket=Refusing(house.folder, clock=lambda: NOW))
    reports = [next(runs) for _ in range(5)]
    with pytest.raises(AccessError, match=rf"{OTHER}/CloudTrail/eu-west-1/{FIRST:%Y/%m/%d}/ may not be listed"):
        next(runs)

    assert [(report.listed, report.loaded) for report in reports] == [(1, 1)] * 5
    assert [run["state"] for run in house.state.runs.recent("acme")] == ["failed"] * 5
    assert [report.loaded for report in house.run(FIRST, LAST)] == [1] * 5, "with leave, only what was missing"


@IN_A_FOLDER
def test_a_bucket_that_cannot_be_listed_at_all_ends_a_backfill_at_once(house: House, tmp_path: Path) -> None:
    with pytest.raises(CollectError, match="does not exist"):
        list(house.run(FIRST, LAST, bucket=FolderBucket(tmp_path / "nowhere", clock=lambda: NOW)))

    assert [run["state"] for run in house.state.runs.recent("acme")] == ["failed"]


@IN_A_FOLDER
def test_it_ends_before_the_next_day_when_the_integration_is_paused(house: House) -> None:
    runs = house.run(FIRST, LAST)
    next(runs)
    house.state.integrations.pause("acme", True)

    (report,) = runs
    assert (report.skipped, report.listed) == ("the integration is paused", 0)
    assert sorted(run["state"] for run in house.state.runs.recent("acme")) == ["skipped", "succeeded"]
    every = days(FIRST, LAST).days()
    said = unfinished("acme", every, [replace(report, skipped=None), report])
    assert said == (
        f"acme was paused after {FIRST}, 1 of 5 days."
        " Go on with: kyra integration resume acme, then the same backfill again."
    )
    assert str(unfinished("acme", every, [report])).startswith("acme was paused before the first day. Go on with")
    assert unfinished("acme", every, []) is None


@IN_A_FOLDER
def test_a_second_backfill_of_the_same_integration_is_told_of_the_first(house: House) -> None:
    with house.state.leases.take("backfill:acme", "somebody", 60) as held:  # type: ignore[union-attr]
        assert held is not None
        with pytest.raises(StateError, match=r"Another backfill of acme is running.*240 seconds"):
            list(house.run(FIRST, LAST))
    assert sum(report.loaded for report in house.run(FIRST, LAST)) == 10


def test_a_sync_leaves_what_a_running_backfill_found_and_takes_on_what_a_dead_one_left(house: House) -> None:
    house.sync()
    for number in range(5):
        house.put(ONE, FIRST, f"new{number}")
    lease = house.state.leases.take("backfill:acme", "somebody", 3_600)
    assert lease is not None
    run_id = house.state.runs.start("backfill", "acme", NOW)
    files = [*house.bucket.files(f"AWSLogs/{ONE}/CloudTrail/eu-west-1/{FIRST:%Y/%m/%d}/")]
    house.state.ledger.observe(run_id, "acme", house.acme.bucket, files, "listed", NOW)
    planned = house.state.ledger.workable(run_id)[:2]
    assert house.state.ledger.plan(
        run_id, "acme", house.acme.bucket, planned, owner="me", lease_seconds=0, historical=True, now=NOW
    )

    beside = house.sync()
    lease.release()
    after = house.sync()

    assert (beside.carried, beside.loaded) == (0, 0)
    assert (after.carried, after.loaded) == (5, 5)
    batches = {file.path.split("/")[-1].removesuffix(".parquet") for file in house.state.ledger.data_files("events")}
    historical = house.state.ledger.historical_batches(batches)
    assert len(historical) == len(batches), "an initial sync, a backfill's batch, and what it had not planned"


@IN_A_FOLDER
def test_detections_of_what_a_backfill_loads_are_left_to_it_while_it_runs(house: House) -> None:
    corpus = Corpus.load([resources.detections_dir()])
    parts = {"lake": house.lake, "state": house.state, "corpus": corpus, "now": NOW}
    run_id = house.state.runs.start("backfill", "acme", NOW)
    files = [*house.bucket.files(f"AWSLogs/{ONE}/CloudTrail/eu-west-1/{FIRST:%Y/%m/%d}/")]
    house.state.ledger.observe(run_id, "acme", house.acme.bucket, files, "listed", NOW)
    batch = house.state.ledger.plan(
        run_id, "acme", house.acme.bucket, house.state.ledger.workable(run_id), **LEASE, historical=True, now=NOW
    )
    assert batch is not None
    house.state.ledger.commit(Commit(batch, (), (), {}, ("cloudtrail_disabled",)), NOW)
    lease = house.state.leases.take("backfill:other", "somebody", 3_600)
    assert lease is not None

    sync(house.acme, lake=house.lake, corpus=corpus, **house.parts())
    beside = house.state.queue.depth()
    lease.release()
    detect_queued(**parts, live_only=house.state.leases.are_held("backfill:"))

    assert (beside > 0, house.state.queue.depth()) == (True, 0)


def test_it_leaves_half_the_processors_to_the_syncs() -> None:
    assert beside_syncs(Limits(decode_processes=8)).decode_processes == 4
    assert beside_syncs(Limits(decode_processes=1)).decode_processes == 1


# ── work that is handed out ──


def elsewhere(house: House, batch_id: str) -> bool:
    kit = {"state": house.state, "lake": house.lake, "corpus": None, "limits": house.limits, "clock": lambda: NOW}
    return load_handed_out(batch_id, bucket_of=lambda _: house.bucket, **kit)


def test_batches_are_handed_out_loaded_elsewhere_and_counted_by_the_run_that_planned_them(house: House) -> None:
    handed: list[str] = []

    def spread(batch_ids: Any, alive: Any) -> None:
        for batch_id in batch_ids:
            alive()
            handed.append(batch_id)
            assert elsewhere(house, batch_id)
            assert not elsewhere(house, batch_id), "done is done"

    reports = list(house.run(FIRST, LAST, spread=spread))

    assert [(report.loaded, report.events, report.batches) for report in reports] == [(2, 2, 1)] * 5
    assert len(handed) == 5


def test_work_that_is_done_twice_is_committed_once(house: House) -> None:
    house.limits = Limits(batch_files=1)

    def spread(batch_ids: Any, alive: Any) -> None:
        for batch_id in batch_ids:
            first = house.state.ledger.claim(batch_id, owner="lost machine", lease_seconds=3_600)
            assert first is not None
            assert elsewhere(house, batch_id)
            assert not house.state.ledger.heartbeat(first, 60)

    (report,) = house.run(FIRST, FIRST, spread=spread)

    assert (report.loaded, report.events, report.batches) == (2, 2, 2)


def test_what_nobody_claimed_is_given_back_and_what_failed_elsewhere_waits(house: House) -> None:
    house.limits = Limits(batch_files=1)

    def spread(batch_ids: Any, alive: Any) -> None:
        assert elsewhere(house, batch_ids[0])
        raise StateError("The scheduler went away.")

    with pytest.raises(StateError, match="went away"):
        list(house.run(FIRST, FIRST, spread=spread))

    counts = house.state.ledger.counts("acme")
    assert (counts["loaded"], counts["pending"], counts["planned"]) == (1, 1, 0)
    assert [report.loaded for report in house.run(FIRST, FIRST)] == [1]


@IN_A_FOLDER
def test_a_damaged_file_met_elsewhere_is_told_of_when_all_days_are_done(house: House) -> None:
    house.limits = Limits(batch_files=1)

    def spread(batch_ids: Any, alive: Any) -> None:
        for batch_id in batch_ids[1:]:
            assert elsewhere(house, batch_id)
        raise DamagedFile("A committed file cannot be read.")

    with pytest.raises(DamagedFile):
        list(house.run(FIRST, LAST, spread=spread))

    counts = house.state.ledger.counts("acme")
    assert (counts["loaded"], counts["pending"]) == (5, 5)
