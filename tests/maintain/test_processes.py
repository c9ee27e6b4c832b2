"""Compaction in a process of its own: killed at any moment, and watched by readers that never stop counting."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from kyra_etl.lake import S3Options, open_lake
from kyra_etl.lake.storage import S3Storage
from kyra_etl.run import release_dead
from kyra_etl.settle import tidy
from tests.detection.making import record
from tests.looping import Looping
from tests.maintain.making import Upkeep

DAYS = [date(2026, 1, 1) + timedelta(days=n) for n in range(8)]
ROUNDS = 8


def on_s3(house: Upkeep) -> bool:
    return isinstance(house.lake.storage, S3Storage)


def days_of(house: Upkeep) -> list[date]:
    return DAYS[:2] if on_s3(house) else DAYS


def compact_in(folder: Path, s3: str | None) -> None:
    """What the process does."""
    lake = open_lake("s3://lake/kyra", S3Options(s3, "us-east-1", "testing", "testing")) if s3 else None
    house = Upkeep(folder, lake)
    house.compact()
    house.state.close()


@contextmanager
def compacting(house: Upkeep) -> Iterator[multiprocessing.process.BaseProcess]:
    s3 = os.environ["AWS_ENDPOINT_URL"] if on_s3(house) else None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.maintain.test_processes"])
    process: multiprocessing.process.BaseProcess = context.Process(
        target=compact_in, args=(house.folder, s3), daemon=True
    )
    process.start()
    yield process
    process.join()
    process.close()


class Readers(Looping):
    """Two readers that count the events of the lake over and over: one as `kyra sql` does, one with a plain glob."""

    def __init__(self, house: Upkeep) -> None:
        super().__init__(self._ask, self._glob)
        self._house = house
        self.asked: list[int] = []
        self.globbed: list[int] = []

    def look(self) -> None:
        """Both, once."""
        self._ask()
        self._glob()

    def _ask(self) -> None:
        ((count,),) = self._house.ask("SELECT count(*) FROM events")
        self.asked.append(count)

    def _glob(self) -> None:
        glob = self._house.lake.uri("events/*/*/*.parquet")
        try:
            with duckdb.connect() as connection:
                self._house.lake.register(connection)
                ((count,),) = connection.execute(f"SELECT count(*) FROM read_parquet('{glob}')").fetchall()
            self.globbed.append(count)
        except duckdb.Error as error:  # a file left between listing and reading: such a reader asks again
            if not isinstance(error, duckdb.IOException) and "FileNotFoundError" not in str(error):
                raise


def late(house: Upkeep, number: int) -> None:
    """A new event for every day, in one batch."""
    at = (f"{day:%Y-%m-%d}T10:00:00Z" for day in days_of(house))
    house.load(*(record("Call", "", f"{number}-{n}", eventTime=time) for n, time in enumerate(at)), detect=False)


def distinct_globbed(house: Upkeep) -> set[str]:
    found = house.globbed()
    assert len(found) == len(set(found)), "a plain reader sees an event twice"
    return set(found)


@pytest.mark.slow
def test_readers_count_right_while_days_are_compacted(house: Upkeep) -> None:
    days, batches = days_of(house), 2 if on_s3(house) else 6
    for number in range(batches):
        late(house, number)
    truth = batches * len(days)

    readers = Readers(house)
    with readers, compacting(house) as process:
        process.join(600)
        assert process.exitcode == 0
    readers.look()  # once more: a look of theirs may have begun before the last file was moved

    assert readers.problems == []
    assert set(readers.asked) == {truth}
    assert max(readers.globbed) == truth
    assert readers.globbed[-1] == truth
    assert house.places() == {
        "events": len(days),
        "activity": len(days),
        "_staging": 0,
        "_replaced": 2 * batches * len(days),
    }


@pytest.mark.slow
def test_killing_a_compaction_at_any_moment_changes_nothing(house: Upkeep) -> None:
    rng, days = random.Random(3), days_of(house)
    late(house, 0)
    began = time.monotonic()
    with compacting(house) as process:
        process.join(600)
    whole = time.monotonic() - began

    for number in range(1, (3 if on_s3(house) else ROUNDS) + 1):
        late(house, number)
        truth = {f"{one}-{n}" for one in range(number + 1) for n in range(len(days))}
        with compacting(house) as process:
            time.sleep(rng.uniform(0.1, 1.1) * whole)
            process.kill()
        assert set(house.ids()) == truth
        assert len(house.ids()) == len(truth)
        assert distinct_globbed(house) <= truth
        tidy(lake=house.lake, state=house.state)  # as the next sync does
        assert distinct_globbed(house) == truth

    release_dead(house.kit)
    assert house.compact().skipped is None
    assert house.ids() == house.globbed() == sorted(truth)
    places = house.places()
    assert (places["events"], places["activity"], places["_staging"]) == (len(days), len(days), 0)
    assert sum(row[-1] for row in house.activity()) == len(truth)
