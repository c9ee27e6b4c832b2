"""Listing that scales: an organization of a thousand accounts, cadences, budgets, and folders that refuse."""

from __future__ import annotations

import resource
import threading
import time
import tracemalloc
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks import tiny_s3
from kyra_etl import cadence, discover, listing
from kyra_etl.aws.bucket import open_bucket
from kyra_etl.errors import AccessError, CollectError, TransientError
from kyra_etl.listing import Found
from kyra_etl.model import LOGS, Folder, Integration, Limits, LogFile, Window
from kyra_etl.ports import LogBucket, Silent
from kyra_etl.state import State
from kyra_etl.status import status

NOW = datetime(2026, 3, 10, 12)
ACME = Integration("acme", "logs")
ORGANIZATION = "o-abc123def4"


@dataclass
class Memory:
    """A bucket in memory that counts what is asked of it."""

    clock: datetime = NOW
    files_by_key: dict[str, LogFile] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    refused: dict[str, CollectError] = field(default_factory=dict)
    name: str = "logs"
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, key: str) -> None:
        self.files_by_key[key] = LogFile(key, "e", 100, self.clock)

    def folders(self, prefix: str) -> Iterator[str]:
        self._ask(prefix, "folders")
        rest = (key[len(prefix) :] for key in self.files_by_key if key.startswith(prefix))
        return iter(sorted({f"{prefix}{part.split('/')[0]}/" for part in rest if "/" in part}))

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        keys = sorted(key for key in self.files_by_key if key.startswith(prefix))
        keys = keys[bisect_right(keys, start_after) :]
        for at, key in enumerate(keys):
            if at % 1000 == 0:
                self._ask(prefix, "files")
            yield self.files_by_key[key]
        if not keys:
            self._ask(prefix, "files")

    def read(self, key: str) -> bytes:
        raise NotImplementedError

    def now(self) -> datetime:
        return self.clock

    def _ask(self, prefix: str, what: str) -> None:
        with self.lock:
            self.asked[what] += 1
            self.asked[prefix] += 1
        if prefix in self.refused:
            raise self.refused[prefix]


def region(account: int, name: str = "eu-west-1", kind: str = LOGS, layout: str = "") -> str:
    return f"AWSLogs/{layout}{account:012d}/{kind}/{name}/"


def key(folder: str, day: date, name: str) -> str:
    return f"{folder}{day:%Y/%m/%d}/{name}.json.gz"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(f"sqlite:///{tmp_path}/state.db") as opened:
        yield opened


def listed(bucket: LogBucket, state: State, limits: Limits | None = None) -> Found:
    """One run's listing."""
    now = bucket.now()
    run_id = state.runs.start("sync", "acme", now)
    found = discover.discover(
        run_id,
        ACME,
        bucket=bucket,
        state=state,
        limits=limits or Limits(list_threads=4),
        clock=lambda: now,
        progress=Silent(),
    )
    assert found.listed == found.already_loaded + found.ignored.total() + state.ledger.tally(run_id)["linked_listed"]
    return found


def known(state: State) -> int:
    return int(state.ledger.counts("acme")["pending"])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any bucket counts as large, any region as one of many days."""
    monkeypatch.setattr(discover, "SMALL_BUCKET", 0)
    monkeypatch.setattr(discover, "SMALL_REGION", 0)


# ── an organization of the size we design for ──

ACCOUNTS = 1_001
REGIONS = ("us-east-1", "eu-west-1", "eu-central-1", "ap-south-1", "us-west-2", "sa-east-1")
LIVELY = 300
TOP = 3
"""LIST requests for the accounts: one finds the organization, two its accounts, a thousand at a time."""


def regions_of(account: int) -> list[str]:
    """Each account's own: five of six, and never the same as the one before."""
    return [name for number, name in enumerate(REGIONS) if number != account % len(REGIONS)]


