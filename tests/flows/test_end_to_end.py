"""`kyra serve`, really started: a Prefect server, its schedule, runs on demand, artifacts, and a clean end."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import orphans
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.flows.server import Server, processes_below
from tests.ports import free_port

ACCOUNT = "012345678901"
TODAY = datetime.now(UTC).date()
LONG_AGO = TODAY - timedelta(days=60)  # no sync looks there any more


def put(bucket: Path, day: date, name: str, *events: dict[str, Any]) -> None:
    """A log file of one account and day, as CloudTrail names it; complete before it has its name."""
    folder = bucket / f"AWSLogs/{ACCOUNT}/CloudTrail/us-east-1/{day:%Y/%m/%d}"
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        {
            "eventVersion": "1.11",
            "eventTime": f"{day}T00:00:{number:02d}Z",
            "eventID": f"{name}-{number}",
            "eventSource": "ec2.amazonaws.com",
            "eventName": "DescribeInstances",
            "awsRegion": "us-east-1",
            "recipientAccountId": ACCOUNT,
            "sourceIPAddress": "198.51.100.7",
            "readOnly": True,
            "userIdentity": {
                "type": "IAMUser",
                "arn": f"arn:aws:iam::{ACCOUNT}:user/kim",
                "accountId": ACCOUNT,
                "userName": "kim",
            },
            **event,
        }
        for number, event in enumerate(events)
    ]
    path = folder / f"{ACCOUNT}_CloudTrail_us-east-1_{day:%Y%m%d}T0000Z_{name}.json.gz"
    path.with_suffix(".part").write_bytes(gzip.compress(json.dumps({"Records": records}).encode()))
    path.with_suffix(".part").replace(path)


STOPPED = {
    "eventSource": "cloudtrail.amazonaws.com",
    "eventName": "StopLogging",
    "readOnly": False,
    "requestParameters": {"name": f"arn:aws:cloudtrail:us-east-1:{ACCOUNT}:trail/main"},
}


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def server(kyra_home: Path, bucket: Path) -> Iterator[Server]:
    """`kyra serve` over one integration: a folder with ten log files of nine days, syncing every ten seconds."""
    for ago in range(1, 9):
        put(bucket, TODAY - timedelta(days=ago), f"past{ago}", {})
    put(bucket, TODAY, "one", {}, {}, STOPPED)
    put(bucket, TODAY, "two", {}, {})
    state = State.open(str(kyra_home / "state.db"))
    state.integrations.add(Integration("acme", bucket.as_uri(), account_id=ACCOUNT), state.now())
    state.close()
    started = Server(kyra_home, free_port())
    yield started
    started.kill()


def events_in(home: Path) -> tuple[int, int]:
    """Rows and distinct ids in the lake, read as anybody would."""
    files = f"{home}/lake/events/*/*/*.parquet"
    (counts,) = duckdb.sql(f"SELECT count(*), count(DISTINCT event_id) FROM read_parquet('{files}')").fetchall()
    return counts


def sleeping_for(run: str) -> subprocess.Popen[bytes]:
    """A process such as Prefect's runner starts for a run."""
    program = [sys.executable, "-c", "import time; time.sleep(300)"]
    return subprocess.Popen(program, env={**os.environ, "PREFECT__FLOW_RUN_ID": run})


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_serve_syncs_on_schedule_and_on_demand_backfills_and_ends_clean(
    server: Server, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = server.wait(lambda: len(server.deployments()) == 4 and server.deployments(), "the deployments", 400)
    assert set(found) == {"sync", "backfill", "check", "maintain"}
    assert found["sync"]["schedules"][0]["schedule"]["interval"] == 10
    with urllib.request.urlopen(f"{server.url.removesuffix('/api')}/", timeout=120) as page:
        assert (page.headers.get_content_type(), b"<title>Prefect" in page.read()) == ("text/html", True)
    assert list((server.home / "prefect/ui").glob("*/index.html")), "not beside Prefect's code, which may be root's"

    # On schedule, by itself; beside it, the next one may have been skipped.
    def scheduled() -> dict[str, Any] | None:
        of_sync = {"deployment_id": {"any_": [found["sync"]["id"]]}, "state": {"name": {"any_": ["Completed"]}}}
        done = server.ask("flow_runs/filter", flow_runs=of_sync)
        return next((run for run in done if run["auto_scheduled"] and "13 new events" in run["state"]["message"]), None)

    first = server.wait(scheduled, "a scheduled sync", 400)
    assert events_in(server.home) == (13, 13)
    assert first["name"].startswith("sync ")
    assert first["state"]["message"].startswith("acme: 10 log files loaded, 13 new events, 1 new alert")
    report = next(table for table in server.artifacts("sync-report") if table["flow_run_id"] == first["id"])
    (row,) = json.loads(report["data"])
    assert (row["integration"], row["loaded"], row["events"], row["adds up"]) == ("acme", 10, 13, "yes")
    assert "listed by" in row["why"]
    (alerts,) = server.artifacts("sync-alerts")
    assert [alert["title"] for alert in json.loads(alerts["data"])] == ["CloudTrail Disabled"]

    # What happened can be counted and read by machines.
    with urllib.request.urlopen(server.metrics, timeout=120) as answer:
        scrape = answer.read().decode()
    assert 'kyra_events_total{integration="acme"} 13.0' in scrape

    def in_the_log() -> dict[str, Any] | None:
        """It gets there by way of Prefect's runner, which may be after the run has ended."""
        complete, _, _ = (server.home / "logs" / "serve.log").read_text().rpartition("\n")
        lines = [json.loads(line) for line in complete.splitlines() if line.startswith("{")]
        return next((line for line in lines if line["message"].startswith("Committed 10 log files")), None)

    committed = server.wait(in_the_log, "the line of the commit")
    assert committed["integration"] == "acme"
    assert committed.keys() >= {"time", "level", "logger", "run", "batch"}

    # And automations can react.
    def told() -> set[str]:
        found = server.ask("events/filter", filter={"event": {"prefix": ["kyra."]}})["events"]
        return {event["event"] for event in found}

    server.wait(lambda: told() >= {"kyra.alert.opened", "kyra.integration.connected"}, "the events", 400)

    # On demand, two at once beside the schedule: every log file is loaded by one of them.
    put(bucket, TODAY, "three", {}, {}, {})
    put(bucket, TODAY, "another", {})
    put(bucket, LONG_AGO, "old", {}, {})
    both = [server.start("sync", integration="acme"), server.start("sync")]
    backfill = server.start("backfill", integration="acme", start=f"{LONG_AGO}", end=f"{LONG_AGO + timedelta(days=2)}")
    mistaken = server.start("sync", integration="acne")
    inverted = server.start("backfill", integration="acme", start="2020-01-02", end="2020-01-01")
    to_come = server.start("backfill", integration="acme", start=f"{TODAY + timedelta(days=9)}", end="9999-12-31")
    for run in map(server.ended, both):
        assert run["state"]["type"] == "COMPLETED", run["state"]
    server.wait(lambda: events_in(server.home)[0] >= 17, "the new events", 400)

    # A range of dates, as the form of the UI sends it.
    assert server.ended(backfill)["state"]["type"] == "COMPLETED", server.run(backfill)["state"]
    empty = server.start("backfill", integration="acme", start="2020-01-01", end="2020-01-02")  # one at a time
    assert server.run(backfill)["state"]["message"] == "acme: 1 log file loaded, 2 new events, 0 new alerts"
    report = next(table for table in server.artifacts("backfill-report") if table["flow_run_id"] == backfill)
    assert [row["day"] for row in json.loads(report["data"])] == [f"{LONG_AGO + timedelta(days=n)}" for n in range(3)]
    bars = server.artifacts("backfill-progress")
    assert [bar["data"] for bar in bars if bar["flow_run_id"] == backfill] == [100]
    with pytest.raises(urllib.error.HTTPError, match="409"):
        server.start("backfill", integration="acme", start=f"{LONG_AGO}")

    # What fails says what to do.
    state = server.ended(mistaken)["state"]
    assert state["type"] == "FAILED"
    assert "acme" in state["message"]
    assert "Traceback" not in state["message"]

    assert "there is no log file of these days" in server.ended(empty)["state"]["message"]
    for run, says in ((inverted, "The range is empty"), (to_come, "The range lies in the future")):
        state = server.ended(run)["state"]
        assert state["type"] == "FAILED"
        assert state["message"].startswith(f"acme: {says}")

    # Runs that Prefect's runner has lost sight of: a process of ours stands in for two of them. Beside them one that
    # somebody runs by hand, and one of another flow. No sync begins meanwhile, which might have no process for a while.
    server.ask(f"deployments/{found['sync']['id']}/pause_deployment")
    server.wait(lambda: server.going_on() == 0, "the end of the last sync", 400)
    ids = {key: found["check"][key] for key in ("id", "flow_id")}
    of_ours, theirs = (
        {"flow_id": ids["flow_id"], "deployment_id": ids["id"]},
        server.ask("flows/", name="not ours")["id"],
    )
    dead, alive, cancelled, by_hand, other = (
        server.ask("flow_runs/", **of, name=name, state={"type": state})["id"]
        for name, state, of in (
            ("dead", "RUNNING", of_ours),
            ("alive", "RUNNING", of_ours),
            ("cancelled", "CANCELLING", of_ours),
            ("by hand", "RUNNING", {"flow_id": ids["flow_id"]}),
            ("other", "RUNNING", {"flow_id": theirs}),
        )
    )
    lost = {run: sleeping_for(run) for run in (alive, cancelled)}
    monkeypatch.setattr(orphans, "PATIENCE", timedelta(seconds=5))
    time.sleep(6)
    runner = next(pid for pid, command in processes_below(server.process.pid) if "flows.deployments" in command)
    with temporary_settings({PREFECT_API_URL: server.url}):
        living = {**(orphans.processes(runner) or {}), **(orphans.processes(os.getpid()) or {})}
        assert set(lost) <= set(living)
        assert orphans.close_orphaned_runs(datetime.now(UTC), None) == 0, "where the system tells nothing"
        assert orphans.close_orphaned_runs(datetime.now(UTC), living) == 2
    assert server.run(dead)["state"]["message"].startswith("Its process ended while Prefect's server was away")
    states = {run: server.run(run)["state"]["type"] for run in (dead, alive, cancelled, by_hand, other)}
    assert [*states.values()] == ["CRASHED", "RUNNING", "CANCELLED", "RUNNING", "RUNNING"]
    assert lost[cancelled].wait(60) == -signal.SIGKILL
    assert lost[alive].poll() is None
    lost[alive].kill()
    lost[alive].wait()

    code, said = server.stop()

    assert code == 0
    assert server.url.removesuffix("/api") in said
    assert "every 10 seconds" in said
    assert str(server.home / "logs" / "serve.log") in said
    assert events_in(server.home) == (19, 19)
    with pytest.raises(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=5):
        pass


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_syncs_go_on_while_more_backfills_are_wanted_than_run_at_a_time(server: Server, tmp_path: Path) -> None:
    server.wait(lambda: len(server.deployments()) == 4, "the deployments", 400)
    names = [f"long{number}" for number in range(6)]
    with State.open(str(server.home / "state.db")) as state:
        for name in names:
            (tmp_path / name).mkdir()
            state.integrations.add(Integration(name, (tmp_path / name).as_uri(), account_id=ACCOUNT), state.now())
    runs = [server.start("backfill", integration=name, start="1970-01-01", end=f"{TODAY}") for name in names]

    def states() -> list[str]:
        return [server.run(run)["state"]["type"] for run in runs]

    server.wait(lambda: states().count("RUNNING") == 2, "the first backfills", 400)
    begun = datetime.now(UTC).isoformat()
    sync = server.deployments()["sync"]["id"]

    def later() -> bool:
        of_sync = {"deployment_id": {"any_": [sync]}, "state": {"type": {"any_": ["COMPLETED"]}}}
        done = server.ask("flow_runs/filter", flow_runs={**of_sync, "start_time": {"after_": begun}})
        return len(done) >= 2

    server.wait(later, "syncs beside the backfills", 400)
    assert sorted(states()) == ["RUNNING"] * 2 + ["SCHEDULED"] * 4
    code, _ = server.stop()
    assert code == 0
    assert not list(processes_below(server.process.pid))
