"""Flow `backfill`: the log files of a range of dates, for one integration."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from prefect import flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import spread, verbs
from flows.events import tell
from flows.outcome import conclude, error_of, is_transient, leave_artifacts, plan_rows, plan_summary, summary
from flows.progress import ProgressArtifact
from kyra_etl import config
from kyra_etl.backfill import Plan, unfinished
from kyra_etl.model import RunReport, Window


def _run_name() -> str:
    given = runtime.flow_run.parameters
    verb = "plan of backfill" if given.get("plan") else "backfill"
    return f"{verb} {given.get('integration')} {given.get('start')} to {given.get('end')}"


@task(name="plan backfill", task_run_name="plan {name}", cache_policy=NO_CACHE)
def plan_backfill(name: str, window: Window, accounts: list[str] | None) -> Plan:
    """What `kyra backfill NAME --from START --to END --plan` does."""
    return verbs.plan(name, window, accounts)


@task(
    name="backfill integration",
    task_run_name="backfill {name}",
    retries=2,
    retry_delay_seconds=[10, 40],
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def backfill_integration(
    name: str, window: Window, accounts: list[str] | None, keep: Callable[[tuple[str, RunReport]], object]
) -> str | None:
    """What `kyra backfill NAME --from START --to END` does; why it ended before its last day, if it did.

    `keep` is given each day with its report, of each attempt.
    """
    days = window.days()
    progress = ProgressArtifact("backfill-progress", len(days))
    done: list[RunReport] = []
    with spread.chosen(config.load()) as batches:
        # Reports first: what could not be listed is told after that of the last day.
        for report, day in zip(verbs.backfill(name, window, accounts, progress, batches), days, strict=False):
            keep((day.isoformat(), report))
            done.append(report)
            if not report.skipped:
                progress.advance_day(summary(done))
    stopped = unfinished(name, days, done)
    if stopped is None:
        progress.finish(summary(done))
    return stopped


@flow(name="backfill", flow_run_name=_run_name)
def backfill(
    integration: str, start: date, end: date, accounts: list[str] | None = None, plan: bool = False
) -> State[Any]:
    """Load the log files of a range of dates. It may be repeated: what is in the lake already is not loaded again.

    Args:
        integration: Name of the integration.
        start: First date, in UTC.
        end: Last date, in UTC, included.
        accounts: These accounts only; empty means all of them.
        plan: Tell how many files, bytes and requests it would take, and load nothing.
    """
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    last = min(end, max(start, tomorrow))  # as far as there can be log files
    window = Window(datetime.combine(start, time()), datetime.combine(last, time()) + timedelta(days=1))
    if plan:
        planned = plan_backfill(integration, window, accounts or None, return_state=True)
        if error := error_of(planned):
            return conclude({integration: error}, {})
        made: Plan = planned.result()
        create_table_artifact(plan_rows(made), key="backfill-plan", description=plan_summary(made))
        return Completed(message=f"{integration}: {plan_summary(made)}")
    days: list[tuple[str, RunReport]] = []
    state = backfill_integration(integration, window, accounts or None, days.append, return_state=True)
    reports = [report for _, report in days if not report.skipped]
    if reports:
        verbs.publish_status()
    leave_artifacts("backfill", "day", days, verbs.alerts(reports))
    tell()
    done = {integration: summary(reports)} if reports else {}
    if error := error_of(state):
        return conclude({integration: error}, done)
    if stopped := state.result():
        return Completed(
            name="Stopped", message="\n".join([stopped, *(f"{name}: {what}" for name, what in done.items())])
        )
    if not any(report.listed for report in reports):
        return conclude({}, {integration: "there is no log file of these days in the bucket."})
    return conclude({}, done)