def test_an_organization_of_a_thousand_accounts_is_found_whole_and_listed_by_what_is_due(
    state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = f"{ORGANIZATION}/"
    folders = [region(account, name, layout=layout) for account in range(ACCOUNTS) for name in regions_of(account)]
    digests = [region(account, "us-east-1", "CloudTrail-Digest", layout) for account in range(ACCOUNTS)]
    lively = folders[:: len(folders) // LIVELY][:LIVELY]
    told: list[str] = []
    limits = Limits()
    with tiny_s3.running() as server:
        today = server.move_clock(timedelta(0)).date()
        days = [today - timedelta(days=back) for back in (0, 1, 40)]
        server.put({key(folder, day, "first"): b"x" for folder in [*folders, *digests] for day in days})
        bucket = open_bucket(ACME, endpoint_url=server.url, connections=16)
        monkeypatch.setattr(discover, "SMALL_REGION", 2)
        server.counts()

        def run(what: str) -> int:
            begun = time.perf_counter()
            found = listed(bucket, state, limits)
            counted = server.counts()["list"]
            assert found.requests == counted
            told.append(f"{what:40} {counted:6} LISTs  {time.perf_counter() - begun:5.1f} s  {dict(found.folders)}")
            return counted

        assert run("first run: everything, from the beginning") == TOP + 3 * ACCOUNTS + len(folders) + len(digests)
        assert known(state) == len(folders) * len(days), "every log file of every account's own regions"

        server.move_clock(timedelta(minutes=70))
        server.put({key(folder, today, "later"): b"x" for folder in lively})
        run("an hour later: all are due, regions searched")
        assert known(state) == len(folders) * len(days) + LIVELY

        server.move_clock(timedelta(minutes=5))
        server.put({key(folder, today, "even-later"): b"x" for folder in lively[:7]})
        steady = run("five minutes later: the lively ones")
        assert steady == TOP + LIVELY
        assert known(state) == len(folders) * len(days) + LIVELY + 7

        server.move_clock(timedelta(minutes=5))
        newcomer = region(ACCOUNTS, "me-south-1", layout=layout)
        server.put({key(newcomer, today, "first"): b"x"})
        assert run("an account more") == TOP + 2 + 1 + LIVELY
        assert known(state) == len(folders) * len(days) + LIVELY + 7 + 1

    monthly = 24 * (12 * (TOP + LIVELY) + (len(folders) - LIVELY) * 4 + 3 * ACCOUNTS) + len(folders) + len(digests)
    used = sum(state.ledger.list_requests("acme", date.min).values())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with capsys.disabled():
        print(f"\n{ACCOUNTS} accounts, {len(folders)} regions of theirs with log files, {len(digests)} with digests")
        print("\n".join(told))
        print(f"kept in state: {used} LISTs; a day like this at most {monthly}, ${cadence.cost(monthly):.2f}")
        print(f"memory of the whole test process: {memory} MiB")


# ── cadence ──


@pytest.mark.usefixtures("large")
def test_a_lively_folder_is_listed_in_every_run_a_quiet_one_now_and_then(state: State) -> None:
    bucket = Memory()
    lively, daily, silent = region(1), region(2), region(3)
    for folder, ago in ((lively, 0), (daily, 5), (silent, 72)):
        bucket.clock = NOW - timedelta(hours=ago)
        bucket.put(key(folder, bucket.clock.date(), "a"))
    bucket.clock = NOW
    listed(bucket, state)
    bucket.asked.clear()
    for _ in range(24):
        bucket.clock += timedelta(minutes=5)
        bucket.put(key(lively, bucket.clock.date(), f"b{bucket.clock:%H%M}"))
        listed(bucket, state)

    assert (bucket.asked[lively], bucket.asked[daily], bucket.asked[silent]) == (24, 8, 2)
    assert bucket.asked["AWSLogs/"] == 24, "new accounts are looked for in every run"
    assert bucket.asked["AWSLogs/000000000001/CloudTrail/"] == 2, "new regions once an hour"


def test_files_in_folders_below_the_day_are_log_files_of_that_day(state: State) -> None:
    bucket = Memory()
    for name in ("a", "12/b", "12/30/c"):
        bucket.put(key(region(1), NOW.date(), name))
    bucket.put(f"{region(1)}2026/03/10/12/notes.txt")
    bucket.put(f"{region(1)}2026/03/10/12/")

    found = listed(bucket, state)

    assert (known(state), found.ignored) == (3, {"other": 1, "marker": 1})
    (checkpoint,) = state.ledger.checkpoints("acme")
    assert (checkpoint["day"], checkpoint["day_folders"]) == (NOW.date(), 1)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("days_late", "hours"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 24), (30, 24), (34, 24)])
def test_a_late_file_is_found_within_its_sweep(state: State, days_late: int, hours: int) -> None:
    bucket = Memory()
    for back in range(90):
        bucket.put(key(region(1), NOW.date() - timedelta(days=back), "a"))
    listed(bucket, state)
    bucket.clock += timedelta(minutes=1)
    listed(bucket, state)
    bucket.put(key(region(1), NOW.date() - timedelta(days=days_late), "late"))
    late_at = bucket.clock
    while known(state) == 90:
        bucket.clock += timedelta(minutes=2.5 * hours)
        listed(bucket, state)
        assert bucket.clock - late_at <= timedelta(hours=hours) + cadence.EVERY["warm"]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("days_before", [0, 1, 2, 3, 4, 30, 35])
