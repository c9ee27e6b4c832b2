"""Flow `sync`: one incremental run of one integration, or of all of them one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import spread, verbs
from flows.events import tell
from flows.outcome import conclude, error_of, is_transient, keeping, leave_artifacts, summary
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
def sync_integration(name: str, keep: Callable[[RunReport], object]) -> None:
    """What `kyra sync NAME` does. `keep` is given the report, of each attempt that has one."""
    with spread.chosen(config.load()) as batches, keeping(keep):
        keep(verbs.sync(name, batches))


@flow(name="sync", flow_run_name=_run_name)
def sync(integration: str | None = None) -> State[Any]:
    """Load the log files AWS delivered since the last run and run the detections over their events.

    Args:
        integration: Name of one integration; empty means all of them, one after the other.
    """
    names = [integration] if integration else verbs.integration_names()
    if not names:
        return Completed(message="There is no integration to sync yet: see `kyra integration add --help`.")
    kept: dict[str, list[RunReport]] = {name: [] for name in names}
    states = {name: sync_integration(name, kept[name].append, return_state=True) for name in names}
    errors = {name: error for name, state in states.items() if (error := error_of(state))}
    rows = [(name, report) for name, some in kept.items() for report in some]
    reports = [report for _, report in rows]
    if any(not report.skipped for report in reports):
        verbs.publish_status()
    leave_artifacts("sync", "integration", rows, verbs.alerts(reports))
    tell()
    done = {name: summary(some) for name, some in kept.items() if some}
    return conclude(errors, done, skipped=all(report.skipped for report in reports))
