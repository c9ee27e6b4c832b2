"""LookupEvents into the lake: each closed hour once, whatever AWS answers and however the run ends.

moto has no LookupEvents, so AWS is the small HTTP server of tests/lookup.py, with our real client in front of it.
"""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import resources
from kyra_etl.aws.history import History
from kyra_etl.aws.session import Session
from kyra_etl.cloudtrail import hours
from kyra_etl.cloudtrail.records import rebuild
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import AccessError, ObjectError, ObjectGone, TransientError, UsageError
from kyra_etl.folder import FolderBucket
from kyra_etl.history import Span, history
from kyra_etl.lake import Lake, open_lake
from kyra_etl.model import Integration, Limits, RunReport, Window
from kyra_etl.state import State
from kyra_etl.sync import sync
from tests.conftest import ROOT
from tests.lakes import IN_A_FOLDER, table
from tests.lookup import ACCOUNT, Lookup, served

NOW = datetime(2026, 3, 10, 12, 10)
REGIONS = ("eu-west-1", "us-east-1", "us-west-2")
ACME = Integration("acme", "example-logs")


def record(region: str, number: int, at: datetime) -> str:
    """A record as LookupEvents gives it: spaces and digits of its own."""
    return (
        f'{{"eventVersion": "1.11", "eventID": "{region}-{number}", "eventTime": "{at:%Y-%m-%dT%H:%M:%SZ}",'
        ' "eventName":"DescribeInstances", "eventSource": "ec2.amazonaws.com",'
        f' "awsRegion": "{region}", "recipientAccountId": "{ACCOUNT}", "errorCode": null,'
        ' "userIdentity": {"type":"IAMUser", "userName": "zoë \\u00e9"}, "requestParameters": {"n": 1.0, "a":[ ]}}'
    )


def some(region: str, count: int, minutes: float = 2) -> list[str]:
    """Records every so many minutes, back from the last closed hour."""
    return [record(region, n, datetime(2026, 3, 10, 10, 59) - timedelta(minutes=minutes * n)) for n in range(count)]


@pytest.fixture
def lookup() -> Iterator[Lookup]:
    with served(Lookup({region: some(region, 60, minutes=1) for region in REGIONS})) as server:
        yield server


class House:
    """State and lake in a folder, and runs over them."""

    def __init__(self, home: Path, lake: Lake) -> None:
        self.home = home
        self.state = State.open(str(home / "state.db"))
        self.lake = lake
        self.lake.claim(self.state.id)
        self.now = NOW
        self.corpus: Corpus | None = None

    def parts(self) -> dict[str, Any]:
        given = {
            "lake": self.lake,
            "state": self.state,
            "corpus": self.corpus,
            "limits": Limits(),
            "clock": lambda: self.now,
        }
        return given

    def history(self, url: str, days: int = 1, regions: tuple[str, ...] = REGIONS, **more: Any) -> RunReport:
        return history(ACME, Span(ACCOUNT, regions, days, **more), bucket=source(url), **self.parts())

    def events(self) -> list[dict[str, Any]]:
        return table(self.lake, "events").to_pylist()


@pytest.fixture
def house(tmp_path: Path, lake: Lake) -> Iterator[House]:
    house = House(tmp_path, lake)
    yield house
    house.state.close()


def source(url: str) -> History:
    return History(Session(ACME, endpoint_url=url), clock=lambda: NOW, sleep=lambda seconds: None)


def test_every_closed_hour_of_every_region_is_fetched_once_byte_for_byte(house: House, lookup: Lookup) -> None:
    report = house.history(lookup.url)

    assert (report.listed, report.loaded, report.pending) == (66, 66, 0)
    assert (report.records, report.events, report.duplicates) == (180, 180, 0)
    by_id = {row["event_id"]: row for row in house.events()}
    text = some("us-east-1", 60, minutes=1)[7]
    assert {"errorCode": None} | json.loads(rebuild(by_id["us-east-1-7"])) == json.loads(text)
    assert by_id["us-east-1-7"]["request_parameters"] == '{"n": 1.0, "a":[ ]}'
    assert by_id["us-east-1-7"]["user_identity"] == '{"type":"IAMUser", "userName": "zoë \\u00e9"}'
    assert by_id["us-east-1-7"]["source_key"] == f"LookupEvents/{ACCOUNT}/us-east-1/2026/03/10/10"
    assert set(house.state.ledger.historical_batches({row["batch_id"] for row in by_id.values()}))

    asked = lookup.asked.total()
    again = house.history(lookup.url)
    assert (again.listed, again.already_loaded, again.loaded, lookup.asked.total()) == (66, 66, 0, asked)