def test_a_bucket_that_stands_still_is_swept_behind_its_newest_day(state: State, days_before: int) -> None:
    bucket, newest = Memory(), NOW.date() - timedelta(days=250)
    for back in range(150):
        bucket.put(key(region(1), newest - timedelta(days=back), "a"))
    listed(bucket, state)
    bucket.put(key(region(1), newest - timedelta(days=days_before), "late"))
    bucket.clock += timedelta(hours=24)

    found = listed(bucket, state)

    assert (known(state), found.listed) == (151, 37)


def test_an_archive_of_few_days_is_looked_through_in_every_sync(state: State) -> None:
    bucket = Memory()
    for name in ("eu-west-1", "us-east-1"):
        for back in range(12):
            bucket.put(key(region(1, name), NOW.date() - timedelta(days=250 + back), "a"))
    listed(bucket, state)
    bucket.put(key(region(1), NOW.date() - timedelta(days=259), "still-copied"))

    found = listed(bucket, state)

    assert (known(state), found.listed) == (25, 25)


@pytest.mark.usefixtures("large")
def test_neighbours_are_counted_once_a_day_and_other_services_never(state: State) -> None:
    bucket = Memory()
    digest, flows = region(1, kind="CloudTrail-Digest"), region(1, kind="vpcflowlogs")
    for folder in (region(1), digest, flows):
        bucket.put(key(folder, NOW.date(), "a"))
    assert listed(bucket, state).ignored == {"digest": 1}
    for _ in range(24):
        bucket.clock += timedelta(hours=1)
        listed(bucket, state)

    assert (bucket.asked[digest], bucket.asked[flows]) == (2, 0)


def test_everything_is_listed_in_every_run_while_the_bucket_is_small(state: State) -> None:
    bucket = Memory()
    folders = [region(account, kind=kind) for account in range(5) for kind in (LOGS, "CloudTrail-Insight")]
    for folder in folders:
        bucket.put(key(folder, NOW.date() - timedelta(days=200), "a"))
    listed(bucket, state)
    bucket.put(key(region(3), NOW.date() - timedelta(days=300), "b"))
    bucket.clock += timedelta(minutes=5)

    found = listed(bucket, state)

    assert known(state) == 6
    assert found.folders.total() == 10


@pytest.mark.usefixtures("large")
def test_deleting_every_checkpoint_costs_listings_and_nothing_else(state: State) -> None:
    bucket = Memory()
    for back in range(90):
        bucket.put(key(region(1), NOW.date() - timedelta(days=back), "a"))
    listed(bucket, state)
    state.ledger.delete_checkpoints("acme")
    bucket.put(key(region(1), NOW.date() - timedelta(days=80), "late"))

    listed(bucket, state)

    assert known(state) == 91


@pytest.mark.usefixtures("large")
def test_a_clock_that_was_ahead_starves_no_folder(state: State) -> None:
    bucket = Memory(clock=NOW + timedelta(days=400))
    bucket.put(key(region(1), NOW.date(), "a"))
    listed(bucket, state)
    bucket.clock = NOW
    bucket.put(key(region(1), NOW.date(), "b"))

    listed(bucket, state)

    assert known(state) == 2


def test_a_backfill_lists_its_days_of_every_region_and_moves_no_checkpoint(state: State) -> None:
    bucket = Memory()
    for back in range(30):
        bucket.put(key(region(1), NOW.date() - timedelta(days=back), "a"))
    before = NOW - timedelta(days=20)

    run_id = state.runs.start("backfill", "acme", NOW)
    window = Window(before, before + timedelta(days=2))
    *_, found = discover.discover_days(
        run_id,
        ACME,
        window,
        bucket=bucket,
        state=state,
        limits=Limits(list_threads=4),
        clock=lambda: NOW,
        progress=Silent(),
    )

    assert (found.listed, known(state)) == (3, 3), "both days are touched, and a third by the time of day"
    assert {folder.listed_at for folder in state.ledger.folders("acme") if folder.is_logs} == {None}


# ── budgets ──


@pytest.mark.usefixtures("large")
def test_what_one_run_cannot_afford_comes_first_in_the_next(state: State) -> None:
    bucket = Memory()
    for account in range(20):
        bucket.put(key(region(account), NOW.date(), "a"))
    limits = Limits(list_threads=2, list_budget_run=1 + 40 + 8)
    first = listed(bucket, state, limits)
    assert (first.folders.total(), first.waiting, first.waiting_new) == (8, 12, 12)
    assert first.requests <= limits.list_budget_run

    found, runs = known(state), 1
    while found < 20:
        bucket.clock += timedelta(minutes=5)
        listed(bucket, state, replace(limits, list_budget_run=1 + 8))
        runs += 1
        assert known(state) > found or runs == 3
        found = known(state)
    assert runs <= 4
    least = min(folder.listed_at or datetime.min for folder in state.ledger.folders("acme") if folder.is_logs)
    assert least >= NOW


