"""Flow `maintain`: the nightly housekeeping of the lake."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import verbs
from flows.outcome import error_of, told
from kyra_etl.maintain.compact import CompactReport


@task(name="compact lake", cache_policy=NO_CACHE)
def compact_lake() -> CompactReport:
    """What `kyra maintain compact` does."""
    return verbs.compact()


@flow(name="maintain", flow_run_name=lambda: f"maintain {runtime.flow_run.scheduled_start_time:%Y-%m-%d}")
def maintain() -> State[Any]:
    """Complete what crashed runs left half done, and compact the days that are over."""
    compacted = compact_lake(return_state=True)
    error = error_of(compacted)
    if error:
        return Failed(message=told(error, "maintain"))
    report: CompactReport = compacted.result()
    failed = [f"{each['account']} {each['date']}: {each['error']}" for each in report.failed]
    return Failed(message="\n".join(failed)) if failed else Completed(message=_summary(report))


def _summary(report: CompactReport) -> str:
    if report.skipped:
        return f"Skipped: {report.skipped}."
    before, after = (f"{each['bytes_per_event']:.0f}" for each in (report.before, report.after))
    return (
        f"{report.partitions} partitions compacted, {report.files_read} files became {report.files_written}; "
        f"{before} → {after} bytes an event."
    )
