"""Flow `backfill`: the log files of a range of dates, for one integration."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows import verbs
from flows.outcome import conclude, error_of, is_transient, leave_artifacts, summary
from flows.progress import ProgressArtifact
from kyra_etl.model import RunReport, Window


def _run_name() -> str:
    given = runtime.flow_run.parameters
    return f"backfill {given.get('integration')} {given.get('start')} to {given.get('end')}"


@task(
    name="backfill integration",
    task_run_name="backfill {name}",
    retries=2,
    retry_delay_seconds=[10, 40],
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def backfill_integration(name: str, start: date, end: date) -> list[tuple[str, RunReport]]:
    """What `kyra backfill NAME --from START --to END` does; a report a day, by date."""
    window = Window(datetime.combine(start, time()), datetime.combine(end, time()) + timedelta(days=1))
    days = window.days()
    progress = ProgressArtifact("backfill-progress", len(days), unit="days")
    done = []
    for day, report in zip(days, verbs.backfill(name, window), strict=False):  # days to come are left out
        done.append((day.isoformat(), report))
        progress.advance()
    progress.finish(summary([report for _, report in done]))
    return done


@flow(name="backfill", flow_run_name=_run_name)
def backfill(integration: str, start: date, end: date) -> State[Any]:
    """Load the log files of a range of dates. It may be repeated: what is in the lake already is not loaded again.

    Args:
        integration: Name of the integration.
        start: First date, in UTC.
        end: Last date, in UTC, included.
    """
    state = backfill_integration(integration, start, end, return_state=True)
    if error := error_of(state):
        return conclude({integration: error}, {})
    days: list[tuple[str, RunReport]] = state.result()
    reports = [report for _, report in days]
    leave_artifacts("backfill", "day", days, verbs.alerts(reports))
    return conclude({}, {integration: summary(reports)})
