"""What `kyra status` calls an integration, and what it says to do next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kyra_etl.errors import UnknownName
from kyra_etl.model import Integration, LogFile, Probe, RunReport
from kyra_etl.state import State
from kyra_etl.status import rows, status
from tests.cli.conftest import Kyra, put, record

NOW = datetime(2026, 1, 31, 12)
NAME = "prod"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(str(tmp_path / "state.db")) as state:
        state.integrations.add(Integration(NAME, "example-logs", external_id="secret-1", queue_url="secret-2"), NOW)
        yield state


def verdict(state: State, now: datetime = NOW) -> tuple[str, str, str]:
    (one,) = status(state, now)["integrations"]
    return one["state"], one["reason"], one["next_step"]


def synced(state: State, at: datetime = NOW, error: str | None = None, **counts: int) -> None:
    run_id = state.runs.start("sync", NAME, at)
    report = None if error else RunReport(run_id, "sync", NAME, at, at, **counts)
    state.runs.finish(run_id, report, state="failed" if error else "succeeded", error=error, now=at)


def test_never_synced_is_pending(state: State) -> None:
    assert verdict(state) == ("Pending", "It was never synced.", "kyra sync prod")


def test_synced_without_a_log_file_is_pending(state: State) -> None:
    synced(state)
    assert verdict(state)[1].startswith("No events appear yet: a trail's first log file reaches example-logs/AWSLogs/")

    later = NOW + timedelta(minutes=30)
    synced(state, later)
    assert verdict(state, later) == (
        "Pending",
        "No log file was found yet below example-logs/AWSLogs/.",
        "kyra check prod",
    )


def test_paused_comes_before_everything(state: State) -> None:
    synced(state, error="x")
    state.integrations.pause(NAME, True)

    assert verdict(state) == ("Paused", "It is paused: syncs leave it out.", "kyra integration resume prod")


def test_failed_sync_is_failed_until_the_next_one_works(state: State) -> None:
    synced(state, error="The bucket is gone.")
    assert verdict(state) == ("Failed", "The last sync failed: The bucket is gone.", "kyra check prod")

    synced(state, at=NOW + timedelta(minutes=5))
    assert verdict(state)[0] != "Failed"


def test_failed_check_says_what_to_change(state: State) -> None:
    probes = [Probe("identity", True, "ok"), Probe("list", False, "May not list.", "Allow s3:ListBucket.")]
    state.integrations.save_check(NAME, probes, NOW)
    assert verdict(state) == ("Failed", "The check list failed: May not list.", "Allow s3:ListBucket.")

    synced(state, at=NOW + timedelta(minutes=1))
    assert verdict(state)[0] == "Pending", "a sync that worked since tells more"

    state.integrations.save_check(NAME, probes, NOW + timedelta(minutes=2))
    assert verdict(state)[0] == "Degraded"


def test_unknown_integration_is_named(state: State) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'prod'"):
        status(state, NOW, "prd")


def test_report_is_flat_for_sql_and_free_of_secrets(state: State) -> None:
    report = status(state, NOW)

    assert rows(report)[0]["integration"] == NAME
    assert rows(report)[0]["state"] == "Pending"
    assert "secret" not in repr(report)


def test_connected_with_everything_an_operator_asks_for(kyra: Kyra, bucket: Path) -> None:
    kyra("integration", "add", NAME, "--bucket", bucket.as_uri())
    kyra("sync", NAME)
    (one,) = kyra("status", NAME, "--json").json["integrations"]

    assert (one["state"], one["events_processed"]) == ("Connected", 3)
    assert one["reason"].startswith(f"Log files arrive from {bucket.as_uri()}, the newest")
    assert one["also"] == []
    assert (one["ledger"]["loaded"], one["ledger"]["duplicates"]) == (2, 1)
    assert one["last_sync_age"] < 60
    assert [(row["account"], row["region"], row["day"]) for row in one["checkpoints"]] == [
        ("012345678901", "eu-west-1", "2026-01-10")
    ]
    assert one["lag"]["p50"] is not None
    shown = kyra("status")
    assert "Connected" in shown.out
    assert "012345678901  eu-west-1" in shown.out


def test_quarantine_and_silence_degrade(kyra: Kyra, bucket: Path, kyra_home: Path) -> None:
    kyra("integration", "add", NAME, "--bucket", bucket.as_uri())
    broken = put(bucket, "broken")
    broken.write_bytes(b"nonsense")
    assert kyra("sync", NAME).code == 3
    (one,) = kyra("status", "--json").json["integrations"]
    assert (one["state"], one["reason"], one["next_step"]) == (
        "Degraded",
        "1 log file in quarantine, 1 of them new within a day: 1 not_json.",
        "kyra quarantine list --integration prod",
    )

    put(bucket, "broken", record("e9"))
    assert kyra("sync", NAME).code in (0, 3)
    assert kyra("quarantine", "retry").code == 0


def test_last_sync_long_ago_degrades(kyra: Kyra, bucket: Path, kyra_home: Path) -> None:
    kyra("integration", "add", NAME, "--bucket", bucket.as_uri())
    kyra("sync", NAME)
    with State.open(str(kyra_home / "state.db")) as state:
        later = state.now() + timedelta(hours=5)

        (one,) = status(state, later, every=timedelta(minutes=5))["integrations"]
        assert (one["state"], one["due_every"]) == ("Degraded", 300)
        assert one["reason"] == "It was not synced for 5 h; one is due every 5 min."


def test_integration_that_is_synced_seldom_is_given_time(state: State) -> None:
    run_id = state.runs.start("sync", NAME, NOW)
    state.ledger.observe(run_id, NAME, "example-logs", [LogFile("k", "e", 1)], "listed", NOW)
    synced(state, at=NOW - timedelta(hours=6))
    synced(state)

    assert verdict(state, NOW + timedelta(hours=17))[0] == "Connected"
    assert verdict(state, NOW + timedelta(hours=19))[0] == "Degraded"


def test_a_region_s_habit_is_learnt_from_its_deliveries(kyra: Kyra, bucket: Path) -> None:
    for path in bucket.rglob("*.json.gz"):
        path.unlink()
    for hour, minute in ((1, 0), (1, 5), (3, 35), (3, 40)):
        put(bucket, f"1_CloudTrail_eu-west-1_20260110T{hour:02}{minute:02}Z_x", record(f"e{hour}{minute}"))
    kyra("integration", "add", NAME, "--bucket", bucket.as_uri())
    kyra("sync", NAME)
    (one,) = kyra("status", "--json").json["integrations"]

    assert [row["usual_pause"] for row in one["checkpoints"]] == [2.5 * 3600]


def test_watch_shows_it_anew_until_interrupted(kyra: Kyra, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kyra("integration", "add", NAME, "--bucket", bucket.as_uri())
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("kyra_etl.cli.status.time.sleep", sleep)
    ran = kyra("status", "--watch")

    assert (ran.code, ran.out.count("It was never synced."), len(waits)) == (0, 3, 3)
    assert kyra("status", "--watch", "--json").code == 2


def test_details_of_one_integration(kyra: Kyra, bucket: Path) -> None:
    kyra("integration", "add", NAME, "--bucket", bucket.as_uri())
    kyra("sync", NAME)
    shown = kyra("status", NAME).out

    assert "Delivery lag: p50" in shown
    assert "a sync is due every 5 min" in shown


def test_empty_installation_says_how_to_begin(kyra: Kyra) -> None:
    ran = kyra("status")
    assert (ran.code, ran.out) == (0, "")
    assert "kyra integration add" in ran.err
    assert kyra("status", "--json").json["integrations"] == []
