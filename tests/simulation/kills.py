"""Processes killed with SIGKILL, dozens of times, while a bucket fills; then the verdict."""

from __future__ import annotations

import logging
import multiprocessing
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import boto3

from tests.simulation import delivery, victim
from tests.simulation.bucket import Delivery
from tests.simulation.verdict import Scene, Verdict, judge
from tests.simulation.victim import STEPS, WIDTH, Home

PATIENCE = 30.0
"""Seconds after which a process that never comes to the step aimed at is killed wherever it is."""
LONGEST = 900.0
"""Seconds a process may take to come to its end."""


@dataclass
class Killed:
    """What so many rounds came to."""

    rounds: int = 0
    killed: int = 0
    at: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)

    def steps(self) -> dict[str, int]:
        return {step: self.at[step] for step in STEPS}


def kill(rounds: int, seed: int, *, s3: str | None = None) -> Killed:
    """Kill a process in every round, each at another step or at any moment, and judge what is left in the end.

    `s3` is the endpoint of an S3 with an empty bucket "lake"; without it the lake is a directory.
    """
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="kyra-kills-"))
    try:
        deliveries = _deliveries(rng, rounds)
        home = Home(folder, deliveries[0].prefix, deliveries[0].end, s3)
        home.bucket.mkdir()
        objects = [each for story in deliveries for each in story.deliveries]
        killed = Killed(rounds)
        for number in range(rounds):
            share = slice(len(objects) * number // rounds, len(objects) * (number + 1) // rounds)
            _deliver(home.bucket, objects[share])
            target = min(STEPS, key=lambda step: killed.at[step]) if rng.random() < 0.9 else None
            _round(home, target, rng, killed)
        _run_to_the_end(home, killed)
        _judge(home, objects, killed)
        return killed
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _deliveries(rng: random.Random, rounds: int) -> list[delivery.Story]:
    """Enough to keep every round busy, all within days that a sync always looks through."""
    first = delivery.story(rng, spans=delivery.HOURS)
    stories = [first]
    while sum(len(story.deliveries) for story in stories) < rounds * 3:
        stories.append(delivery.Story(first.start, first.end, first.prefix))
        stories[-1].deliveries.extend(delivery.written(rng, stories[-1]))
    for story in stories:
        # A folder knows neither deletions nor objects that stand for folders.
        story.deliveries = [each for each in story.deliveries if each.gone is None and not each.key.endswith("/")]
    return stories


def _deliver(bucket: Path, objects: list[Delivery]) -> None:
    for each in objects:
        target = bucket / each.key
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = bucket.parent / "arriving"
        draft.write_bytes(each.body)
        draft.replace(target)


def _round(home: Home, target: str | None, rng: random.Random, killed: Killed) -> None:
    home.diary.write_bytes(b" " * WIDTH)
    process = _start(home, 50, rng.getrandbits(32), target)
    _wait(home, process, target, rng)
    process.kill()
    process.join()
    if process.exitcode == -9:
        killed.killed += 1
        killed.at[home.diary.read_bytes().decode().strip() or "starting"] += 1
    elif process.exitcode != 0:
        killed.verdict.complaints.append(f"a sync ended with {process.exitcode} by itself")
    process.close()


def _wait(home: Home, process: BaseProcess, target: str | None, rng: random.Random) -> None:
    """Until the process is at the step aimed at, for the first or a later time; or for any while."""
    until = time.monotonic() + PATIENCE
    diary = home.diary.open("rb", buffering=0)
    with diary:
        while not diary.read().strip() and process.is_alive() and time.monotonic() < until:
            time.sleep(0.001)
            diary.seek(0)
        if target is None:
            time.sleep(rng.random() * 1.5)
            return
        skip = rng.choice((0, 0, 0, 1))
        before = ""
        while process.is_alive() and time.monotonic() < until:
            diary.seek(0)
            doing = diary.read().decode().strip()
            if doing == target and doing != before:
                if not skip:
                    break
                skip -= 1
            before = doing
            time.sleep(0.0002)
    time.sleep(rng.random() * victim.AIMED_AT * 0.7)  # before, in, or after what the step does


def _run_to_the_end(home: Home, killed: Killed) -> None:
    process = _start(home, 2, None)
    process.join(LONGEST)
    if process.exitcode != 0:
        killed.verdict.complaints.append(f"the last sync ended with {process.exitcode}")
        process.kill()
        process.join()


def _start(home: Home, times: int, seed: int | None, target: str | None = None) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.simulation.victim"])
    process: BaseProcess = context.Process(target=victim.run, args=(home, times, seed, target), daemon=True)
    process.start()
    return process


def _judge(home: Home, objects: list[Delivery], killed: Killed) -> None:
    lake = home.folder / "lake"
    if home.s3 is not None:
        _download(home.s3, f"{home.s3_prefix}/", lake)
    with home.state() as state:
        scene = Scene(
            state=state,
            lake=lake,
            folder=home.folder,
            deliveries=objects,
            integrations=[home.integration],
            prefix=home.prefix,
            now=home.now,
            corpus=victim.corpus(),
            etag=victim.etag_of,
        )
        complaints = killed.verdict.complaints
        killed.verdict = judge(scene)
        killed.verdict.complaints[:0] = complaints


def _download(endpoint: str, prefix: str, lake: Path) -> None:
    """The lake as it lies on S3, by nothing of ours."""
    s3: Any = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="lake", Prefix=prefix):
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                target = lake / item["Key"].removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(s3.get_object(Bucket="lake", Key=item["Key"])["Body"].read())


@contextmanager
def s3_for_the_lake() -> Iterator[str]:
    """An S3 of our own on this machine, with an empty bucket for the lake."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="lake")
        yield endpoint
    finally:
        server.stop()