@IN_A_FOLDER
def test_an_hour_that_may_still_change_is_left_for_later(house: House, lookup: Lookup) -> None:
    files = list(hours.closed(ACCOUNT, ["eu-west-1"], Window(NOW - timedelta(days=1), NOW), NOW))

    assert files[0].key.endswith("2026/03/10/10")  # 11 to 12 ended ten minutes ago
    assert files[-1].key.endswith("2026/03/09/13")  # begun before the window: not whole
    house.now = NOW + timedelta(minutes=30)
    house.history(lookup.url)
    assert house.history(lookup.url).already_loaded == 69


def test_a_key_names_its_hour_and_every_hour_has_one_key() -> None:
    window = Window(datetime(2026, 2, 27, 22), datetime(2026, 3, 1, 2))
    files = list(hours.closed(ACCOUNT, REGIONS, window, NOW))
    named = [hours.parse(file.key) for file in files]

    assert len(set(named)) == len(files) == 28 * 3
    assert [one and (one.start, one.region) for one in named[:2]] == [
        (datetime(2026, 3, 1, 1), "eu-west-1"),
        (datetime(2026, 3, 1, 1), "us-east-1"),
    ]
    assert all(one and one.start.date() == file.day for one, file in zip(named, files, strict=True))
    for stranger in ("", "LookupEvents/1/eu-west-1/2026/03/01/01", f"LookupEvents/{ACCOUNT}/x/2026/13/01/01"):
        assert hours.parse(stranger) is None


def test_killed_halfway_and_resumed_every_event_is_there_once_and_its_log_files_add_nothing(
    tmp_path: Path, lookup: Lookup
) -> None:
    lookup.records = {region: some(region, 500) for region in REGIONS}
    lookup.held = lambda total: total == 45
    victim = subprocess.Popen([sys.executable, "-m", "tests.test_history", str(tmp_path), lookup.url], cwd=ROOT)
    assert lookup.holding.wait(300)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    lookup.held = lambda total: False

    house = House(tmp_path, open_lake(f"{tmp_path}/lake"))
    before = house.state.ledger.counts("acme")
    assert before["planned"], "it was killed in the middle of a batch"
    assert 0 < before["loaded"] < 66
    report = house.history(lookup.url)
    assert (report.carried, report.pending, report.quarantined) == (0, 0, 0)
    assert report.already_loaded == before["loaded"]
    rows = house.events()
    assert len(rows) == len({row["event_id"] for row in rows}) == 1500

    bucket = tmp_path / "bucket"
    for region, records in lookup.records.items():
        deliver(bucket, region, records)
    delivered = sync(ACME, bucket=FolderBucket(bucket, clock=lambda: NOW), **house.parts())
    assert (delivered.records, delivered.events, delivered.duplicates, delivered.conflicts) == (1500, 0, 1500, 0)
    assert len(house.events()) == 1500
    house.state.close()


def deliver(bucket: Path, region: str, records: list[str]) -> None:
    """The same events as log files: other spacing and order of keys, and no field without a value."""
    path = bucket / f"AWSLogs/{ACCOUNT}/CloudTrail/{region}/2026/03/10/{ACCOUNT}_CloudTrail_{region}_x.json.gz"
    path.parent.mkdir(parents=True)
    parsed = [sorted(json.loads(text).items()) for text in records]
    kept = [{name: value for name, value in fields if value is not None} for fields in parsed]
    path.write_bytes(gzip.compress(json.dumps({"Records": kept}, separators=(",", ":")).encode(), mtime=0))


