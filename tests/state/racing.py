"""What several processes do at once in the tests of races. Module-level, so that they can be sent to processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.pool import Pool

from sqlalchemy import Engine, event

from kyra_etl.errors import CommitRefused, VersionMismatch
from kyra_etl.state import State
from tests.state.making import NOW, committing, file


@contextmanager
def processes(count: int) -> Iterator[Pool]:
    """Real processes that have imported the package already, so that they meet."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.state.racing"])
    with context.Pool(count) as pool:
        yield pool
        pool.close()
        pool.join()


def open_once(url: str) -> str:
    with State.open(url) as state:
        return state.id


def die_while_opening(url: str, statement: str) -> None:
    """Open, and so bring forward, a database; killed before the first statement with this text in it."""

    def watch(_connection: object, _cursor: object, said: str, *_rest: object) -> None:
        if statement in said:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", watch)
    State.open(url).close()


def sync_everything(task: tuple[str, int, int]) -> tuple[int, int, int]:
    """One whole run over `count` files in pages, in an order of its own: (seen as new, files committed, refused)."""
    url, number, count = task
    numbers = list(range(count))
    numbers = numbers[number * 7 % count :] + numbers[: number * 7 % count]
    new = committed = refused = 0
    with State.open(url) as state:
        run_id = state.runs.start("sync", "acme", NOW)
        for start in range(0, count, 100):
            page = [file(n) for n in numbers[start : start + 100]]
            new += state.ledger.observe(run_id, "acme", "logs", page, "listed", NOW).new
        waiting = state.ledger.workable(run_id)
        for start in range(0, len(waiting), 50):
            batch = state.ledger.plan(
                run_id,
                "acme",
                "logs",
                waiting[start : start + 50],
                owner=run_id,
                lease_seconds=600,
                historical=False,
                now=NOW,
            )
            while batch is not None:
                try:
                    state.ledger.commit(committing(state, batch), NOW)
                    committed += len(batch.entries)
                    break
                except VersionMismatch:
                    refused += 1
                except CommitRefused:
                    break
    return new, committed, refused


def take_lease(task: tuple[str, int]) -> bool:
    url, number = task
    with State.open(url) as state:
        return state.leases.take("sync:acme", f"owner {number}", 600) is not None


def take_over(task: tuple[str, int]) -> list[int]:
    """Takes over what is overdue; the attempts it got."""
    url, number = task
    with State.open(url) as state:
        run_id = state.runs.start("sync", "acme", NOW)
        batches = state.ledger.take_over(run_id, "acme", owner=f"owner {number}", lease_seconds=600)
        return [batch.attempt for batch in batches]
