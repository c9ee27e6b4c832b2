"""A range of dates of an integration, a day at a time: the ordinary road over older folders.

Each day is a run of its own, so a backfill that was stopped goes on where it stood: a day that is loaded costs a
listing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta

from kyra_etl.batch import tidy
from kyra_etl.detection.rule import Corpus
from kyra_etl.discover import discover
from kyra_etl.errors import UsageError
from kyra_etl.lake import Lake
from kyra_etl.model import Integration, Limits, RunReport, Window
from kyra_etl.ports import Clock, LogBucket, Progress, Silent
from kyra_etl.run import Kit, Run, load_found, recorded, report, run_detections
from kyra_etl.state import State


def backfill(
    integration: Integration,
    window: Window,
    *,
    bucket: LogBucket,
    lake: Lake,
    state: State,
    corpus: Corpus | None,
    limits: Limits,
    clock: Clock,
    progress: Progress | None = None,
) -> Iterator[RunReport]:
    """Load the date folders the window touches, oldest first, and yield each day's report as it is done.

    Its alerts are historical. Runs beside a sync: the ledger gives each log file to one of them. Raises KyraError.
    """
    if window.start >= window.end:
        raise UsageError("The range is empty: --from must not be after --to.", "Both are UTC dates, --to included.")
    if window.start > clock():
        raise UsageError("The range lies in the future.", "Give dates that log files can exist for.")
    kit = Kit(lake, state, corpus, limits, clock, progress or Silent())
    tidy(lake=lake, state=state)
    for day in window.days():
        midnight = datetime.combine(day, time.min)
        if midnight > clock() + timedelta(days=1):
            break
        yield _one_day(integration, Window(midnight, midnight + timedelta(days=1)), bucket, kit)


def _one_day(integration: Integration, day: Window, bucket: LogBucket, kit: Kit) -> RunReport:
    with recorded("backfill", integration.name, kit) as entry:
        found = discover(
            entry.run_id,
            integration,
            bucket=bucket,
            state=kit.state,
            limits=kit.limits,
            clock=kit.clock,
            progress=kit.progress,
            window=day,
        )
        entry.problem = found.problem
        run = Run(
            entry.run_id,
            "backfill",
            integration.name,
            integration.bucket,
            bucket,
            entry.started_at,
            account=integration.account_id,
            historical=True,
        )
        load_found(run, kit)
        entry.report = report(run, kit, found, run_detections(kit))
    return entry.report
