"""One schedule: a delivery, the processes that work on it, what befalls them, and the verdict."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import kyra_etl.discover
import kyra_etl.lake.compact
from kyra_etl import resources
from kyra_etl.backfill import backfill
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import KyraError
from kyra_etl.load import load
from kyra_etl.maintain.compact import compact
from kyra_etl.model import Integration, Limits, RunReport, Window
from kyra_etl.ports import Silent
from kyra_etl.run import Kit
from kyra_etl.state import State
from kyra_etl.state.database import Database
from kyra_etl.sync import sync
from tests.simulation import delivery, parts
from tests.simulation.bucket import SimBucket
from tests.simulation.notices import Notices, SimQueue
from tests.simulation.process import COMPACT, Coverage, Crash, Fate, Outage, Process, Strike, was_injected
from tests.simulation.timeline import Timeline
from tests.simulation.verdict import Scene, judge, objection

BUCKET = "trail"
ROUNDS = 12
"""Runs within which every folder has had its turn, however little one run may list."""
FOREVER = 60
"""Rounds of the last syncs after which a schedule is called stuck."""


@dataclass(frozen=True)
class Case:
    """All that decides a schedule. Its text replays it: `python -m tests.simulation --replay TEXT`."""

    seed: int
    strikes: tuple[Strike, ...] = ()

    def __str__(self) -> str:
        return "+".join([str(self.seed), *map(str, self.strikes)])

    @classmethod
    def parse(cls, text: str) -> Case:
        seed, *strikes = text.split("+")
        return cls(int(seed), tuple(map(Strike.parse, strikes)))


@dataclass
class Outcome:
    """What a schedule came to."""

    case: Case
    coverage: Coverage
    runs: int = 0
    skipped: int = 0
    failed: int = 0
    objects: int = 0
    events: int = 0
    alerts: int = 0
    lost: int = 0
    doubled: int = 0
    complaints: list[str] = field(default_factory=list)


class World:
    """A bucket, a lake, a state database, and processes at work on them."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.rng = rng = random.Random(case.seed)
        self.story = delivery.story(rng)
        self.timeline = Timeline(self.story.start, random.Random(rng.random()))
        self._span = self.story.end - self.story.start
        self._count = 0
        rates = rng.choice(
            ({}, {"list": 0.01, "get": 0.1, "body": 0.05, "lake": 0.01, "state": 0.003, "queue": 0.05}, {"get": 0.4})
        )
        outages = [self._outage() for _ in range(rng.choice((0, 0, 1, 2)))]
        self.fate = Fate(self.timeline, random.Random(rng.random()), case.strikes, rates, outages, self.story.end)
        self.ticks = sorted(
            self.story.start + self._span * rng.random() + timedelta(minutes=rng.choice((0, 5)))
            for _ in range(rng.choice((2, 3, 5)))
        )
        """When whoever syncs starts to."""
        self.apart = rng.choice((60, self._span.total_seconds() / 6))
        """Seconds between their starts, at most: some of them meet, some hardly ever."""
        self.lake_kind = rng.choice(("directory", "s3"))
        self.page = rng.choice((1, 2, 1000, 1000))
        self.skews = [timedelta(hours=rng.choice((0, 0, 0, -9, 7))) for _ in range(2)]
        self.limits = Limits(
            batch_files=rng.choice((1, 3, 10, 2000)),
            batch_bytes=rng.choice((500, 5_000, 2**26)),
            fetch_threads=rng.choice((1, 4)),
            list_threads=rng.choice((1, 16)),
            list_budget_run=rng.choice((40, 100_000)),
            list_seconds=rng.choice((60, 900)),
            replaced_hours=rng.choice((0, 24)),
        )
        struck = {strike.point[0] for strike in case.strikes}
        self.corpus = corpus() if rng.random() < DETECTING or struck & {"detect", "record"} else None
        if self.corpus is not None:
            self.limits = replace(
                self.limits, replaced_hours=10**5
            )  # the verdict reads of them in which order they came
        self.integrations = [Integration("acme", BUCKET, "111122223333", prefix=self.story.prefix)]
        if rng.random() < 0.35:
            self.integrations.append(Integration("copy", BUCKET, None, prefix=self.story.prefix))
        self.notices = Notices(BUCKET, self.story.deliveries, rng) if rng.random() < 0.4 or struck & NOTICED else None
        self.outcome = Outcome(case, self.fate.coverage, objects=len(self.story.deliveries))
        self.lake_root, self.state_path = folder / "lake", folder / "state.db"
        self.lake_root.mkdir()
        shutil.copy(empty_state(), self.state_path)
        self.database = database(self.state_path)
        self.copies = folder / "copies"

    def _outage(self) -> Outage:
        start = self.story.start + self._span * self.rng.random()
        return Outage(*self.rng.choice(OUTAGES), start, start + self._span * self.rng.random() / 3)

    # ── the cast ──

    def play(self) -> None:
        rng, story = self.rng, self.story
        struck = {strike.point[0] for strike in self.case.strikes}
        for integration in self.integrations:
            for machine in ("a", "b") if rng.random() < 0.3 else ("a",):
                self._add(f"sync {integration.name} {machine}", lambda i=integration, m=machine: self.syncing(i, m))
        if rng.random() < 0.4:
            self._add("backfill", lambda: self.backfilling(rng.choice(self.integrations)), late=True)
        if rng.random() < 0.15:
            self._add("load", self.loading, late=True)
        if rng.random() < 0.3 or "retry" in struck:
            self._add("retry", self.retrying, late=True)
        if rng.random() < 0.2 or "delete_checkpoints" in struck:
            self._add("forget", self.forgetting, late=True)
        compacted = rng.random() < COMPACTING or any(step.startswith(COMPACT) for step in struck)
        if compacted:
            for _ in range(3 if struck & {"compact expire", "compact discard"} else rng.choice((1, 1, 2))):
                self._add("compact", self.compacting, late=True)
        for number, integration in enumerate(self.integrations):
            at = story.end + timedelta(minutes=10 + number)
            self.timeline.add(f"last {integration.name}", lambda i=integration: self.settling(i), at=at)
        self.timeline.run()
        if compacted:
            self.compacting()  # what a dead compaction left is its successor's to clear away

    def _add(self, name: str, story: Callable[[], None], *, late: bool = False) -> None:
        at = self.story.start
        if late:
            # Often when somebody else is at work.
            at = self.rng.choice((self.story.start + self._span * self.rng.random(), *self.ticks))
            at += timedelta(seconds=self.rng.random() * 60)
        self.timeline.add(name, story, at=at)

    def syncing(self, integration: Integration, machine: str) -> None:
        """A scheduler that starts a sync every now and then, whether or not the one before came through."""
        rng = random.Random(self.rng.random())
        for tick in self.ticks:
            wait = (tick - self.timeline.now).total_seconds() + rng.random() * self.apart
            if wait > 0:
                self.timeline.sleep(wait)
            if self.timeline.now >= self.story.end:
                return
            with self.process(f"sync {integration.name}", machine) as process:
                self.sync(integration, process)

    def backfilling(self, integration: Integration) -> None:
        days = self.rng.randint(1, 3)
        first = self.timeline.now - timedelta(days=days)
        with self.process("backfill") as process:
            made = self.made(integration, process)
            for report in backfill(integration, Window(first, self.timeline.now), **made):
                self.ended(report)

    def loading(self) -> None:
        """Some of the same files, copied to this machine and loaded from there."""
        self.copies.mkdir()
        some = [each for each in self.story.deliveries if each.at <= self.timeline.now]
        for number, each in enumerate(self.rng.sample(some, min(len(some), 3))):
            (self.copies / f"{number}.json.gz").write_bytes(each.body)
        self.load()

    def load(self) -> None:
        with self.process("load") as process:
            made = self.made(self.integrations[0], process)
            made.pop("bucket")
            self.ended(load([self.copies], **made))

    def compacting(self) -> None:
        """Days are compacted while their files still come in, which maintenance itself avoids."""
        with self.process(COMPACT) as process:
            made = {name: part for name, part in self.made(self.integrations[0], process).items() if name != "bucket"}
            report = compact(Kit(**made, progress=Silent()), last=self.timeline.now.date())
            if report.failed and not (self.fate.coverage.faults or self.fate.coverage.paused):
                self.complain(f"compaction failed: {report.failed[0]}")

    def retrying(self) -> None:
        with self.process("retry") as process:
            self.state(process).ledger.retry(now=process.clock())

    def forgetting(self) -> None:
        with self.process("forget") as process:
            self.state(process).ledger.delete_checkpoints("acme")

    def settling(self, integration: Integration) -> None:
        """After the last fault: syncs until everything has been tried again, and the deepest sweep has been made."""
        waits = [26 * 3600, 8 * 86400]
        if self.copies.is_dir() and integration is self.integrations[0]:
            self.load()
        if self.rng.random() < 0.7:
            waits.pop()
            with self.process("retry") as process:
                self.state(process).ledger.retry(now=process.clock())
        clean = 0
        for _ in range(FOREVER):
            with self.process(f"last {integration.name}", skewed=False) as process:
                report = self.sync(integration, process)
                clean = clean + 1 if report.skipped is None and report.pending == 0 else 0
                # Where a run cannot list everything, the next ones begin with what it left.
                if clean and (report.folders_waiting == 0 or clean > ROUNDS):
                    if not waits:
                        return
                    self.timeline.sleep(waits.pop(0))
                    clean = 0
                    continue
            self.timeline.sleep(300)
        self.complain(f"{integration.name} never came to rest")

    def judged(self) -> Outcome:
        verdict = judge(
            Scene(
                state=State(self.database),
                lake=self.lake_root,
                folder=self.folder,
                deliveries=self.story.deliveries,
                integrations=self.integrations,
                prefix=self.story.prefix,
                now=self.timeline.now,
                corpus=self.corpus,
                copies=self.copies,
            )
        )
        outcome = self.outcome
        outcome.events, outcome.alerts = verdict.events, verdict.alerts
        outcome.lost, outcome.doubled = verdict.lost, verdict.doubled
        outcome.complaints += verdict.complaints
        return outcome

    # ── processes ──

    @contextmanager
    def process(self, name: str, machine: str = "a", *, skewed: bool = True) -> Iterator[Process]:
        """A process until it ends, fails as the story wants it to, or is killed."""
        self._count += 1
        skew = self.skews[machine == "b"] if skewed else timedelta(0)
        process = Process(f"{name} {self._count}", self.fate, machine=machine, skew=skew)
        parts.here.process = process
        try:
            yield process
        except Crash:
            pass
        except KyraError as error:
            self.outcome.failed += 1
            if not was_injected(error):
                self.complain(f"{process.name} failed: {error}", error)
        finally:
            process.over = True

    def sync(self, integration: Integration, process: Process) -> RunReport:
        queue = SimQueue(self.notices, process) if self.notices is not None else None
        report = sync(integration, queue=queue, **self.made(integration, process))
        self.ended(report)
        return report

    def made(self, integration: Integration, process: Process) -> dict[str, Any]:
        return {
            "bucket": SimBucket(integration.bucket, self.story.deliveries, process, self.page),
            "lake": parts.lake_of(self.lake_kind, self.lake_root, process, self.on_published),
            "state": self.state(process),
            "corpus": self.corpus,
            "limits": self.limits,
            "clock": process.clock,
        }

    def state(self, process: Process) -> State:
        return State(parts.SimDatabase(self.database, process))

    def ended(self, report: RunReport) -> None:
        self.outcome.runs += 1
        self.outcome.skipped += report.skipped is not None
        if report.imbalance() is not None:
            self.complain(f"run {report.run_id}: {report.imbalance()}")

    def on_published(self, source: str, target: str) -> None:
        """Nobody but a committed attempt may put anything where readers look, and nothing may be there twice."""
        why = objection(self.state_path, self.lake_root, source, target)
        if why is not None:
            self.complain(f"{target} became visible from {source}, {why}")

    def complain(self, what: str, error: BaseException | None = None) -> None:
        self.outcome.complaints.append(what)
        if error is not None:
            error.add_note(f"in schedule {self.case}")


