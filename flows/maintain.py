"""Flow `maintain`: the nightly housekeeping of the lake."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import verbs
from flows.outcome import error_of, told


@task(name="tidy lake", cache_policy=NO_CACHE)
def tidy_lake() -> None:
    """Publish what is committed and sweep what never will be."""
    verbs.maintain()


@flow(name="maintain", flow_run_name=lambda: f"maintain {runtime.flow_run.scheduled_start_time:%Y-%m-%d}")
def maintain() -> State[Any]:
    """Complete in the lake what crashed runs left half done."""
    error = error_of(tidy_lake(return_state=True))
    return Failed(message=told(error, "maintain")) if error else Completed(message="The lake is tidy.")
