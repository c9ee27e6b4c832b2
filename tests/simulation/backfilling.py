"""A backfill that is killed and started again, beside syncs that must keep their pace; then the verdict."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import duckdb

from benchmarks.generate import ORGANIZATION, write_bucket
from kyra_etl import resources
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.simulation.serving import has_room

ROOT = Path(__file__).resolve().parents[2]
KYRA = [sys.executable, "-c", "from kyra_etl.cli import main; main()"]
DAYS, ACCOUNTS, KILLS = 30, 20, 3
AGO = timedelta(days=80)
"""How long ago the first of the days was: no sync looks there."""
LIVE = "111122223333"


@dataclass
class Sync:
    """One sync beside the backfill: how many seconds after its time it was done."""

    done_after: float
    code: int
    judged: bool
    """Whether the machine had room, so that the time tells of us."""
    beside: bool
    """Whether the backfill went on when it was done."""


@dataclass
class Backfilled:
    """What a soak of a backfill came to."""

    period: int
    files: int = 0
    events: int = 0
    seconds: float = 0.0
    killed_at: list[float] = field(default_factory=list)
    """The share of the log files that was loaded when it was killed."""
    shown: list[int] = field(default_factory=list)
    """The days that its progress bar named."""
    syncs: list[Sync] = field(default_factory=list)
    live: int = 0
    """Log files that came in meanwhile, for the syncs."""
    codes: list[int] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    repeated: int = 0

    def complaints(self, *, timed: bool = True) -> list[str]:
        """What was amiss; empty is good. Unless `timed`, it may have taken long: a machine may be slow."""
        amiss = {
            "events lost": self.lost,
            "events doubled": self.doubled,
            "log files not loaded exactly once": self.repeated,
            "kills that were due and not done": KILLS - len(self.killed_at),
            "exit codes of the backfill": [code for code in self.codes if code not in (0, -signal.SIGKILL)],
            "syncs that failed": [sync.code for sync in self.syncs if sync.code],
            "syncs later than a period": [
                sync.done_after for sync in self.syncs if timed and sync.judged and sync.done_after > self.period
            ],
            "of its days, those whose progress was shown": [] if len(set(self.shown)) > DAYS / 2 else self.shown,
        }
        return [f"{what}: {found}" for what, found in amiss.items() if found]

    def told(self) -> Iterator[str]:
        """The figures, a line each."""
        yield (
            f"backfill of {DAYS} days × {ACCOUNTS} accounts: {self.files:,} log files, {self.events:,} events in"
            f" {self.seconds / 60:.1f} minutes; killed and resumed at"
            f" {', '.join(f'{share:.0%}' for share in self.killed_at)}; progress shown of {len(set(self.shown))} days"
        )
        yield f"events lost: {self.lost}, doubled: {self.doubled}; log files not loaded exactly once: {self.repeated}"
        longest = max((sync.done_after for sync in self.syncs), default=0)
        yield (
            f"beside it {len(self.syncs)} syncs, one every {self.period} s, of {self.live} log files that came in"
            f" meanwhile: done {longest:.0f} s after their time at the latest"
        )
        if crowded := sum(not sync.judged for sync in self.syncs):
            yield f"the time of {crowded} of the syncs was not judged: the machine had too much to do"


def backfill_under_fire(events: int, period: int, seed: int, folder: Path, *, detections: bool) -> Backfilled:
    """Generate, backfill with three kills beside syncs every `period` seconds, and judge the lake.

    `folder` is empty: bucket, home, state and lake go there. Without `detections`, one of them runs.
    """
    today = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    first, bucket, home = today - AGO, folder / "bucket", folder / "home"
    made = write_bucket(bucket, events, accounts=ACCOUNTS, days=DAYS, seed=seed, first=first)
    home.mkdir()
    if not detections:
        others = sorted({path.stem for path in resources.detections_dir().rglob("*.sql")} - {"cloudtrail_disabled"})
        (home / "kyra.toml").write_text(f"[detections]\ndisable = {json.dumps(others)}\n")
    env = {**os.environ, "KYRA_HOME": str(home), "TERM": "xterm", "COLUMNS": "120"}
    beside = Syncs(env, folder / "live", period)
    with State.open(str(home / "state.db")) as state:
        state.integrations.add(Integration("org", bucket.as_uri(), organization_id=ORGANIZATION), state.now())
        state.integrations.add(Integration("live", beside.bucket.as_uri(), account_id=LIVE), state.now())
    done = Backfilled(period, made.files, made.events)
    last = first + timedelta(days=DAYS)  # stragglers of the last day's midnight too
    command = [*KYRA, "backfill", "org", "--from", f"{first:%Y-%m-%d}", "--to", f"{last:%Y-%m-%d}"]
    begun = time.monotonic()
    beside.start()
    try:
        for number in range(1, KILLS + 1):
            _backfill(command, env, done, home, kill_at=number / (KILLS + 1))
        _backfill(command, env, done, home, kill_at=None)
        done.seconds = time.monotonic() - begun
    finally:
        beside.stop()
    done.syncs, done.live = beside.syncs, len(beside.put)
    _judge(home, len(beside.put), done)
    return done


class Syncs(Thread):
    """`kyra sync` every so many seconds, as cron would start it, over a folder that gets a log file before each.

    It is another integration than the backfilled one, whose old days a sync might load too while they are few.
    """

    def __init__(self, env: dict[str, str], bucket: Path, period: int) -> None:
        super().__init__(daemon=True)
        self.syncs: list[Sync] = []
        self.put: list[Path] = []
        self.bucket = bucket
        self._env, self._period, self._stopped = env, period, Event()

    def run(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self._put()
            ran = subprocess.run([*KYRA, "sync", "live"], cwd=ROOT, env=self._env, capture_output=True)
            done_after, beside = time.monotonic() - due, not self._stopped.is_set()
            self.syncs.append(Sync(done_after, ran.returncode, judged=has_room(), beside=beside))
            while due < time.monotonic():
                due += self._period

    def stop(self) -> None:
        """Start no more."""
        self._stopped.set()
        self.join()

    def _put(self) -> None:
        now, number = datetime.now(UTC), len(self.put)
        event = {"eventID": f"live-{number}", "eventTime": f"{now:%Y-%m-%dT%H:%M:%SZ}", "eventName": "X"}
        folder = self.bucket / f"AWSLogs/{LIVE}/CloudTrail/us-east-1/{now:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        draft, path = self.bucket.parent / "arriving", folder / f"{number}.json.gz"
        draft.write_bytes(gzip.compress(json.dumps({"Records": [event]}).encode()))
        draft.replace(path)
        self.put.append(path)


def _backfill(command: list[str], env: dict[str, str], done: Backfilled, home: Path, kill_at: float | None) -> None:
    """Run it on a terminal, to its end or until that share of the log files is loaded."""
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said: list[bytes] = []

    def listen() -> None:
        with suppress(OSError):  # the terminal's end, once nobody has it open
            while text := os.read(terminal, 65_536):
                said.append(text)

    listener = Thread(target=listen)
    listener.start()
    while process.poll() is None:
        if kill_at is not None and (share := _loaded(home) / done.files) >= kill_at:
            process.kill()
            done.killed_at.append(share)
            break
        time.sleep(0.05)
    done.codes.append(process.wait())
    listener.join()
    os.close(terminal)
    done.shown += [int(day) for day in re.findall(rb"\((\d+) of \d+\)", b"".join(said))]


def _loaded(home: Path) -> int:
    """How many log files are committed."""
    connection = sqlite3.connect(f"file:{home / 'state.db'}?mode=ro", uri=True, timeout=30)
    try:
        query = "SELECT coalesce(sum(files), 0) FROM batches WHERE state = 'committed'"
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def _judge(home: Path, live: int, done: Backfilled) -> None:
    query = f"SELECT count(*), count(DISTINCT event_id) FROM read_parquet('{home}/lake/events/*/*/*.parquet')"
    ((rows, distinct),) = duckdb.sql(query).fetchall()
    done.lost, done.doubled = done.events + live - distinct, rows - distinct
    connection = sqlite3.connect(f"file:{home / 'state.db'}?mode=ro", uri=True)
    (loaded,) = connection.execute("SELECT count(*) FROM log_files WHERE state = 'loaded'").fetchone()
    (in_batches,) = connection.execute("SELECT sum(files) FROM batches WHERE state = 'committed'").fetchone()
    connection.close()
    done.repeated = abs(done.files + live - loaded) + abs(in_batches - loaded)