def test_a_day_s_budget_is_spread_over_the_day() -> None:
    limits = Limits(list_budget_run=1_000_000, list_budget_day=2_400)
    midnight = datetime(2026, 3, 10)
    assert cadence.allowance(limits, 0, midnight) == 100
    assert cadence.allowance(limits, 100, midnight) == 0
    assert cadence.allowance(limits, 1_000, midnight + timedelta(hours=11)) == 200
    assert cadence.allowance(limits, 2_390, midnight + timedelta(hours=23, minutes=59)) == 10
    assert cadence.allowance(limits, 9_999, midnight + timedelta(hours=23)) == 0
    assert cadence.allowance(replace(limits, list_budget_run=7), 0, midnight) == 7
    assert cadence.cost(1_000_000) == pytest.approx(5.0)


def test_without_any_budget_left_nothing_is_asked_and_the_run_says_so(state: State) -> None:
    bucket = Memory()
    bucket.put(key(region(1), NOW.date(), "a"))
    listed(bucket, state)
    bucket.asked.clear()

    found = listed(bucket, state, Limits(list_budget_day=1))

    assert (found.requests, found.folders.total(), bucket.asked.total()) == (0, 0, 0)
    assert found.waiting > 0


def test_time_ends_a_listing_and_the_next_run_goes_on(state: State) -> None:
    bucket = Memory()
    for account in range(50):
        bucket.put(key(region(account), NOW.date(), "a"))
    moments = iter(NOW + timedelta(seconds=number) for number in range(10_000))
    run_id = state.runs.start("sync", "acme", NOW)
    found = discover.discover(
        run_id,
        ACME,
        bucket=bucket,
        state=state,
        limits=Limits(list_threads=1, list_seconds=20),
        clock=lambda: next(moments),
        progress=Silent(),
    )
    assert 0 < found.folders.total() < 50
    assert found.folders.total() + found.waiting == 50

    listed(bucket, state)

    assert known(state) == 50


def test_status_tells_what_listing_takes_and_costs(state: State) -> None:
    state.integrations.add(ACME, NOW)
    bucket = Memory()
    for account in range(3):
        bucket.put(key(region(account), NOW.date(), "a"))
    listed(bucket, state)
    state.ledger.save_listing("acme", [], requests=1_000_000, day=NOW.date() - timedelta(days=1))

    (one,) = status(state, NOW)["integrations"]

    assert one["listing"] == {
        "requests_today": 1 + 6 + 3,
        "requests_yesterday": 1_000_000,
        "cost_today": pytest.approx(10 * cadence.PRICE),
        "cost_yesterday": pytest.approx(5.0),
        "folders": {"hot": 3, "warm": 0, "cold": 0, "neighbour": 0},
    }


# ── trouble ──


@pytest.mark.usefixtures("large")
def test_a_folder_that_cannot_be_listed_keeps_no_other_from_it_and_is_tried_again(state: State) -> None:
    bucket = Memory()
    for account in range(30):
        bucket.put(key(region(account), NOW.date(), "a"))
    bucket.refused = {region(3): AccessError("no"), "AWSLogs/000000000007/": TransientError("later")}

    found = listed(bucket, state)

    assert known(state) == 28
    assert found.problem is not None
    bucket.refused.clear()
    bucket.clock += timedelta(minutes=5)
    assert listed(bucket, state).problem is None
    assert known(state) == 29
    bucket.clock += timedelta(minutes=10)
    assert listed(bucket, state).problem is None
    assert known(state) == 30, "an account that may not be searched is tried every quarter of an hour"


@pytest.mark.parametrize("threads", [1, 16])
def test_however_many_accounts_refuse_to_be_searched_the_others_are_listed(state: State, threads: int) -> None:
    bucket = Memory()
    for account in range(90):
        bucket.put(key(region(account), NOW.date(), "a"))
    bucket.refused = {f"AWSLogs/{account:012d}/": AccessError("no") for account in range(60)}

    assert str(listed(bucket, state, Limits(list_threads=threads)).problem) == "no"

    assert known(state) == 30
    bucket.refused.clear()
    bucket.clock += timedelta(minutes=5)
    listed(bucket, state)
    assert known(state) == 90


