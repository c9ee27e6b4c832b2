"""Several syncs of one integration started at once, as processes, by the command line."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import multiprocessing
import os
from datetime import UTC, datetime
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import cli, resources
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.postgres import Server
from tests.simulation import truth

FILES = 40
ACCOUNT = "111122223333"


def _fill(bucket: Path) -> dict[str, bytes]:
    now = datetime.now(UTC)
    bodies = {}
    for number in range(FILES):
        # Every event is in two files, as with two trails into one bucket.
        records = [
            {
                "eventID": f"e{each}",
                "eventTime": f"{now:%Y-%m-%d}T00:00:00Z",
                "eventName": "DescribeInstances",
                "recipientAccountId": ACCOUNT,
            }
            for each in (number, (number + 1) % FILES)
        ]
        name = f"{ACCOUNT}_CloudTrail_eu-west-1_{now:%Y%m%d}T0000Z_{number:016d}.json.gz"
        bodies[f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/{now:%Y/%m/%d}/{name}"] = gzip.compress(
            json.dumps({"Records": records}).encode()
        )
    for key, body in bodies.items():
        (bucket / key).parent.mkdir(parents=True, exist_ok=True)
        (bucket / key).write_bytes(body)
    return bodies


def sync(home: Path, start: Barrier, others_are_done: Event, ended: SimpleQueue[tuple[int, str, str]]) -> None:
    """`kyra sync acme --json` in a process; whoever gets to work does not finish before the others have ended."""
    import kyra_etl.sync

    discover = kyra_etl.sync.discover

    def waiting(*arguments: Any, **options: Any) -> Any:
        others_are_done.wait(400)
        return discover(*arguments, **options)

    kyra_etl.sync.discover = waiting
    for name in [name for name in os.environ if name.startswith("KYRA_")]:
        del os.environ[name]  # of whichever test began the server that forks us
    os.environ["KYRA_HOME"] = str(home)
    out, err = io.StringIO(), io.StringIO()
    code = -1
    try:
        start.wait(400)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(["sync", "acme", "--json"])
    finally:
        ended.put((code, out.getvalue(), err.getvalue()))


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_one_sync_works_and_the_others_say_so(
    backend: str, processes: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home, bucket = tmp_path / "home", tmp_path / "bucket"
    home.mkdir()
    url = f"sqlite:///{home}/state.db"
    if backend == "postgres":
        server: Server = request.getfixturevalue("postgres")
        url = server.create()
    detections = sorted(path.stem for path in resources.detections_dir().rglob("*.sql"))
    (home / "kyra.toml").write_text(
        f"state_url = {json.dumps(url)}\n[detections]\ndisable = {json.dumps(detections)}\n"
    )
    bodies = _fill(bucket)
    with State.open(url) as state:
        state.integrations.add(Integration("acme", bucket.as_uri()), datetime(2026, 1, 1))

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.simulation.victim"])
    start, others_are_done = context.Barrier(processes), context.Event()
    ended: SimpleQueue[tuple[int, str, str]] = context.SimpleQueue()
    running = [
        context.Process(target=sync, args=(home, start, others_are_done, ended), daemon=True) for _ in range(processes)
    ]
    for process in running:
        process.start()
    skipped = [ended.get() for _ in range(processes - 1)]
    others_are_done.set()
    worked = ended.get()
    for process in running:
        process.join(60)

    for code, out, _ in skipped:
        assert code == 0
        assert json.loads(out)["runs"][0]["skipped"] == "another sync of this integration is running"
    code, out, err = worked
    assert code == 0, err
    report = json.loads(out)
    assert (report["loaded"], report["events"], report["duplicates"]) == (FILES, FILES, FILES)
    held = truth.events_in(home / "lake")
    assert held.keys() == truth.events_of(bodies.items())
    assert set(held.values()) == {1}
