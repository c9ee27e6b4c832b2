"""Schedule after schedule, and process after process killed, for as long as asked: `make soak`."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from tests.simulation.process import Coverage, Point, Strike
from tests.simulation.schedule import Case, Outcome, play

PAUSES = (5, 200, 300, 900, 7200, 200_000)
"""Seconds; a batch's lease lasts 240."""


AFTER_A_DEATH = {
    "expire": ("commit", "before"),
    "discard": ("stage", "after"),
    "look": ("commit", "after"),
    "retire": ("compact commit", "after"),
    "compact expire": ("compact stage", "before"),
    "compact discard": ("compact stage", "after"),
}
"""Steps that clear up after somebody who died: they come to something only where somebody has, there."""

COSTLY = {"detect", "record"}
"""Steps of a schedule that runs the detections, which takes four times as long as another: aimed at less often."""


@dataclass
class Total:
    """What many schedules came to."""

    schedules: int = 0
    runs: int = 0
    skipped: int = 0
    failed: int = 0
    objects: int = 0
    events: int = 0
    alerts: int = 0
    lost: int = 0
    doubled: int = 0
    coverage: Coverage = field(default_factory=Coverage)
    complaints: list[tuple[Case, list[str]]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.schedules += 1
        for name in ("runs", "skipped", "failed", "objects", "events", "alerts", "lost", "doubled"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name))
        self.coverage.add(outcome.coverage)
        if outcome.complaints:
            self.complaints.append((outcome.case, outcome.complaints))

    def never_struck(self) -> list[Point]:
        """Points that were passed, but where no process ever died."""
        return sorted(self.coverage.passed.keys() - self.coverage.killed.keys())


def cases(seed: int, known: Counter[Point]) -> Iterator[Case]:
    """Endless cases: half of the deaths are aimed at the points that saw the fewest (`known`: deaths so far).

    `known` is looked at as it is each time, so that what a schedule discovers is aimed at by a later one.
    """
    rng = random.Random(seed)
    number = seed * 1_000_000
    while True:
        number += 1
        points = sorted(known)
        strikes = []
        for _ in range(rng.choice((0, 1, 1, 2, 3, 5)) if points else 0):
            fewest = sorted(points, key=lambda point: (known[point], rng.random()))[: max(len(points) // 8, 1)]
            point = rng.choice(fewest if rng.random() < 0.5 else points)
            if point[0] in COSTLY and rng.random() < 0.9:
                point = rng.choice(points)
            strikes.append(Strike(point, _nth(rng)))
            if point[0] in AFTER_A_DEATH:
                strikes[-1:] = [Strike(AFTER_A_DEATH[point[0]], rng.randint(1, 3)), Strike(point, rng.randint(1, 2))]
        for _ in range(rng.choice((0, 0, 1, 2)) if points else 0):
            standing = [point for point in points if point[1] in ("before", "after")]
            strikes.append(Strike(rng.choice(standing), _nth(rng), rng.choice(PAUSES)))
        yield Case(number, tuple(strikes))


def _nth(rng: random.Random) -> int:
    return 1 + int(rng.expovariate(0.25))


def soak(schedules: Iterable[Case], total: Total, known: Counter[Point], jobs: int = 1) -> Iterator[Outcome]:
    """Play the cases, adding up; yields each outcome.

    With several jobs, which case comes next depends on which was done first; each is the same wherever it is played.
    """
    for outcome in map(play, schedules) if jobs == 1 else _side_by_side(schedules, jobs):
        total.add(outcome)
        known.update(dict.fromkeys(outcome.coverage.passed, 0))
        known.update(outcome.coverage.killed)
        yield outcome


def _side_by_side(schedules: Iterable[Case], jobs: int) -> Iterator[Outcome]:
    cases = iter(schedules)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        playing = {pool.submit(play, case) for case in islice(cases, jobs)}
        while playing:
            done, playing = wait(playing, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
                playing |= {pool.submit(play, case) for case in islice(cases, 1)}


def told(total: Total, seconds: float) -> Iterator[str]:
    """The figures, a line each."""
    yield (
        f"{total.schedules:,} schedules in {seconds / 60:.0f} minutes: {total.runs + total.failed:,} runs"
        f" ({total.skipped:,} beside another, {total.failed:,} failed), {total.objects:,} objects,"
        f" {total.events:,} events, {total.alerts:,} alerts"
    )
    yield f"events lost: {total.lost}, events doubled: {total.doubled}, other complaints: {len(total.complaints)}"
    coverage = total.coverage
    yield f"processes killed: {coverage.killed.total():,}, paused: {coverage.paused.total():,}, at the steps"
    for step in sorted({step for step, _ in coverage.passed}):
        places = sorted((place for known, place in coverage.passed if known == step), key=PLACES.index)
        hits = ", ".join(f"{place} {coverage.killed[step, place]:,}" for place in places)
        paused = sum(coverage.paused[step, place] for place in places)
        yield f"  {step:<20} {hits}" + (f"; paused {paused:,}" if paused else "")
    yield f"faults injected: {coverage.faults.total():,}"
    for fault, count in sorted(coverage.faults.items()):
        yield f"  {fault:<20} {count:,}"
    for step, place in total.never_struck():
        yield f"never struck: {step} {place}"


PLACES = ("before", "torn", "inside", "after")
