"""Flow `maintain`: the nightly housekeeping of the lake."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import verbs
from flows.outcome import error_of, told
from kyra_etl.maintain.check import CheckReport
from kyra_etl.maintain.compact import CompactReport
from kyra_etl.maintain.retain import RetainReport

CHECKED = timedelta(days=36)
"""How far back files are read every night: a sync looks 35 days back for late ones."""


@task(name="compact lake", cache_policy=NO_CACHE)
def compact_lake() -> CompactReport:
    """What `kyra maintain compact` does."""
    return verbs.compact()


@task(name="retain", cache_policy=NO_CACHE)
def retain_days() -> RetainReport:
    """What `kyra maintain retain` does: nothing, as long as no number of days is set."""
    return verbs.retain()


@task(name="check lake", cache_policy=NO_CACHE)
def check_lake() -> CheckReport:
    """What `kyra maintain check` does, over the days that log files may still have come in for."""
    return verbs.check_lake((datetime.now(UTC) - CHECKED).date())


@flow(name="maintain", flow_run_name=lambda: f"maintain {runtime.flow_run.scheduled_start_time:%Y-%m-%d}")
def maintain() -> State[Any]:
    """Take away days that were kept long enough, compact those that are over, and check the lake."""
    states: dict[str, State[Any]] = {
        "retain": retain_days(return_state=True),
        "compact": compact_lake(return_state=True),
        "check": check_lake(return_state=True),
    }
    errors = {verb: error for verb, state in states.items() if (error := error_of(state))}
    return concluded(errors, {verb: state.result() for verb, state in states.items() if verb not in errors})


def concluded(errors: Mapping[str, BaseException], done: Mapping[str, Any]) -> State[Any]:
    """Failed with a line for everything that is wrong, else Completed; `done` are reports by verb."""
    compacted: CompactReport = done.get("compact", CompactReport())
    checked: CheckReport = done.get("check", CheckReport((), 0, 0))
    wrong = [
        *(told(error, f"maintain {verb}") for verb, error in errors.items()),
        *(f"{each['account']} {each['date']}: {each['error']}" for each in compacted.failed),
        *(f"{one.check.title}: {one.count}. {one.check.remedy}" for one in checked.faults if one.count),
    ]
    if wrong:
        return Failed(message="\n".join(wrong))
    retained: RetainReport = done.get("retain", RetainReport(dry_run=False))
    gone = f"{retained.events} events removed that were kept long enough; " if retained.events else ""
    return Completed(message=gone + _summary(compacted))


def _summary(report: CompactReport) -> str:
    if report.skipped:
        return f"Skipped: {report.skipped}."
    before, after = (f"{each.get('bytes_per_event', 0):.0f}" for each in (report.before, report.after))
    return (
        f"{report.partitions} partitions compacted, {report.files_read} files became {report.files_written}; "
        f"{before} → {after} bytes an event."
    )