@IN_A_FOLDER
@pytest.mark.parametrize("fetched", [True, False])
def test_first_seen_detections_know_the_account_from_the_first_sync_on(
    house: House, lookup: Lookup, tmp_path: Path, fetched: bool
) -> None:
    days = [NOW - timedelta(days=day, hours=3) for day in range(20)]
    lookup.records = {"eu-west-1": [record("eu-west-1", number, at) for number, at in enumerate(days)]}
    only = {path.stem for path in resources.detections_dir().rglob("*.sql")} - {"unusual_region"}
    house.corpus = Corpus.load((resources.detections_dir(),), disable=only)
    if fetched:
        assert house.history(lookup.url, days=21, regions=("eu-west-1",)).events == 20
        assert all(alert.historical for alert in house.state.alerts.list())
    deliver(tmp_path / "bucket", "eu-west-1", lookup.records["eu-west-1"][:1])
    bucket = FolderBucket(tmp_path / "bucket", clock=lambda: NOW)
    sync(ACME, bucket=bucket, **house.parts())  # the first one: of what is there already
    started = record("ap-south-1", 1, NOW - timedelta(minutes=9)).replace("DescribeInstances", "RunInstances")
    deliver(tmp_path / "bucket", "ap-south-1", [started])
    sync(ACME, bucket=bucket, **house.parts())

    alerts = [alert.detection for alert in house.state.alerts.list() if not alert.historical]
    assert alerts == (["unusual_region"] if fetched else [])


def test_a_sync_leaves_unfinished_hours_to_the_next_fetch(house: House, lookup: Lookup, tmp_path: Path) -> None:
    cut = house.history(lookup.url, at_most=timedelta())
    assert (cut.loaded, cut.pending) == (0, 66)
    (tmp_path / "bucket").mkdir()

    synced = sync(ACME, bucket=FolderBucket(tmp_path / "bucket"), **house.parts())
    assert (synced.carried, synced.gone, synced.pending) == (0, 0, 0)
    assert house.history(lookup.url).loaded == 66


@IN_A_FOLDER
def test_throttling_is_waited_out(house: House, lookup: Lookup) -> None:
    lookup.errors = lambda region, number: "ThrottlingException" if number == 2 else None

    assert house.history(lookup.url).events == 180


def test_requests_to_a_region_keep_their_distance() -> None:
    now, waits = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds

    with served(Lookup({"eu-west-1": some("eu-west-1", 60, minutes=1)})) as lookup:
        fetched = History(Session(ACME, endpoint_url=lookup.url), clock=lambda: NOW, tick=lambda: now, sleep=sleep)
        for region in ("eu-west-1", "us-east-1"):
            fetched.read(f"LookupEvents/{ACCOUNT}/{region}/2026/03/10/10")

    assert lookup.asked == {"eu-west-1": 2, "us-east-1": 1}
    assert waits == [0.5], "the second page waits half a second, the other region's first not at all"


@IN_A_FOLDER
def test_denied_says_which_permission_is_missing_and_loses_nothing(house: House, lookup: Lookup) -> None:
    lookup.errors = lambda region, number: "AccessDeniedException"
    with pytest.raises(AccessError, match="cloudtrail:LookupEvents is denied") as refused:
        house.history(lookup.url)
    assert "Allow cloudtrail:LookupEvents" in refused.value.remedy

    lookup.errors = lambda region, number: None
    assert house.history(lookup.url).events == 180


@IN_A_FOLDER
@pytest.mark.parametrize("code", ["InvalidNextTokenException", "ExpiredTokenException"])
def test_token_that_expires_in_an_hour_has_the_hour_fetched_again(house: House, lookup: Lookup, code: str) -> None:
    lookup.errors = lambda region, number: code if number == 2 else None  # the second page of the busy hour

    report = house.history(lookup.url, regions=("eu-west-1",))

    assert (report.events, report.duplicates) == (60, 0)
    asked = [question for _, question in lookup.questions[:4]]
    assert ["NextToken" in question for question in asked] == [False, True, False, True]