@pytest.mark.parametrize("threads", [1, 16])
def test_however_many_regions_refuse_to_be_listed_the_others_are(state: State, threads: int) -> None:
    bucket = Memory()
    for account in range(100):
        bucket.put(key(region(account), NOW.date(), "a"))
    bucket.refused = {region(account): AccessError("no") for account in range(50)}

    found = listed(bucket, state, Limits(list_threads=threads))

    assert (str(found.problem), known(state), found.waiting) == ("no", 50, 0)


def test_a_backfill_lists_what_it_can_however_many_regions_refuse(state: State) -> None:
    bucket = Memory()
    for account in range(100):
        bucket.put(key(region(account), NOW.date(), "a"))
    bucket.refused = {f"{region(account)}2026/03/10/": AccessError("no") for account in range(50)}
    midnight = datetime(2026, 3, 10)
    *_, found = discover.discover_days(
        state.runs.start("backfill", "acme", NOW),
        ACME,
        Window(midnight, midnight + timedelta(days=1)),
        bucket=bucket,
        state=state,
        limits=Limits(list_threads=4),
        clock=lambda: NOW,
        progress=Silent(),
    )

    assert (str(found.problem), known(state)) == ("no", 50)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("refusing", ["regions", "accounts"])
def test_a_budget_is_shared_by_those_that_refuse_and_those_that_wait(state: State, refusing: str) -> None:
    bucket = Memory()
    for account in range(20):
        bucket.put(key(region(account), NOW.date(), "a"))
    bucket.refused = {
        region(account) if refusing == "regions" else f"AWSLogs/{account:012d}/": AccessError("no")
        for account in range(10)
    }
    budget = Limits(list_threads=1, list_budget_run=1 + 8)

    for _ in range(20):
        listed(bucket, state, budget)
        bucket.clock += timedelta(minutes=5)

    assert known(state) == 10
    bucket.refused.clear()
    for _ in range(10):
        listed(bucket, state, budget)
        bucket.clock += timedelta(minutes=5)
    assert known(state) == 20, "and one that refused is not left behind when it no longer does"


def test_a_bucket_that_stops_answering_is_given_up_early(state: State) -> None:
    class Dying(Memory):
        """Answers so often, and then no more."""

        left = 1 + 400 + 50

        def _ask(self, prefix: str, what: str) -> None:
            with self.lock:
                super()._ask(prefix, what)
                over = self.asked["files"] + self.asked["folders"] > self.left
            if over:
                raise TransientError("no answer")

    bucket = Dying()
    for account in range(200):
        bucket.put(key(region(account), NOW.date(), "a"))

    found = listed(bucket, state, Limits(list_threads=2))

    assert (str(found.problem), known(state)) == ("no answer", 50)
    assert bucket.asked.total() / 2 < bucket.left + 20
    with pytest.raises(TransientError, match="no answer"):
        listed(bucket, state)


def test_a_listing_of_any_length_holds_few_pages_in_memory() -> None:
    handed_out = taken = most = 0

    class Endless(Memory):
        def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
            nonlocal handed_out
            for number in range(5_000):
                handed_out += 1
                yield LogFile(f"{prefix}{number:06d}", "e", 1)

    tasks = (listing.Task(Folder(region(n), str(n)), region(n)) for n in range(40))
    for page in listing.pages(Endless(), tasks, threads=4, page=100):
        most = max(most, handed_out - taken)
        taken += page.listed

    assert taken == 40 * 5_000
    assert most <= (4 * listing.AHEAD + 1) * 100


def test_memory_stays_flat_against_ten_times_the_backlog(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Backlog(Memory):
        """So many log files in one region, made while they are listed."""

        length = 0

        def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
            for number in range(self.length):
                yield LogFile(key(prefix, NOW.date(), f"{number:012d}"), "e", 100, NOW)

    peaks = {}
    for length in (1_000, 10_000):
        bucket = Backlog()
        bucket.length = length
        bucket.put(key(region(1), NOW.date(), "a"))
        with State.open(f"sqlite:///{tmp_path}/{length}.db") as state:
            listed(bucket, state)  # what is made once is made
            state.ledger.delete_checkpoints("acme")
            run_id = state.runs.start("sync", "acme", NOW)
            tracemalloc.start()
            state.ledger.carry(run_id, "acme", NOW)
            waiting = state.ledger.waiting(run_id)
            assert sum(1 for _ in state.ledger.entries(waiting.ids)) == len(waiting.ids) == length
            listed(bucket, state)
            peaks[length] = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
    with capsys.disabled():
        print("\nmemory while listing and planning:", ", ".join(f"{n} files {mib:.1f} MiB" for n, mib in peaks.items()))
    assert peaks[10_000] < 2 * peaks[1_000]
