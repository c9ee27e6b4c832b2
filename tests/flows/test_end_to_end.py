"""`kyra serve`, really started: a Prefect server, its schedule, runs on demand, artifacts, and a clean end."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from kyra_etl.model import Integration
from kyra_etl.state import State

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "012345678901"
TODAY = datetime.now(UTC).date()
LONG_AGO = TODAY - timedelta(days=60)  # no sync looks there any more


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Server:
    """A running `kyra serve` and its API."""

    def __init__(self, home: Path, bucket: Path, port: int, **settings: str) -> None:
        self.home, self.bucket, self.url = home, bucket, f"http://127.0.0.1:{port}/api"
        self.metrics = f"http://127.0.0.1:{(metrics := free_port())}/metrics"
        env = {**os.environ, "KYRA_HOME": str(home), "KYRA_SYNC_SECONDS": "10", "KYRA_LOG_FORMAT": "json"}
        env |= {"KYRA_METRICS_PORT": str(metrics), **settings}
        command = [sys.executable, "-m", "flows.serve", "--port", str(port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)

    def ask(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        for again in (True, True, True, True, False):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503 or not again:  # "try again", while its SQLite is busy
                    raise
                time.sleep(1)

    def deployments(self) -> dict[str, dict[str, Any]]:
        try:
            return {found["name"]: found for found in self.ask("deployments/filter")}
        except (OSError, urllib.error.URLError):
            return {}

    def start(self, deployment: str, **parameters: Any) -> str:
        made = self.ask(f"deployments/{self.deployments()[deployment]['id']}/create_flow_run", parameters=parameters)
        return str(made["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        (found,) = self.ask("flow_runs/filter", flow_runs={"id": {"any_": [run_id]}})
        return dict(found)

    def ended(self, run_id: str, seconds: float = 180) -> dict[str, Any]:
        """The run, once it has come to its end."""
        self.wait(lambda: self.run(run_id)["state"]["type"] in ENDS, run_id, seconds)
        return self.run(run_id)

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        return list(self.ask("artifacts/filter", artifacts={"key": {"any_": [key]}}))

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.process.poll() is None, f"kyra serve ended; {self.log()}"
            if met := condition():
                return met
            time.sleep(0.5)
        pytest.fail(f"{what}: waited {seconds:.0f} s in vain; {self.log()}")

    def log(self) -> str:
        path = self.home / "logs" / "serve.log"
        return "the log ends with:\n" + (path.read_text()[-4000:] if path.exists() else "(nothing)")

    def stop(self) -> tuple[int, str]:
        """The exit code and what it told the terminal."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


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
def server(kyra_home: Path, tmp_path: Path) -> Iterator[Server]:
    """`kyra serve` over one integration: a folder with ten log files of nine days, syncing every ten seconds."""
    bucket = tmp_path / "bucket"
    for ago in range(1, 9):
        put(bucket, TODAY - timedelta(days=ago), f"past{ago}", {})
    put(bucket, TODAY, "one", {}, {}, STOPPED)
    put(bucket, TODAY, "two", {}, {})
    state = State.open(str(kyra_home / "state.db"))
    state.integrations.add(Integration("acme", bucket.as_uri(), account_id=ACCOUNT), state.now())
    state.close()
    started = Server(kyra_home, bucket, free_port())
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.communicate()


