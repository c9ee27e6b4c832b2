"""A real process that syncs and is killed. It says all the time what it is doing, so that we know where it died.

What it says goes to a file mapped into memory, which outlives it. Each step is drawn out a little: a commit takes a
millisecond, and a kill at random would hardly ever meet it.
"""

from __future__ import annotations

import hashlib
import mmap
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

from kyra_etl.errors import KyraError
from kyra_etl.folder import FolderBucket
from kyra_etl.lake import Lake, S3Options, engine, open_lake
from kyra_etl.lake.parquet import ParquetFile
from kyra_etl.lake.storage import LocalStorage, S3Storage
from kyra_etl.model import Integration, Limits
from kyra_etl.state import State
from kyra_etl.state.database import Database
from kyra_etl.sync import sync
from tests.simulation.bucket import Delivery
from tests.simulation.parts import is_data
from tests.simulation.schedule import corpus

STEPS = ("list", "get", "stage", "commit", "publish", "detect")
"""What a kill is aimed at."""

WIDTH = 32
SLOWLY = 0.003
"""Seconds by which a step is drawn out, at most."""
AIMED_AT = 0.06
"""The same for the step that the kill is aimed at: so long that it still meets it on a busy machine."""


@dataclass(frozen=True)
class Home:
    """Where one installation lives, in a form that can be sent to a process."""

    folder: Path
    prefix: str
    now: datetime
    s3: str | None = None
    """The endpoint of the lake's S3; None for a lake in the folder."""

    @property
    def bucket(self) -> Path:
        return self.folder / "bucket"

    @property
    def diary(self) -> Path:
        return self.folder / "doing"

    @property
    def integration(self) -> Integration:
        return Integration("acme", self.bucket.as_uri(), prefix=self.prefix)

    @property
    def s3_prefix(self) -> str:
        """Its own: the fake S3 of one process remembers buckets from server to server."""
        return self.folder.name

    def lake(self) -> Lake:
        if self.s3 is None:
            return open_lake(str(self.folder / "lake"))
        return open_lake(f"s3://lake/{self.s3_prefix}", S3Options(self.s3, "us-east-1", "testing", "testing"))

    def state(self) -> State:
        return State.open(f"sqlite:///{self.folder}/state.db")


def run(home: Home, times: int, seed: int | None, target: str | None = None) -> None:
    """Sync so many times. With a seed, drawn out and telling where it is; without, as fast as it goes."""
    if seed is not None:
        _tell(home.diary, random.Random(seed), target)
    with home.state() as state:
        lake = home.lake()
        lake.claim(state.id)
        for _ in range(times):
            try:
                sync(
                    home.integration,
                    bucket=FolderBucket(home.bucket, clock=lambda: home.now),
                    lake=lake,
                    state=state,
                    corpus=corpus(),
                    limits=Limits(batch_files=3),
                    clock=lambda: home.now,
                )
            except KyraError as error:
                print(f"sync failed: {error}", file=sys.stderr)
                sys.exit(1)


def etag_of(delivery: Delivery) -> str:
    """As a folder names a version."""
    return hashlib.sha256(delivery.body).hexdigest()


def _tell(diary: Path, rng: random.Random, target: str | None) -> None:
    with diary.open("r+b") as file:
        doing = mmap.mmap(file.fileno(), WIDTH)

    def say(what: str) -> None:
        doing[:] = what.encode().ljust(WIDTH)

    @contextmanager
    def telling(step: str) -> Iterator[None]:
        slowly = AIMED_AT if step == target else SLOWLY
        say(step)
        time.sleep(rng.random() * slowly)
        yield
        time.sleep(rng.random() * slowly)
        say("between")

    def told(owner: Any, name: str, step: Callable[..., str]) -> None:
        original = getattr(owner, name)

        @wraps(original)
        def replacement(*arguments: Any, **options: Any) -> Any:
            with telling(step(*arguments)):
                return original(*arguments, **options)

        setattr(owner, name, replacement)

    def listed(self: FolderBucket, *arguments: Any) -> Any:
        with telling("list"):
            return iter(list(files(self, *arguments)))

    @contextmanager
    def write(self: Database) -> Iterator[Any]:
        caller = sys._getframe(2).f_code.co_name
        step = "commit" if caller == "commit" else "detect" if caller == "record" else f"transaction {caller}"
        with telling(step), transaction(self) as connection:
            yield connection
            time.sleep(rng.random() * SLOWLY)

    files, transaction = FolderBucket.files, Database.write
    FolderBucket.files = listed  # type: ignore[method-assign, assignment]
    Database.write = write  # type: ignore[method-assign, assignment]
    told(FolderBucket, "read", lambda *_: "get")
    told(engine.Engine, "evaluate", lambda *_: "detect")
    told(ParquetFile, "write", lambda file, *_: "stage" if is_data(file.path) else "table")
    for storage in (LocalStorage, S3Storage):
        told(storage, "move", lambda _, source, *__: "publish" if is_data(source) else "table")
        told(storage, "remove_folder", lambda *_: "discard")
    say("begin")