def test_token_that_always_expires_is_told(lookup: Lookup) -> None:
    lookup.errors = lambda region, number: "ExpiredTokenException"

    with pytest.raises(AccessError, match="have expired"):
        source(lookup.url).read(f"LookupEvents/{ACCOUNT}/eu-west-1/2026/03/10/10")
    assert lookup.asked["eu-west-1"] == 3


def test_what_stays_throttled_is_left_to_the_next_run(lookup: Lookup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kyra_etl.aws.history.ATTEMPTS", 1)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    lookup.errors = lambda region, number: "ThrottlingException"

    with pytest.raises(TransientError, match="slow down"):
        source(lookup.url).read(f"LookupEvents/{ACCOUNT}/eu-west-1/2026/03/10/10")


def test_hours_out_of_reach_and_of_other_accounts_are_not_asked_for(lookup: Lookup) -> None:
    fetched = source(lookup.url)

    with pytest.raises(ObjectGone, match="90 days"):
        fetched.read(f"LookupEvents/{ACCOUNT}/eu-west-1/2025/03/10/10")
    with pytest.raises(ObjectError, match="another account"):
        fetched.read("LookupEvents/999999999999/eu-west-1/2026/03/10/10")
    assert not lookup.asked


@IN_A_FOLDER
def test_two_fetches_of_one_account_do_not_double_the_pace(house: House, lookup: Lookup) -> None:
    with house.state.leases.take(f"history:{ACCOUNT}", "somebody", 60) or pytest.fail("free"):
        assert "another run" in str(house.history(lookup.url).skipped)
    assert not lookup.asked


@IN_A_FOLDER
def test_pausing_ends_a_fetch_after_the_batch_it_is_at(house: House, lookup: Lookup) -> None:
    house.state.integrations.add(ACME, NOW)
    lookup.errors = lambda region, number: house.state.integrations.pause("acme", True) if number == 1 else None
    report = house.history(lookup.url)

    assert (report.loaded, report.pending) == (3, 63)


@IN_A_FOLDER
def test_more_days_than_aws_keeps_are_refused(house: House, lookup: Lookup) -> None:
    with pytest.raises(UsageError, match="1 to 90"):
        house.history(lookup.url, days=91)


def test_regions_are_those_of_the_bucket_and_of_global_services(lookup: Lookup, tmp_path: Path) -> None:
    fetched = source(lookup.url)
    for region in ("eu-west-1", "eu-north-1"):
        deliver(tmp_path / "own", region, [])
        deliver(tmp_path / "org", region, [])
    (tmp_path / "org/AWSLogs/o-abc1234567").mkdir(parents=True)
    (tmp_path / f"org/AWSLogs/{ACCOUNT}").rename(tmp_path / f"org/AWSLogs/o-abc1234567/{ACCOUNT}")

    found = ["eu-north-1", "eu-west-1", "us-east-1"]
    assert fetched.regions(ACCOUNT, FolderBucket(tmp_path / "own"), "") == found
    assert fetched.regions(ACCOUNT, FolderBucket(tmp_path / "org"), "") == found
    everywhere = fetched.regions(ACCOUNT, FolderBucket(tmp_path / "missing"), "")
    assert {"eu-west-1", "us-east-1", "sa-east-1"} <= set(everywhere)
    assert not any(region.startswith(("cn-", "us-gov-")) for region in everywhere)


def test_regions_that_refuse_are_left_out_unless_all_do(lookup: Lookup) -> None:
    refusals = {"ap-east-1": "UnrecognizedClientException", "us-east-1": "AccessDeniedException"}
    lookup.errors = lambda region, number: refusals.get(region)
    found = source(lookup.url).survey(["eu-west-1", "ap-east-1", "us-east-1"])

    assert found["eu-west-1"] == ""
    assert found["ap-east-1"] == "The account has not enabled ap-east-1."
    assert "cloudtrail:LookupEvents is denied" in found["us-east-1"]
    with pytest.raises(AccessError):
        source(lookup.url).survey(["us-east-1"])


if __name__ == "__main__":
    house = House(Path(sys.argv[1]), open_lake(f"{sys.argv[1]}/lake"))
    house.history(sys.argv[2])