def events_in(home: Path) -> tuple[int, int]:
    """Rows and distinct ids in the lake, read as anybody would."""
    files = f"{home}/lake/events/*/*/*.parquet"
    (counts,) = duckdb.sql(f"SELECT count(*), count(DISTINCT event_id) FROM read_parquet('{files}')").fetchall()
    return counts


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_serve_syncs_on_schedule_and_on_demand_backfills_and_ends_clean(server: Server) -> None:
    found = server.wait(lambda: len(server.deployments()) == 4 and server.deployments(), "the deployments", 150)
    assert set(found) == {"sync", "backfill", "check", "maintain"}
    assert found["sync"]["schedules"][0]["schedule"]["interval"] == 10

    # On schedule, by itself; beside it, the next one may have been skipped.
    def scheduled() -> dict[str, Any] | None:
        of_sync = {"deployment_id": {"any_": [found["sync"]["id"]]}, "state": {"name": {"any_": ["Completed"]}}}
        done = server.ask("flow_runs/filter", flow_runs=of_sync)
        return next((run for run in done if run["auto_scheduled"] and "13 new events" in run["state"]["message"]), None)

    first = server.wait(scheduled, "a scheduled sync", 90)
    assert events_in(server.home) == (13, 13)
    assert first["name"].startswith("sync ")
    assert first["state"]["message"].startswith("acme: 10 log files loaded, 13 new events, 1 new alert")
    report = next(table for table in server.artifacts("sync-report") if table["flow_run_id"] == first["id"])
    (row,) = json.loads(report["data"])
    assert (row["integration"], row["loaded"], row["events"], row["adds up"]) == ("acme", 10, 13, "yes")
    (alerts,) = server.artifacts("sync-alerts")
    assert [alert["title"] for alert in json.loads(alerts["data"])] == ["CloudTrail Disabled"]

    # What happened can be counted and read by machines.
    with urllib.request.urlopen(server.metrics, timeout=30) as answer:
        scrape = answer.read().decode()
    assert 'kyra_events_total{integration="acme"} 13.0' in scrape
    lines = [
        json.loads(line)
        for line in (server.home / "logs" / "serve.log").read_text().splitlines()
        if line.startswith("{")
    ]
    committed = next(line for line in lines if line["message"].startswith("Committed 10 log files"))
    assert committed["integration"] == "acme"
    assert committed.keys() >= {"time", "level", "logger", "run", "batch"}

    # And automations can react.
    def told() -> set[str]:
        found = server.ask("events/filter", filter={"event": {"prefix": ["kyra."]}})["events"]
        return {event["event"] for event in found}

    server.wait(lambda: told() >= {"kyra.alert.opened", "kyra.integration.connected"}, "the events", 90)

    # On demand, two at once beside the schedule: every log file is loaded by one of them.
    put(server.bucket, TODAY, "three", {}, {}, {})
    put(server.bucket, TODAY, "another", {})
    put(server.bucket, LONG_AGO, "old", {}, {})
    both = [server.start("sync", integration="acme"), server.start("sync")]
    backfill = server.start("backfill", integration="acme", start=f"{LONG_AGO}", end=f"{LONG_AGO + timedelta(days=2)}")
    mistaken = server.start("sync", integration="acne")
    for run in map(server.ended, both):
        assert run["state"]["type"] == "COMPLETED", run["state"]
    server.wait(lambda: events_in(server.home)[0] >= 17, "the new events")

    # A range of dates, as the form of the UI sends it.
    assert server.ended(backfill)["state"]["type"] == "COMPLETED", server.run(backfill)["state"]
    assert server.run(backfill)["state"]["message"] == "acme: 1 log file loaded, 2 new events, 0 new alerts"
    (report,) = server.artifacts("backfill-report")
    assert [row["day"] for row in json.loads(report["data"])] == [f"{LONG_AGO + timedelta(days=n)}" for n in range(3)]
    assert [bar["data"] for bar in server.artifacts("backfill-progress")] == [100]
    with pytest.raises(urllib.error.HTTPError, match="409"):
        server.start("backfill", integration="acme", start=f"{LONG_AGO}")

    # What fails says what to do.
    state = server.ended(mistaken)["state"]
    assert state["type"] == "FAILED"
    assert "acme" in state["message"]
    assert "Traceback" not in state["message"]

    code, said = server.stop()

    assert code == 0
    assert server.url.removesuffix("/api") in said
    assert "every 10 seconds" in said
    assert str(server.home / "logs" / "serve.log") in said
    assert events_in(server.home) == (19, 19)
    with pytest.raises(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=5):
        pass
