"""What status says in every situation an operator meets: one sentence each, with cause, object and next step.

Each situation is made in a real state database, by what a sync, a check or a fetch would have written there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kyra_etl.cloudtrail import hours
from kyra_etl.model import Batch, Commit, DataFile, FileOutcome, Folder, Integration, LogFile, Probe, RunReport
from kyra_etl.state import State
from kyra_etl.status import rows, status

NOW = datetime(2026, 3, 20, 12)
NAME = "prod"
BUCKET = "example-logs"
ACCOUNT, OTHER = "111122223333", "444455556666"
ARN = f"arn:aws:cloudtrail:eu-west-1:{ACCOUNT}:trail/everything"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(str(tmp_path / "state.db")) as state:
        state.integrations.add(Integration(NAME, BUCKET, account_id=ACCOUNT), NOW - timedelta(days=40))
        yield state


def one(state: State, now: datetime = NOW, **more: Any) -> dict[str, Any]:
    (found,) = status(state, now, every=timedelta(minutes=5), **more)["integrations"]
    return found


def sync(state: State, at: datetime = NOW, error: str | None = None, **counts: Any) -> str:
    run_id = state.runs.start("sync", NAME, at)
    report = None if error else RunReport(run_id, "sync", NAME, at, at, **counts)
    state.runs.finish(run_id, report, state="failed" if error else "succeeded", error=error, now=at)
    return run_id


def files(database: State, count: int = 1, at: datetime = NOW, **outcome: Any) -> None:
    """So many log files, loaded (or what `outcome` says, or left waiting without one)."""
    found = [LogFile(f"AWSLogs/{at:%d%H%M}-{number}", "e", 10, at) for number in range(count)]
    run_id = database.runs.start("sync", NAME, at)
    for page in (found[start : start + 1000] for start in range(0, count, 1000)):
        database.ledger.observe(run_id, NAME, BUCKET, page, "listed", at)
    if not outcome:
        return
    batch = planned(database, run_id, at)
    outcomes = tuple(FileOutcome(entry.id, **outcome) for entry in batch.entries)
    day = at.date()
    data = DataFile("activity", f"a/{at:%H%M}", "s", 1, 1, ACCOUNT, day)
    loaded = outcome["state"] == "loaded"
    database.ledger.commit(
        Commit(batch, outcomes, (data,) if loaded else (), {(ACCOUNT, day): 0} if loaded else {}), at
    )


def planned(state: State, run_id: str, at: datetime) -> Batch:
    entries = state.ledger.workable(run_id)
    batch = state.ledger.plan(
        run_id, NAME, entries[0].bucket, entries, owner="me", lease_seconds=60, historical=False, now=at
    )
    assert batch is not None
    return batch


def trail(name: str = "everything", **more: Any) -> dict[str, Any]:
    known = {"name": name, "arn": ARN, "bucket": BUCKET, "home_region": "eu-west-1", "multi_region": True}
    return {**known, "logging": True, **more}


def region(account: str, name: str, delivered: datetime, *, pause: float | None = 900, days: int = 30) -> Folder:
    return Folder(
        f"AWSLogs/{account}/CloudTrail/{name}/",
        account,
        name,
        "CloudTrail",
        listed_at=NOW,
        last_delivered_at=delivered,
        day_folders=days,
        usual_pause=pause,
    )


def works(state: State, synced: datetime = NOW) -> None:
    """Everything is as it should be."""
    files(state, state="loaded", records=200, events=200)
    sync(state, synced, records=200, loaded=1, lag_p50=240.0, lag_p95=400.0, lag_max=500.0)
    here = [region(ACCOUNT, "eu-west-1", NOW - timedelta(minutes=4)), region(OTHER, "eu-west-1", NOW)]
    state.ledger.save_listing(NAME, here, requests=4, day=NOW.date())
    state.integrations.save_trails(NAME, [trail()], NOW)
    state.integrations.save_check(NAME, [Probe("list", True, "ok")], NOW - timedelta(minutes=40))


def never_synced(state: State) -> None:
    pass


def late(state: State) -> None:
    works(state, synced=NOW - timedelta(hours=7))


def trail_stopped(state: State) -> None:
    works(state)
    state.integrations.save_trails(NAME, [trail(logging=False)], NOW)


def access_revoked(state: State) -> None:
    works(state)
    sync(state, NOW + timedelta(minutes=1), "s3://example-logs may not be listed (AccessDenied). Allow s3:ListBucket.")


def kms_revoked(state: State) -> None:
    works(state)
    why = "s3://example-logs/k: the KMS key that encrypts it may not be used (AccessDenied). Allow kms:Decrypt."
    files(state, 12, NOW - timedelta(minutes=3), state="quarantined", reason="kms_denied", detail=why)


def quarantine_grows(state: State) -> None:
    works(state)
    files(state, 5, NOW - timedelta(days=3), state="quarantined", reason="corrupt_gzip", detail="x")
    files(state, 2, NOW - timedelta(hours=3), state="quarantined", reason="not_json", detail="x")


def account_silent(state: State) -> None:
    works(state)
    gone = [region(OTHER, name, NOW - timedelta(hours=9)) for name in ("eu-west-1", "us-east-1")]
    state.ledger.save_listing(NAME, gone, requests=0, day=NOW.date())


def backlog(state: State) -> None:
    works(state)
    files(state, 1_500, NOW - timedelta(minutes=2))


def two_trails(state: State) -> None:
    works(state, synced=NOW - timedelta(minutes=5))
    sync(state, NOW, records=400, duplicates=200, loaded=2)
    state.integrations.save_trails(NAME, [trail(), trail("security", arn=f"{ARN}-2")], NOW)


SITUATIONS: dict[Callable[[State], None], tuple[str, str, str]] = {
    never_synced: ("Pending", "It was never synced.", "kyra sync prod"),
    works: ("Connected", "Log files arrive from example-logs, the newest 0 s ago.", "kyra alerts list"),
    late: ("Degraded", "It was not synced for 7 h; one is due every 5 min.", "kyra sync prod, or kyra serve"),
    trail_stopped: (
        "Degraded",
        "Trail everything is not logging: what happens leaves no record.",
        f"aws cloudtrail start-logging --name {ARN}",
    ),
    access_revoked: (
        "Failed",
        "The last sync failed: s3://example-logs may not be listed (AccessDenied). Allow s3:ListBucket.",
        "kyra check prod",
    ),
    kms_revoked: (
        "Degraded",
        "12 log files cannot be decrypted: s3://example-logs/k: the KMS key that encrypts it may not be used",
        "kyra quarantine retry --integration prod",
    ),
    quarantine_grows: (
        "Degraded",
        "7 log files in quarantine, 2 of them new within a day: 5 corrupt_gzip, 2 not_json.",
        "kyra quarantine list --integration prod",
    ),
    account_silent: (
        "Degraded",
        "Account 444455556666 went silent in eu-west-1, us-east-1: nothing since 2026-03-20 03:00, where a pause is"
        " 15 min at most.",
        "kyra check prod",
    ),
    backlog: ("Degraded", "1,500 log files of example-logs wait to be loaded.", "kyra sync prod"),
    two_trails: (
        "Connected",
        "Trails everything and security both deliver to example-logs (50% of the last sync's records were duplicates)",
        "kyra costs prod",
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_each_situation_has_its_sentence_and_its_next_step(state: State, situation: Callable[[State], None]) -> None:
    situation(state)
    found = one(state)
    called, reason, next_step = SITUATIONS[situation]

    assert found["state"] == called
    assert found["reason"].startswith(reason)
    assert found["next_step"].startswith(next_step)


def test_no_two_situations_are_told_alike() -> None:
    assert len({reason for _, reason, _ in SITUATIONS.values()}) == len(SITUATIONS) == 10


def test_what_explains_most_comes_first_and_the_rest_is_told_too(state: State) -> None:
    quarantine_grows(state)
    account_silent_only = [region(OTHER, "eu-west-1", NOW - timedelta(hours=9))]
    state.ledger.save_listing(NAME, account_silent_only, requests=0, day=NOW.date())
    state.integrations.save_trails(NAME, [trail(logging=False)], NOW)
    found = one(state)

    assert found["reason"].startswith("Trail everything is not logging")
    assert [more["reason"].split()[0] for more in found["also"]] == ["7", "Account"]


# ── no events appear: the walk ──


def nothing_found(state: State, *probes: Probe, **report: Any) -> dict[str, Any]:
    state.integrations.save_check(NAME, list(probes), NOW - timedelta(minutes=30))
    sync(state, **report)
    return one(state)


def test_no_events_because_logging_is_off(state: State) -> None:
    state.integrations.save_trails(NAME, [trail(logging=False)], NOW)
    found = nothing_found(state, Probe("logging", False, "Trail everything is not logging."))

    assert found["reason"] == "No events appear: trail everything is not logging."
    assert found["next_step"].startswith("aws cloudtrail start-logging --name arn:")


@pytest.mark.parametrize(
    ("probe", "cause"),
    [
        (
            Probe("list", False, "s3://example-logs may not be listed.", "Allow s3:ListBucket."),
            "a permission is missing",
        ),
        (Probe("bucket", False, "s3://example-logs lives in eu-west-1.", "Give --region."), "in another region"),
        (Probe("layout", False, "There is no account's folder.", "Compare --prefix."), "wrong --prefix or --bucket"),
        (
            Probe("trail", False, "Trail x delivers under y/.", "Give --prefix y."),
            "wrong bucket, prefix or account layout",
        ),
        (Probe("of_tomorrow", False, "Something.", ""), "the check of_tomorrow fails"),
    ],
    ids=lambda value: value.name if isinstance(value, Probe) else "",
)
def test_no_events_because_of_what_the_check_found(state: State, probe: Probe, cause: str) -> None:
    found = nothing_found(state, Probe("identity", True, "ok"), probe)

    assert found["state"] == "Pending"
    assert found["reason"].startswith("No events appear: ")
    assert cause in found["reason"]
    assert found["reason"].endswith(probe.detail)
    assert found["next_step"] == (probe.remedy or "kyra check prod")


def test_no_events_because_the_trail_is_minutes_old(state: State) -> None:
    state.integrations.add(Integration("new", BUCKET), NOW - timedelta(minutes=5))
    state.integrations.save_check("new", [Probe("layout", False, "No folder.", "-")], NOW - timedelta(minutes=4))
    run_id = state.runs.start("sync", "new", NOW)
    state.runs.finish(run_id, RunReport(run_id, "sync", "new", NOW, NOW), state="succeeded", now=NOW)
    (found,) = status(state, NOW, "new")["integrations"]

    assert found["reason"] == (
        "No events appear yet: a trail's first log file reaches example-logs/AWSLogs/ after 5 to 15 minutes."
    )


def test_no_events_because_the_trail_sees_one_region(state: State) -> None:
    state.integrations.save_trails(NAME, [trail(multi_region=False)], NOW)
    found = nothing_found(state, Probe("list", True, "ok"))

    assert "records eu-west-1 alone" in found["reason"]
    assert found["next_step"].endswith("--is-multi-region-trail")


def test_no_events_because_the_folders_are_others(state: State) -> None:
    found = nothing_found(state, Probe("list", True, "ok"), ignored_by_kind={"digest": 24, "other": 3})

    assert "holds objects (24 digest, 3 other), but none in ACCOUNT/CloudTrail/REGION/" in found["reason"]


def test_no_events_and_nothing_wrong_leads_to_history(state: State) -> None:
    found = nothing_found(state, Probe("list", True, "ok"))

    assert "although every probe of the check passed" in found["reason"]
    assert found["next_step"].startswith("kyra backfill prod --from-history")


# ── what the check knows beside the syncs ──


def test_a_sync_that_works_does_not_contradict_what_the_check_says_of_the_trail(state: State) -> None:
    works(state)
    blind = Probe("selectors", False, "Trail everything records reads alone.", "Let it record writes.")
    state.integrations.save_check(NAME, [Probe("list", False, "-"), blind], NOW - timedelta(minutes=40))
    found = one(state)

    assert (found["state"], found["next_step"]) == ("Degraded", "Let it record writes.")
    assert found["reason"] == "The check selectors failed: Trail everything records reads alone."
    assert one(state, NOW + timedelta(hours=5))["reason"].startswith("The check selectors failed 5 h ago: ")


def test_detections_that_fail_are_named_with_why_the_first_does(state: State) -> None:
    works(state)
    run_id = state.runs.start("sync", NAME, NOW - timedelta(hours=1))
    state.ledger.observe(run_id, NAME, BUCKET, [LogFile("AWSLogs/more", "e", 10, NOW)], "listed", NOW)
    batch = planned(state, run_id, NOW)
    state.ledger.commit(Commit(batch, (), (), {}, detections=("a", "b", "c", "d", "e")), NOW)
    for detection in "abcde":
        state.queue.fail([(batch.batch_id, detection)], f"No column {detection}.", NOW)
    found = one(state)

    assert (found["state"], found["reason"]) == ("Degraded", "Detections fail: a, b, c and 2 more. No column a.")
    assert found["next_step"].startswith("kyra detections lint a")


def test_what_log_files_come_without_leaves_it_connected(state: State) -> None:
    works(state)
    state.integrations.save_check(NAME, [Probe("queue", False, "No such queue.", "Make it.")], NOW)
    found = one(state)

    assert (found["state"], found["next_step"]) == ("Connected", "Make it.")
    assert found["reason"] == "Log files arrive; beside them, the check queue failed: No such queue."


def test_a_trail_seen_stopped_hours_ago_is_told_with_the_age(state: State) -> None:
    works(state)
    state.integrations.save_trails(NAME, [trail(logging=False)], NOW - timedelta(hours=6))
    state.integrations.save_check(NAME, [Probe("logging", False, "Not logging.")], NOW - timedelta(hours=6))
    found = one(state)

    assert "is not logging (as of the check 6 h ago)" in found["reason"]
    assert found["next_step"].endswith("then kyra check prod")
    assert found["also"] == []


# ── what else there is to see ──


def test_silence_is_measured_by_each_regions_own_habit(state: State) -> None:
    works(state)
    here = [
        region(OTHER, "usually-quiet", NOW - timedelta(hours=20), pause=12 * 3600),
        region(OTHER, "unknown-habit", NOW - timedelta(days=3), pause=None),
        region(OTHER, "few-days", NOW - timedelta(days=3), days=5),
        region(OTHER, "busy", NOW - timedelta(minutes=50)),
        region(OTHER, "stopped", NOW - timedelta(minutes=70)),
    ]
    state.ledger.save_listing(NAME, here, requests=0, day=NOW.date())

    assert [row["region"] for row in one(state)["silent"]] == ["stopped"]


def test_late_delivery_and_list_budget_are_told(state: State) -> None:
    works(state, synced=NOW - timedelta(minutes=5))
    sync(state, loaded=1, records=9, lag_p50=7300.0, folders_waiting=12)

    found = one(state)
    assert found["reason"].startswith("12 folders of example-logs wait to be listed")
    assert found["also"][0]["reason"].startswith("Log files reach example-logs late: half of the last ones came 2 h")


def test_learning_detections_say_until_when(state: State) -> None:
    works(state)
    lengths = {"unusual_region": timedelta(days=14), "known_already": timedelta(0)}
    found = one(state, learning=lambda: lengths)

    assert found["learning"] == {
        "until": date(2026, 4, 3),
        "detections": 1,
        "accounts": 1,
        "by_detection": {"unusual_region": date(2026, 4, 3)},
    }
    assert found["reason"].endswith("1 detection learns until 2026-04-03.")
    assert one(state, NOW + timedelta(days=20), learning=lambda: lengths)["learning"] is None


def test_hours_of_history_are_not_taken_for_log_files(state: State) -> None:
    run_id = state.runs.start("backfill", NAME, NOW)
    state.ledger.observe(run_id, NAME, hours.BUCKET, [LogFile("LookupEvents/1", "closed", 0)], "listed", NOW)
    sync(state)
    found = one(state)

    assert (found["state"], found["ledger"]["pending"], found["history"]["pending"]) == ("Pending", 0, 1)
    assert rows(status(state, NOW))[0]["pending"] == 0
