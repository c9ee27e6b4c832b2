"""`kyra serve` under fire: a short schedule, a bucket that keeps filling, processes killed; then the verdict."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import sqlite3
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import boto3
import duckdb

from kyra_etl import resources
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.flows.server import Server, command_of, processes_below
from tests.ports import free_port

ACCOUNT = "012345678901"
INTEGRATIONS = ("acme", "bolt", "cargo")
KINDS = ("flow", "runner", "server")
PROGRAMS = {"flow": "prefect.engine", "runner": "flows.deployments", "server": "flows.child prefect server"}
PATIENCE = 10
"""Periods after which nobody waits any longer for the syncs to go on."""


@dataclass(frozen=True)
class Kill:
    """A process killed, and how many seconds later every integration had been synced anew; None for never."""

    kind: str
    back_after: float | None
    judged: bool
    """Whether the machine had room, so that the time tells of us."""


@dataclass
class Served:
    """What a soak of `kyra serve` came to."""

    period: int
    seconds: float = 0.0
    files: int = 0
    events: int = 0
    syncs: Counter[str] = field(default_factory=Counter)
    """By how they ended: succeeded, failed, skipped."""
    kills: list[Kill] = field(default_factory=list)
    unloaded: int = 0
    lost: int = 0
    doubled: int = 0
    overlaps: list[str] = field(default_factory=list)
    wedged: list[str] = field(default_factory=list)
    """Runs on Prefect's page that neither went on nor ended."""
    exit_code: int | None = None
    left: list[int] = field(default_factory=list)
    """Processes that were there after the end."""

    def complaints(self, *, timed: bool = True) -> list[str]:
        """What was amiss; empty is good. Unless `timed`, it may have taken long: a machine may be slow."""
        slow = [kill for kill in self.kills if timed and kill.judged and (kill.back_after or 0) > 2 * self.period]
        late = slow + [kill for kill in self.kills if kill.back_after is None]
        amiss = {
            "events lost": self.lost,
            "events doubled": self.doubled,
            "log files not loaded exactly once": self.unloaded,
            "syncs of one integration at the same time": self.overlaps,
            "not back within two periods": [f"{kill.kind}: {kill.back_after}" for kill in late],
            "runs that hang": self.wedged,
            "exit code": self.exit_code,
            "processes left behind": self.left,
        }
        return [f"{what}: {found}" for what, found in amiss.items() if found]

    def told(self) -> Iterator[str]:
        """The figures, a line each."""
        yield (
            f"kyra serve, a sync every {self.period} s for {self.seconds / 60:.0f} minutes:"
            f" {self.files} log files put, {self.events} events, {sum(self.syncs.values())} syncs of"
            f" {len(INTEGRATIONS)} integrations ({', '.join(f'{n} {how}' for how, n in sorted(self.syncs.items()))})"
        )
        yield (
            f"events lost: {self.lost}, doubled: {self.doubled}; log files not loaded exactly once: {self.unloaded};"
            f" syncs at the same time: {len(self.overlaps)}; runs that hang: {len(self.wedged)}"
        )
        for kind in KINDS:
            took = [kill.back_after for kill in self.kills if kill.kind == kind and kill.back_after is not None]
            if took:
                yield (
                    f"{kind} killed {len(took)} times: every integration synced again after"
                    f" {statistics.median(took):.0f} s (longest {max(took):.0f} s; two periods are {2 * self.period} s)"
                )
        if crowded := sum(not kill.judged for kill in self.kills):
            yield f"the time after {crowded} of the kills was not judged: the machine had too much to do"


def serve_under_fire(minutes: float, period: int, seed: int, endpoint: str, folder: Path) -> Served:
    """Serve for so many minutes, and until each kind of process was killed; then judge the lake.

    `endpoint` is an S3; a bucket "trail" is made in it. `folder` is empty: home, state and lake go there.
    """
    rng = random.Random(seed)
    home = folder / "home"
    home.mkdir()
    others = sorted({path.stem for path in resources.detections_dir().rglob("*.sql")} - {"cloudtrail_disabled"})
    (home / "kyra.toml").write_text(f"[detections]\ndisable = {json.dumps(others)}\n")  # so that a sync is quick
    with State.open(str(home / "state.db")) as state:
        for name in INTEGRATIONS:
            state.integrations.add(Integration(name, "trail", account_id=ACCOUNT, prefix=name), state.now())
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="trail")
    settings = {"SYNC_SECONDS": f"{period}", "LEASE_SECONDS": f"{max(10, period // 2)}", "METRICS_PORT": "0"}
    settings |= {"AWS_ENDPOINT_URL": endpoint, "LOG_FORMAT": "text"}
    server = Server(home, free_port(), **{f"KYRA_{name}": value for name, value in settings.items()})
    feeder = Feeder(endpoint, rng.getrandbits(32))
    served = Served(period)
    try:
        server.wait(lambda: len(server.deployments()) == 4, "the deployments", 300)
        feeder.start()
        begun = time.monotonic()
        _kill_until(begun + minutes * 60 - period, period, rng, server, served)  # one period is left to load the rest
        feeder.stop()
        _await_syncs(home, _now(), PATIENCE * period)
        served.seconds = time.monotonic() - begun
        _await(lambda: not _wedged(server, period), PATIENCE * period)  # one of them may have been on its way
        served.wedged = _wedged(server, period)
        processes = [pid for pid, _ in processes_below(server.process.pid)]
        served.exit_code, _ = server.stop()
        _await(lambda: not any(map(command_of, processes)), period)
        served.left = [pid for pid in processes if command_of(pid)]
    finally:
        feeder.stop()
        server.kill()
    _judge(home, feeder.put, served)
    return served


