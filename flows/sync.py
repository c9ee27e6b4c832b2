"""Flow `sync`: one incremental run of one integration, or of all of them one after the other."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import spread, verbs
from flows.events import tell_states
from flows.outcome import conclude, error_of, is_transient, leave_artifacts, summary
from kyra_etl import config
from kyra_etl.model import RunReport


def _run_name() -> str:
    name = runtime.flow_run.parameters.get("integration") or ""
    return f"sync {name} {runtime.flow_run.scheduled_start_time:%H:%M}".replace("  ", " ")


@task(
    name="sync integration",
    task_run_name="sync {name}",
    retries=2,
    retry_delay_seconds=[10, 40],
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def sync_integration(name: str) -> RunReport:
    """What `kyra sync NAME` does."""
    with spread.chosen(config.load()) as batches:
        return verbs.sync(name, batches)


@flow(name="sync", flow_run_name=_run_name)
def sync(integration: str | None = None) -> State[Any]:
    """Load the log files AWS delivered since the last run and run the detections over their events.

    Args:
        integration: Name of one integration; empty means all of them, one after the other.
    """
    names = [integration] if integration else verbs.integration_names()
    if not names:
        return Completed(message="There is no integration to sync yet: see `kyra integration add --help`.")
    before = verbs.states()
    states = {name: sync_integration(name, return_state=True) for name in names}
    tell_states(before, verbs.states())
    errors = {name: error for name, state in states.items() if (error := error_of(state))}
    reports: dict[str, RunReport] = {name: state.result() for name, state in states.items() if name not in errors}
    if any(not report.skipped for report in reports.values()):
        verbs.publish_status()
    leave_artifacts("sync", "integration", list(reports.items()), verbs.alerts(list(reports.values())))
    done = {name: summary([report]) for name, report in reports.items()}
    return conclude(errors, done, skipped=all(report.skipped for report in reports.values()))
