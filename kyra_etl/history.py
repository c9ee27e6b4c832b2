"""What an account did before its log files were collected: LookupEvents, hour by hour, newest first.

A closed hour of a region is loaded like a log file, by the same road and ledger: an hour that is loaded is never asked
for again, so a run that was stopped goes on where it stood. Events that come by S3 later are duplicates. Detections run
at the end, when first-seen ones have the whole history to compare with; their alerts are historical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from kyra_etl.cloudtrail import hours
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import DamagedFile, UsageError
from kyra_etl.lake import Lake
from kyra_etl.listing import Found
from kyra_etl.model import Integration, LedgerEntry, Limits, RunReport, Window
from kyra_etl.owner import owner_of
from kyra_etl.ports import Clock, LogBucket, Progress, Silent
from kyra_etl.run import Kit, Run, first_of, load_planned, recorded, report, run_detections
from kyra_etl.settle import tidy
from kyra_etl.state import State

PAGE = 1_000
BRISK, SLOW = timedelta(seconds=30), timedelta(minutes=2)
"""A batch that took less may be twice as long the next time, one that took more half as long: what a kill costs."""

MOST_HOURS = 24

LEASE_SECONDS = 900
"""An hour of a busy region takes minutes to read."""


@dataclass(frozen=True, slots=True)
class Span:
    """What to fetch: whole days back from now, in these regions of the account, for so long at most."""

    account: str
    regions: Sequence[str]
    days: int = hours.DAYS
    at_most: timedelta = timedelta(hours=1)


def history(
    integration: Integration,
    span: Span,
    *,
    bucket: LogBucket,
    lake: Lake,
    state: State,
    corpus: Corpus | None,
    limits: Limits,
    clock: Clock,
    progress: Progress | None = None,
) -> RunReport:
    """Load the hours of `span` that are not loaded yet; `pending` counts those that time did not suffice for.

    `bucket` reads an hour by its key (`kyra_etl.aws.history.History`). Raises KyraError; what was committed by then
    stays.
    """
    if not 1 <= span.days <= hours.DAYS:
        raise UsageError(f"--days must be from 1 to {hours.DAYS}.", f"LookupEvents reaches back {hours.DAYS} days.")
    # A thread a region: the pace is by region. Hours are small: processes would cost more than they save.
    limits = replace(
        limits,
        fetch_threads=max(len(span.regions), 1),
        decode_processes=1,
        lease_seconds=max(limits.lease_seconds, LEASE_SECONDS),
    )
    kit = Kit(lake, state, corpus, limits, clock, progress or Silent())
    with recorded("backfill", integration.name, kit) as entry:
        until = clock() + span.at_most
        lease = state.leases.take(f"history:{span.account}", owner_of(entry.run_id), limits.lease_seconds)
        if lease is None:
            why = "another run is fetching this account's history"
            entry.report = RunReport(
                entry.run_id, "backfill", integration.name, entry.started_at, finished_at=clock(), skipped=why
            )
            return entry.report
        with lease:
            tidy(lake=lake, state=state)
            run = Run(
                entry.run_id,
                "backfill",
                integration.name,
                hours.BUCKET,
                bucket,
                entry.started_at,
                account=span.account,
                historical=True,
                lease=lease,
            )
            found = _observe(run, span, kit)
            entry.problem = _load(run, span, kit, until)
            entry.report = report(run, kit, found, run_detections(kit))
    return entry.report


def _observe(run: Run, span: Span, kit: Kit) -> Found:
    """Tell the ledger of every hour there is; those it has loaded are done with."""
    now, found = kit.clock(), Found()
    wanted = hours.closed(span.account, span.regions, Window(now - timedelta(days=span.days), now), now)
    while page := list(islice(wanted, PAGE)):
        observed = kit.state.ledger.observe(run.run_id, run.integration, run.bucket_name, page, "listed", now)
        found.listed += len(page) - observed.repeated
        found.already_loaded += observed.already_loaded
    return found


def _load(run: Run, span: Span, kit: Kit, until: datetime) -> DamagedFile | None:
    """Batches of some hours in every region, newest first, as long as there is time; and what kept one from it."""
    ledger, owner = kit.state.ledger, owner_of(run.run_id)
    lease_seconds = kit.limits.lease_seconds
    overdue = ledger.take_over(
        run.run_id, run.integration, bucket=run.bucket_name, owner=owner, lease_seconds=lease_seconds
    )
    left = sorted(ledger.workable(run.run_id), key=_hour, reverse=True)
    kit.progress.stage("Fetching hours", len(left) + sum(len(batch.entries) for batch in overdue))
    problems = [load_planned(batch, run, kit) for batch in overdue]
    length = 1
    while left and (begun := kit.clock()) < until and not _is_paused(run.integration, kit):
        count = length * len(span.regions)
        some, left = left[:count], left[count:]
        planned = ledger.plan(
            run.run_id,
            run.integration,
            run.bucket_name,
            some,
            owner=owner,
            lease_seconds=lease_seconds,
            historical=True,
            now=begun,
        )
        if planned is not None:
            problems.append(load_planned(planned, run, kit))
        took = kit.clock() - begun
        length = min(2 * length, MOST_HOURS) if took < BRISK else max(length // 2, 1) if took > SLOW else length
    return first_of(problems)


def _is_paused(name: str, kit: Kit) -> bool:
    return any(one.name == name and one.paused for one in kit.state.integrations.list())


def _hour(entry: LedgerEntry) -> tuple[datetime, str]:
    hour = hours.parse(entry.file.key)
    return hour.start if hour else datetime.min, entry.file.key
