"""Batches loaded by Prefect's task runners: processes of this machine, or a Dask cluster's workers.

The journey plans batches in the ledger and hands out their ids; whoever takes one opens the parts by its own settings:
every machine needs the same state, lake and AWS access. A task that runs twice, or whose worker dies, does no harm: the
ledger gives a batch to one attempt, and the commit decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from flows import verbs
from flows.outcome import error_of
from kyra_etl.config import Config
from kyra_etl.errors import ConfigError, KyraError, StateError
from kyra_etl.ports import Spread

EVERY = 5.0
"""Seconds between two looks at how far the others are."""
FETCHED_WITHIN = 60.0
"""Seconds that the result of a task that is over may take to come from its worker."""


@task(name="load batch", task_run_name="load {batch_id}", cache_policy=NO_CACHE)
def load_batch(batch_id: str) -> bool:
    """Load one planned batch, wherever this runs; False when it was done already."""
    return verbs.load_batch(batch_id)


@contextmanager
def chosen(settings: Config) -> Iterator[Spread | None]:
    """How the settings have batches loaded: None for this process alone. Raises ConfigError when it is used.

    Workers are started by the first batches, and stay for all that come until the end of the context.
    """
    if settings.task_runner == "threads":
        yield None
        return
    runners: list[TaskRunner[Any]] = []
    with ExitStack() as until_the_end:

        def spread(batch_ids: Sequence[str], alive: Callable[[], object]) -> None:
            if not runners:
                runners.append(until_the_end.enter_context(_runner(settings)))
            futures = [runners[0].submit(load_batch, parameters={"batch_id": batch_id}) for batch_id in batch_ids]
            errors = [error for future in futures if (error := _ended(future, alive)) is not None]
            if errors:
                # One of ours first: it says what to do.
                raise next((error for error in errors if isinstance(error, KyraError)), errors[0])

        yield spread


def _ended(future: PrefectFuture[Any], alive: Callable[[], object]) -> BaseException | None:
    """Wait for one task; why it failed, if it did."""
    inner: Any = getattr(future, "wrapped_future", None)
    while True:
        alive()
        was_over = inner is not None and inner.done()  # looked at first: it may end while Prefect's server is asked
        with suppress(BrokenExecutor):
            future.wait(timeout=FETCHED_WITHIN if was_over else EVERY)
        state = future.state
        if state.is_final():
            return error_of(state)
        if was_over and inner.done():  # a result that is lost on its way is worked out again
            return StateError("A worker died of a batch.", "Its log files wait; the next run loads them.")


def _runner(settings: Config) -> TaskRunner[Any]:
    workers = settings.task_workers or os.cpu_count() or 1
    if settings.task_runner == "processes":
        return ProcessPoolTaskRunner(max_workers=workers)
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError:
        raise ConfigError('task_runner = "dask" needs Dask.', "Run: pip install distributed prefect-dask") from None
    if settings.dask_address is not None:
        return DaskTaskRunner(address=settings.dask_address)
    local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=local)