class Feeder(Thread):
    """Puts a log file into the bucket every second or so; `put` has the event ids by key."""

    def __init__(self, endpoint: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.put: dict[str, list[str]] = {}
        self._s3, self._rng, self._stopped = boto3.client("s3", endpoint_url=endpoint), random.Random(seed), Event()

    def run(self) -> None:
        while not self._stopped.wait(self._rng.uniform(0.3, 2)):
            name, number, now = self._rng.choice(INTEGRATIONS), len(self.put), _now()
            events = [f"{number}-{n}" for n in range(self._rng.randint(1, 5))]
            records = [
                {"eventID": event, "eventTime": f"{now:%Y-%m-%dT%H:%M:%SZ}", "eventName": "DescribeInstances"}
                for event in events
            ]
            key = f"{name}/AWSLogs/{ACCOUNT}/CloudTrail/us-east-1/{now:%Y/%m/%d}/{uuid.UUID(int=number)}.json.gz"
            self._s3.put_object(Bucket="trail", Key=key, Body=gzip.compress(json.dumps({"Records": records}).encode()))
            self.put[key] = events

    def stop(self) -> None:
        """Put nothing more."""
        self._stopped.set()
        if self.is_alive():
            self.join()


def _kill_until(end: float, period: int, rng: random.Random, server: Server, served: Served) -> None:
    """Kill one process after the other, each kind at least once, and see each time that the syncs go on."""
    kinds: list[str] = []
    while time.monotonic() < end or len(served.kills) < len(KINDS):
        kinds = kinds or rng.sample(KINDS, len(KINDS))
        kind = kinds.pop()
        time.sleep(rng.uniform(0, period / 3))
        pid = _await(lambda: _find(server.process.pid, PROGRAMS[kind]), PATIENCE * period)  # noqa: B023
        if kind == "flow" and rng.random() < 0.7:  # else while it starts, or waits for its time
            _await(lambda: _asked(server.home, "SELECT 1 FROM runs WHERE state = 'running'"), 2 * period)
            time.sleep(rng.uniform(0, 2))
        if pid is None or not command_of(pid):
            continue
        killed_at = _now()
        os.kill(pid, signal.SIGKILL)
        back_after = _await_syncs(server.home, killed_at, PATIENCE * period)
        served.kills.append(Kill(kind, back_after, has_room()))


def _await_syncs(home: Path, since: datetime, seconds: float) -> float | None:
    """How long after `since` every integration had a sync begun since then and ended well; None after `seconds`."""

    def ended() -> datetime | None:
        rows = _asked(
            home,
            "SELECT integration, min(finished_at) FROM runs"
            " WHERE verb = 'sync' AND state = 'succeeded' AND started_at > ? GROUP BY 1",
            str(since),
        )
        return max(datetime.fromisoformat(at) for _, at in rows) if len(rows) == len(INTEGRATIONS) else None

    at = _await(ended, seconds)
    return None if at is None else (at - since).total_seconds()


def _await(condition: Callable[[], Any], seconds: float) -> Any:
    until = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < until:
        time.sleep(0.3)
    return met or None


def _asked(home: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{home / 'state.db'}?mode=ro", uri=True, timeout=30)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def has_room() -> bool:
    """Whether the machine has not more than twice its cores to do just now."""
    return os.getloadavg()[0] <= 2 * (os.cpu_count() or 1)


def _wedged(server: Server, period: int) -> list[str]:
    """Runs that Prefect shows as going on, or as still to come, long after they should have ended."""
    before = f"{datetime.now(UTC) - timedelta(seconds=2 * period):%Y-%m-%dT%H:%M:%SZ}"
    unfinished = {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]}}}
    found = server.ask("flow_runs/filter", flow_runs={**unfinished, "expected_start_time": {"before_": before}})
    return [f"{run['name']} {run['state']['name']} since {run['expected_start_time']}" for run in found]


def _judge(home: Path, put: dict[str, list[str]], served: Served) -> None:
    found = Counter(
        event
        for (event,) in duckdb.sql(f"SELECT event_id FROM read_parquet('{home}/lake/events/*/*/*.parquet')").fetchall()
    )
    events = [event for events in put.values() for event in events]
    served.files, served.events = len(put), len(events)
    served.lost = len(set(events) - found.keys())
    served.doubled = found.total() - len(found)
    rows = _asked(home, "SELECT key, state FROM log_files")
    ((in_batches,),) = _asked(home, "SELECT coalesce(sum(files), 0) FROM batches WHERE state = 'committed'")
    loaded = Counter(key for key, state in rows if state == "loaded")
    served.unloaded = sum(loaded[key] != 1 for key in put) + abs(in_batches - len(put))
    served.syncs.update(dict(_asked(home, "SELECT state, count(*) FROM runs WHERE verb = 'sync' GROUP BY 1")))
    spans = _asked(
        home,
        "SELECT integration, run_id, min(planned_at), max(settled_at) FROM batches"
        " WHERE state = 'committed' AND attempt = 1 GROUP BY 1, 2 ORDER BY 1, 3",
    )
    for one, other in pairwise(spans):
        if one[0] == other[0] and other[2] < one[3]:
            served.overlaps.append(f"{one[0]}: {one[1]} until {one[3]}, {other[1]} from {other[2]}")


def _find(root: int, program: str) -> int | None:
    """The process below `root` that runs `program`."""
    return next((pid for pid, command in processes_below(root) if program in command), None)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