OUTAGES = (("queue", "403"), ("get", "403"), ("get", "kms"), ("list", "403"), ("list", "503"), ("get", "timeout"))
"""What fails for a while, and how."""
NOTICED = {"receive", "delete message"}
DETECTIONS = (
    "access_key_leaked",
    "cloudtrail_disabled",
    "iam_user_created",
    "mfa_disabled",
    "root_account_usage",
    "unusual_region",
)
COMPACTING = 0.2
"""Share of schedules that compact days while they grow."""
DETECTING = 0.04
"""Share of schedules that run the detections, which take most of the time."""


@cache
def corpus() -> Corpus:
    """Some of the real detections: alone, with a look around, with a calming event, with a baseline."""
    whole = Corpus.load([resources.detections_dir()])
    return replace(whole, detections=tuple(each for each in whole.detections if each.id in DETECTIONS))


@cache
def empty_state() -> Path:
    """A state database at head, copied for every world."""
    path = workplace() / "empty.db"
    State.open(f"sqlite:///{path}").close()
    return path


@cache
def workplace() -> Path:
    """Where this process plays one schedule after the other: always the same paths, in memory where there is some."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="kyra-simulation-", dir=shared if shared.is_dir() else None))
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=0)
    return folder


@cache
def database(path: Path) -> Database:
    return Database(f"sqlite:///{path}")


def play(case: Case) -> Outcome:
    """Play one schedule and judge it. What went wrong is in `complaints`; anything unheard of is raised."""
    folder = workplace() / "world"
    folder.mkdir()
    saved = {(module, name): getattr(module, name) for module, name in SMALLER}
    try:
        world = World(case, folder)
        for (module, name), values in SMALLER.items():
            setattr(module, name, world.rng.choice(values))
        with parts.one_machine_many_processes():
            world.play()
        return world.judged()
    except BaseException as error:
        error.add_note(f"in schedule {case}")
        raise
    finally:
        for (module, name), value in saved.items():
            setattr(module, name, value)
        database(folder / "state.db").close()
        shutil.rmtree(folder, ignore_errors=True)


SMALLER: dict[tuple[Any, str], tuple[int, ...]] = {
    (kyra_etl.discover, "PAGE"): (1, 3, 1000),
    (kyra_etl.discover, "SMALL_REGION"): (0, 2, 8),
    (kyra_etl.discover, "SMALL_BUCKET"): (0, 3, 200),
    (kyra_etl.lake.compact, "FULL"): (1, 128 * 2**20),
}
"""Bounds that only large buckets and lakes reach, brought down so that small ones do."""
