"""The deployments `kyra serve` works off: `python -m flows.deployments` registers them and runs what is due."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import prefect
from prefect import aserve, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed
from prefect.types.entrypoint import EntrypointType

from flows.backfill import backfill
from flows.check import check
from flows.maintain import maintain
from flows.orphans import GOING_ON, OURS, close_orphaned_runs, processes
from flows.sync import sync
from kyra_etl import config
from kyra_etl.errors import ConfigError, KyraError

log = logging.getLogger("kyra_etl.flows")

MODULE = EntrypointType.MODULE_PATH
ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
"""Where the beat starts: five minutes mean :00, :05, :10 …, across restarts."""
OVERDUE = timedelta(seconds=15)
"""How late a run may start; the runner asks for what is due every five seconds."""
PROCESSES = 4
"""Runs at the same time, backfills aside: a long first sync must not keep the other integrations waiting."""
BACKFILLS = 2
"""Backfills at the same time, and more wait: they last for hours, and must not take the syncs' places."""


def deployments(sync_seconds: int) -> list[RunnerDeployment]:
    """Every deployment, with its schedule; the module entry points work from a checkout and from a wheel."""
    every = Interval(timedelta(seconds=sync_seconds), anchor_date=ANCHOR)
    return [
        RunnerDeployment.from_flow(sync, "sync", schedule=every, entrypoint_type=MODULE),
        RunnerDeployment.from_flow(backfill, "backfill", entrypoint_type=MODULE),
        RunnerDeployment.from_flow(check, "check", schedule=Cron("17 * * * *"), entrypoint_type=MODULE),
        RunnerDeployment.from_flow(maintain, "maintain", schedule=Cron("30 2 * * *"), entrypoint_type=MODULE),
    ]


def close_stale_runs(now: datetime) -> int:
    """End what an earlier runner left behind, on Prefect's page only; how many runs that were.

    When a runner starts, all that its predecessor started has ended: such runs still shown as going on have crashed,
    and scheduled runs missed meanwhile are called off, since the next one loads everything anyway.
    """
    crashed: State[None] = Crashed(
        message="kyra serve ended during this run; the next one carries on where it stopped."
    )
    missed: State[None] = Cancelled(message="Missed while kyra serve was not running; the next one makes up for it.")
    before = FlowRunFilterExpectedStartTime.model_validate({"before_": now})
    with get_client(sync_client=True) as client:
        going_on = client.read_flow_runs(flow_filter=OURS, flow_run_filter=FlowRunFilter(state=_in(*GOING_ON)))
        due = client.read_flow_runs(
            flow_filter=OURS, flow_run_filter=FlowRunFilter(state=_in(StateType.SCHEDULED), expected_start_time=before)
        )
        stale = [(run.id, crashed) for run in going_on] + [(run.id, missed) for run in due if run.auto_scheduled]
        for run_id, state in stale:
            client.set_flow_run_state(run_id, state, force=True)
    return len(stale)


def call_off_overdue_runs(now: datetime) -> int:
    """Call off scheduled runs that could not start in time where a later one of their deployment is due too.

    When runs take longer than the schedule's period, Prefect would work off every one that was missed; the latest does
    the work of all. How many were called off. What was started by hand stays.
    """
    before = FlowRunFilterExpectedStartTime.model_validate({"before_": now - OVERDUE})
    called_off: State[None] = Cancelled(message="It could not start in time; the run after it does its work.")
    with get_client(sync_client=True) as client:
        due = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=_in(StateType.SCHEDULED), expected_start_time=before),
            flow_filter=OURS,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
        needless = all_but_the_latest(due)
        for run in needless:
            client.set_flow_run_state(run.id, called_off, force=True)
    return len(needless)


def all_but_the_latest(due: Iterable[FlowRun]) -> list[FlowRun]:
    """Of runs that are due, latest first: those of the schedule that a later run of their deployment makes needless."""
    scheduled = [run for run in due if run.auto_scheduled]
    latest = {run.deployment_id: run.id for run in reversed(scheduled)}
    return [run for run in scheduled if latest[run.deployment_id] != run.id]


def _tidy_from_now_on(stopped: Event) -> None:
    while not stopped.wait(OVERDUE.total_seconds()):
        try:
            call_off_overdue_runs(datetime.now(UTC))
            living = processes(os.getpid())
            close_orphaned_runs(datetime.now(UTC), living)
        except Exception as error:  # the server is away or busy; the next look finds them too
            log.debug("Overdue and orphaned runs were not ended: %s", error)


def _in(*types: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


def require_server() -> None:
    """Raise KyraError when no Prefect server is there, ConfigError when it is not one for the Prefect here.

    A newer server of the same major version does; of an older one Prefect itself says that anything may happen.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise ConfigError(
            "PREFECT_API_URL is not set.", "Set it to your Prefect server, or run `kyra serve`, which brings one."
        )
    shown = re.sub("//[^/]*@", "//", url)  # without a password
    with get_client(sync_client=True) as client:
        try:
            theirs = str(client.api_version())
        except Exception as error:
            raise KyraError(
                f"No Prefect server answers at {shown} ({type(error).__name__}).",
                "Start it, or mend PREFECT_API_URL; nothing is lost meanwhile.",
            ) from None
    server, (major, minor) = _release(theirs), _release(prefect.__version__)
    if not (major, minor) <= server < (major + 1, 0):
        raise ConfigError(
            f"The Prefect server at {shown} is of version {theirs[:20]}; the Prefect here is {prefect.__version__}.",
            f"Bring the server to {prefect.__version__} or a later {major}.x, then start this again.",
        )


def _release(version: str) -> tuple[int, int]:
    """Major and minor version; zeros of what is no version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


async def _work(sync_seconds: int) -> None:
    """Two of Prefect's runners in this process, each with its own number of runs at the same time."""
    every = deployments(sync_seconds)
    # Not paused at the end: the server ends with us, and a pause that fails would leave the schedule off.
    options = {"pause_on_shutdown": False, "print_starting_message": False}
    await asyncio.gather(
        aserve(*(one for one in every if one.name != "backfill"), limit=PROCESSES, **options),
        aserve(*(one for one in every if one.name == "backfill"), limit=BACKFILLS, **options),
    )


def main() -> int:
    """Register the deployments, then run what is due until told to stop."""
    try:
        require_server()
        settings = config.load()
    except KyraError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    close_stale_runs(datetime.now(UTC))
    stopped = Event()
    Thread(target=_tidy_from_now_on, args=(stopped,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        asyncio.run(_work(settings.sync_seconds))
    stopped.set()
    close_stale_runs(datetime.now(UTC))
    return 0


if __name__ == "__main__":
    sys.exit(main())
