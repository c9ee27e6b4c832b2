"""Runs whose process has ended, or that go on although they were cancelled, while Prefect's page says otherwise.

Prefect's runner reports a process that died and ends one that is cancelled, and it repeats what a server does not take;
but only for about a minute. When the server is away for longer, a run that died meanwhile stays "Running" for good, and
"Cancel" does nothing any more. So the system's own list of processes is asked.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from prefect import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Crashed

from flows.backfill import backfill
from flows.check import check
from flows.maintain import maintain
from flows.sync import sync

log = logging.getLogger("kyra_etl.flows")

GOING_ON = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
OURS = FlowFilter(name=FlowFilterName(any_=[flow.name for flow in (sync, backfill, check, maintain)]))
"""The flows of which runs are ended here: a Prefect server may have those of other people, too."""
PATIENCE = timedelta(seconds=90)
"""How long Prefect's runner may take to say the same: it tries for about a minute."""
CANCELLED = "Cancelled; what was committed stays."
CRASHED = "Its process ended while Prefect's server was away; the next run carries on where it stopped."
VARIABLE = b"PREFECT__FLOW_RUN_ID="


def processes(runner: int) -> dict[str, int] | None:
    """The process of each flow run that a runner has started; None where the system does not tell."""
    # Twice: while a child ends, the system may leave another one out, and a run that goes on would be given up.
    threads = [thread for _ in range(2) for thread in Path(f"/proc/{runner}/task").glob("*/children")]
    if not threads:
        return None
    found: dict[str, int] = {}
    for thread in threads:
        for pid in thread.read_text().split():
            with suppress(OSError):  # it has ended
                for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    if variable.startswith(VARIABLE):
                        found[variable.removeprefix(VARIABLE).decode(errors="replace")] = int(pid)
    return found


def close_orphaned_runs(now: datetime, living: Mapping[str, int] | None) -> int:
    """End what Prefect's runner should have ended `PATIENCE` ago; how many runs that were.

    `living`, from `processes`, has to be older than this call: what ends in between has told its last state before it
    is looked at here. Runs of work pools have workers of their own and are left to them, as are those that somebody
    started without a deployment, in a process that is not the runner's.
    """
    if living is None:
        return 0
    closed = 0
    with get_client(sync_client=True) as client:
        types = FlowRunFilterStateType(any_=list(GOING_ON))
        going_on = FlowRunFilter(state=FlowRunFilterState(type=types))
        for run in client.read_flow_runs(flow_filter=OURS, flow_run_filter=going_on):
            if run.work_pool_name or run.deployment_id is None:
                continue
            if run.state is None or run.state.timestamp > now - PATIENCE:
                continue
            pid, is_cancelled = living.get(str(run.id)), run.state.type == StateType.CANCELLING
            if pid is not None and not is_cancelled:
                continue
            ended: State[None] = Cancelled(message=CANCELLED) if is_cancelled else Crashed(message=CRASHED)
            client.set_flow_run_state(run.id, ended)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            closed += 1
    return closed
