"""One process of ours: killed, paused or refused at the I/O steps its case names."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kyra_etl.errors import KyraError
from tests.simulation.timeline import Timeline

Point = tuple[str, str]
"""An I/O step and where in it: ("commit", "before"), ("stage", "torn") …"""


class Crash(BaseException):
    """The process was killed. Whatever it still tries to do, in `finally` or `except`, raises this again."""


@dataclass(frozen=True)
class Strike:
    """Something that happens when a point is passed for the `nth` time, whoever passes it.

    Without `pause` the process is killed there; with it, it stands still for so many seconds.
    """

    point: Point
    nth: int = 1
    pause: int = 0

    def __str__(self) -> str:
        pause = f"~{self.pause}" if self.pause else ""
        return f"{'.'.join(self.point)}.{self.nth}{pause}"

    @classmethod
    def parse(cls, text: str) -> Strike:
        match = re.fullmatch(r"([^.]+)\.([^.]+)\.(\d+)(?:~(\d+))?", text)
        if match is None:
            raise ValueError(f"{text!r} is not step.place.nth[~seconds]")
        return cls((match[1], match[2]), int(match[3]), int(match[4] or 0))


@dataclass
class Coverage:
    """How often each point was passed, struck, and each kind of fault injected."""

    passed: Counter[Point] = field(default_factory=Counter)
    killed: Counter[Point] = field(default_factory=Counter)
    paused: Counter[Point] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, other: Coverage) -> None:
        self.passed += other.passed
        self.killed += other.killed
        self.paused += other.paused
        self.faults += other.faults


@dataclass(frozen=True)
class Outage:
    """A time during which one kind of call fails."""

    step: str
    fault: str
    start: datetime
    end: datetime


class Fate:
    """What befalls the processes of one world: strikes at points, faults at random, outages for a while."""

    def __init__(
        self,
        timeline: Timeline,
        rng: random.Random,
        strikes: Iterable[Strike],
        faults: dict[str, float],
        outages: Iterable[Outage],
        until: datetime,
    ) -> None:
        self.timeline, self.rng = timeline, rng
        self.coverage = Coverage()
        self._strikes = {(strike.point, strike.nth): strike for strike in strikes}
        self._rates, self._outages = faults, list(outages)
        self._until = until
        """After this nothing bad happens any more."""

    def strike(self, point: Point) -> Strike | None:
        self.coverage.passed[point] += 1
        if self.timeline.now > self._until:
            return None
        return self._strikes.get((point, self.coverage.passed[point]))

    def fault(self, step: str, kinds: tuple[str, ...]) -> str | None:
        """The kind of failure that meets this call, if any."""
        if self.timeline.now > self._until:
            return None
        for outage in self._outages:
            if outage.step == step and outage.start <= self.timeline.now < outage.end and outage.fault in kinds:
                self.coverage.faults[f"{step}: {outage.fault}"] += 1
                return outage.fault
        if kinds and self.rng.random() < self._rates.get(step, 0.0):
            kind = self.rng.choice(kinds)
            self.coverage.faults[f"{step}: {kind}"] += 1
            return kind
        return None


class Process:
    """One run of a program on a machine whose clock may be wrong."""

    def __init__(self, name: str, fate: Fate, *, machine: str = "a", skew: timedelta = timedelta(0)) -> None:
        self.name, self.fate, self.machine = name, fate, machine
        self._own = f"{COMPACT} " if name.startswith(COMPACT) else ""
        self._skew = skew
        self.dead = False
        self.over = False
        self._lock = threading.Lock()

    def clock(self) -> datetime:
        return self.fate.timeline.now + self._skew

    def step(self, step: str, place: str = "before") -> None:
        """Pass a point: die here, stand still here, or just take a moment."""
        with self._lock:
            if self.dead:
                raise Crash
            point = (f"{self._own}{step}", place)
            strike = self.fate.strike(point)
            if strike is not None and not strike.pause:
                self.fate.coverage.killed[point] += 1
                self.dead = True
                raise Crash
        if place in INSIDE:
            return
        if strike is not None:
            self.fate.coverage.paused[point] += 1
            self.fate.timeline.sleep(strike.pause)
        else:
            self.fate.timeline.sleep(self.fate.rng.choice(MOMENTS))
        if self.dead:
            raise Crash

    def fault(self, step: str, kinds: dict[str, Callable[[], KyraError]]) -> None:
        """Raise what meets this call, if anything does."""
        kind = self.fate.fault(step, tuple(kinds))
        if kind is not None:
            raise injected(kinds[kind]())

    @contextmanager
    def stepping(self, step: str) -> Iterator[None]:
        """A call with a point before and one after it."""
        self.step(step)
        yield
        self.step(step, "after")


COMPACT = "compact"
"""A compaction's steps have names of their own: it commits, stages and publishes as a batch does."""

INSIDE = ("inside", "torn", "between")
"""Places within one call of an adapter, where a process may die but nobody else gets a turn."""

MOMENTS = (0.001, 0.02, 0.1, 0.4, 2.0)


def injected(error: KyraError) -> KyraError:
    """Mark an error as part of the story: whoever fails with it was meant to."""
    error.add_note("injected")
    return error


def was_injected(error: BaseException) -> bool:
    """Whether the error, or one it came from, was injected."""
    seen: BaseException | None = error
    while seen is not None:
        if "injected" in getattr(seen, "__notes__", ()):
            return True
        seen = seen.__cause__
    return False
