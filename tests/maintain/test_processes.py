"""Compaction in a process of its own: killed at any moment, and watched by readers that never stop counting."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from kyra_etl.run import release_dead
from kyra_etl.settle import tidy
from tests.detection.making import record
from tests.maintain.making import Upkeep

DAYS = [date(2026, 1, 1) + timedelta(days=n) for n in range(8)]
ROUNDS = 8


def compact_in(folder: Path) -> None:
    """What the process does."""
    house = Upkeep(folder)
    house.compact()
    house.state.close()


@contextmanager
def compacting(folder: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.maintain.test_processes"])
    process: multiprocessing.process.BaseProcess = context.Process(target=compact_in, args=(folder,), daemon=True)
    process.start()
    yield process
    process.join()
    process.close()


class Readers:
    """Two readers that count the events of the lake over and over: one as `kyra sql` does, one with a plain glob."""

    def __init__(self, house: Upkeep) -> None:
        self._house, self._over = house, threading.Event()
        self.asked: list[int] = []
        self.globbed: list[int] = []
        self.problems: list[str] = []
        self._threads = [threading.Thread(target=self._loop, args=(read,)) for read in (self._ask, self._glob)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _loop(self, read: object) -> None:
        while not self._over.is_set():
            try:
                read()  # type: ignore[operator]
            except Exception as error:
                self.problems.append(repr(error))

    def _ask(self) -> None:
        ((count,),) = self._house.ask("SELECT count(*) FROM events")
        self.asked.append(count)

    def _glob(self) -> None:
        glob = self._house.lake.uri("events/*/*/*.parquet")
        try:
            with duckdb.connect() as connection:
                ((count,),) = connection.execute(f"SELECT count(*) FROM read_parquet('{glob}')").fetchall()
            self.globbed.append(count)
        except duckdb.IOException:
            pass  # a file left between listing and reading: such a reader asks again


def late(house: Upkeep, number: int) -> None:
    """A new event for every day, in one batch."""
    at = (f"{day:%Y-%m-%d}T10:00:00Z" for day in DAYS)
    house.load(*(record("Call", "", f"{number}-{n}", eventTime=time) for n, time in enumerate(at)), detect=False)


def distinct_globbed(house: Upkeep) -> set[str]:
    found = house.globbed()
    assert len(found) == len(set(found)), "a plain reader sees an event twice"
    return set(found)


@pytest.mark.slow
def test_readers_count_right_while_days_are_compacted(folder: Upkeep) -> None:
    for number in range(6):
        late(folder, number)
    truth = 6 * len(DAYS)

    with Readers(folder) as readers:
        with compacting(folder.folder) as process:
            process.join(120)
            assert process.exitcode == 0
        time.sleep(0.2)

    assert readers.problems == []
    assert set(readers.asked) == {truth}
    assert max(readers.globbed) == truth
    assert readers.globbed[-1] == truth
    assert folder.places() == {"events": 8, "activity": 8, "_staging": 0, "_replaced": 96}


@pytest.mark.slow
def test_killing_a_compaction_at_any_moment_changes_nothing(folder: Upkeep) -> None:
    rng = random.Random(3)
    late(folder, 0)
    began = time.monotonic()
    with compacting(folder.folder) as process:
        process.join(120)
    whole = time.monotonic() - began

    for number in range(1, ROUNDS + 1):
        late(folder, number)
        truth = {f"{one}-{n}" for one in range(number + 1) for n in range(len(DAYS))}
        with compacting(folder.folder) as process:
            time.sleep(rng.uniform(0.1, 1.1) * whole)
            process.kill()
        assert set(folder.ids()) == truth
        assert len(folder.ids()) == len(truth)
        assert distinct_globbed(folder) <= truth
        tidy(lake=folder.lake, state=folder.state)  # as the next sync does
        assert distinct_globbed(folder) == truth

    release_dead(folder.kit)
    assert folder.compact().skipped is None
    assert folder.ids() == folder.globbed() == sorted(truth)
    places = folder.places()
    assert (places["events"], places["activity"], places["_staging"]) == (8, 8, 0)
    assert sum(row[-1] for row in folder.activity()) == len(truth)
