"""A range of dates of an integration, a day at a time: the ordinary road over older folders.

    plan        what there is to load, and what that takes
    backfill    day ─▶ account ─▶ list some, load them, list on … ─▶ detect ─▶ the day's report

Each day is a run of its own, so a backfill that was stopped goes on where it stood: a day that is loaded costs a
listing. It works beside the syncs: it lists little ahead of what it loads, leaves them half the processors, and what it
found is left to it while its lease lasts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from kyra_etl import cadence
from kyra_etl.detection.rule import Corpus
from kyra_etl.discover import Surveyed, discover_days, survey
from kyra_etl.errors import KyraError, StateError, UsageError
from kyra_etl.lake import Lake
from kyra_etl.listing import Found
from kyra_etl.model import Integration, Limits, RunReport, Window
from kyra_etl.owner import owner_of
from kyra_etl.ports import Clock, LogBucket, Progress, Silent, Spread
from kyra_etl.run import Kit, Recorded, Run, load_found, recorded, renewing, report, run_detections
from kyra_etl.settle import tidy
from kyra_etl.state import Lease, State

GUESS = 4_000_000.0
"""Compressed bytes a second, where nothing was loaded yet that would tell better."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a backfill would take. `requests` are LIST (made for this plan, and again by the backfill) and GET."""

    days: Mapping[date, Surveyed]
    files: int
    bytes: int
    already_loaded: int
    list_requests: int
    get_requests: int
    cost: float
    """US dollars for these requests, S3 Standard in us-east-1; transfer out of the region is not in it."""
    seconds: float
    """About how long it takes, at the pace of the last batches."""
    measured: bool
    """Whether that pace was measured here; a guess otherwise."""

    def as_json(self) -> dict[str, Any]:
        days = [{"day": day, **asdict(one)} for day, one in self.days.items()]
        return {**asdict(replace(self, days={})), "days": days}


def plan(
    integration: Integration,
    window: Window,
    *,
    bucket: LogBucket,
    state: State,
    limits: Limits,
    clock: Clock,
    accounts: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Look through the days of the window and tell what a backfill would load; nothing is loaded. Raises KyraError."""
    _require_past(window, clock())
    found, days = survey(
        integration,
        _until_now(window, clock()),
        bucket=bucket,
        state=state,
        limits=limits,
        clock=clock,
        progress=progress or Silent(),
        accounts=accounts,
    )
    if found.problem is not None:
        raise found.problem
    files, size = sum(day.files for day in days.values()), sum(day.bytes for day in days.values())
    pace = state.ledger.pace()
    price = 0.0 if integration.bucket.startswith("file:") else 1.0
    return Plan(
        days=days,
        files=files,
        bytes=size,
        already_loaded=sum(day.already_loaded for day in days.values()),
        list_requests=found.requests,
        get_requests=files,
        cost=price * (cadence.cost(found.requests) + cadence.cost_of_reading(files)),
        seconds=size / (pace or GUESS),
        measured=pace is not None,
    )


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
    accounts: Collection[str] | None = None,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> Iterator[RunReport]:
    """Load the date folders the window touches, oldest first, and yield each day's report as it is done.

    With `accounts`, theirs alone. Its alerts are historical. It ends before the next day when the integration is
    paused, with a report of that day, `skipped` saying so. Raises KyraError, StateError when another backfill of the
    integration is under way; where only some folders could not be listed, or a file of the lake is damaged, the first
    such problem, after the last day.
    """
    now = clock()
    _require_past(window, now)
    kit = Kit(lake, state, corpus, beside_syncs(limits), clock, progress or Silent(), spread)
    tidy(lake=lake, state=state)
    days = _until_now(window, now).days()
    problem: KyraError | None = None
    for number, day in enumerate(days, start=1):
        if any(one.name == integration.name and one.paused for one in state.integrations.list()):
            yield _not_begun(integration, kit)
            break
        report, of_day = _one_day(integration, day, f"{day} ({number} of {len(days)})", accounts, bucket, kit)
        problem = problem or of_day
        yield report
    if problem is not None:
        raise problem


def unfinished(name: str, days: Sequence[date], reports: Sequence[RunReport]) -> str | None:
    """What to do about a backfill of `days` that was paused, by its reports; None of one that came to its end."""
    if not reports or not reports[-1].skipped:
        return None
    done = len(reports) - 1
    after = f"after {days[done - 1]}, {done} of {len(days)} days" if done else "before the first day"
    return f"{name} was paused {after}. Go on with: kyra integration resume {name}, then the same backfill again."


def beside_syncs(limits: Limits) -> Limits:
    """The limits of a run that must not keep the five-minute syncs waiting: half the processors at most."""
    processes = limits.decode_processes or os.cpu_count() or 1
    return replace(limits, decode_processes=max(1, processes // 2))


class _Beating:
    """A Progress that names the day, and renews the lease as the work goes on, whatever the stage."""

    def __init__(self, progress: Progress, label: str, alive: Callable[[], None]) -> None:
        self._progress, self._label, self._alive = progress, label, alive

    def stage(self, name: str, total: int | None = None) -> None:
        self._progress.stage(f"{self._label}: {name}", total)
        self._alive()

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(steps)
        self._alive()


def _require_past(window: Window, now: datetime) -> None:
    if window.start >= window.end:
        raise UsageError("The range is empty: --from must not be after --to.", "Both are UTC dates, --to included.")
    if window.start > now:
        raise UsageError("The range lies in the future.", "Give dates that log files can exist for.")


def _until_now(window: Window, now: datetime) -> Window:
    """Without days to come, except tomorrow: names run ahead of time by some minutes."""
    return Window(window.start, min(window.end, datetime.combine(now, time.min) + timedelta(days=2)))


def _not_begun(integration: Integration, kit: Kit) -> RunReport:
    with recorded("backfill", integration.name, kit) as entry:
        why = "the integration is paused"
        entry.report = RunReport(
            entry.run_id, "backfill", integration.name, entry.started_at, finished_at=kit.clock(), skipped=why
        )
    return entry.report


def _one_day(
    integration: Integration,
    day: date,
    label: str,
    accounts: Collection[str] | None,
    bucket: LogBucket,
    kit: Kit,
) -> tuple[RunReport, KyraError | None]:
    """The day's report, and why its run counts as failed although all that could be listed is loaded."""
    report = problem = None
    try:
        with recorded("backfill", integration.name, kit) as entry:
            owner, seconds = owner_of(entry.run_id), kit.limits.lease_seconds
            lease = kit.state.leases.take(f"backfill:{integration.name}", owner, seconds)
            if lease is None:
                raise StateError(
                    f"Another backfill of {integration.name} is running.",
                    f"Start this one again when it has ended; if it was killed, in {seconds} seconds.",
                )
            with lease:
                beating = replace(kit, progress=_Beating(kit.progress, label, renewing(lease.renew, kit)))
                entry.report = _load_day(entry, integration, day, accounts, bucket, lease, beating)
            report, problem = entry.report, entry.problem
    except KyraError as error:
        if report is None or error is not problem:
            raise
    return report, problem


def _load_day(
    entry: Recorded,
    integration: Integration,
    day: date,
    accounts: Collection[str] | None,
    bucket: LogBucket,
    lease: Lease,
    kit: Kit,
) -> RunReport:
    run = Run(
        entry.run_id,
        "backfill",
        integration.name,
        integration.bucket,
        bucket,
        entry.started_at,
        account=integration.account_id,
        historical=True,
        lease=lease,
    )
    midnight = datetime.combine(day, time.min)
    found, damaged = Found(), None
    for some in discover_days(
        entry.run_id,
        integration,
        Window(midnight, midnight + timedelta(days=1)),
        bucket=bucket,
        state=kit.state,
        limits=kit.limits,
        clock=kit.clock,
        progress=kit.progress,
        accounts=accounts,
    ):
        damaged = load_found(run, kit) or damaged
        found = some
    entry.problem = found.problem or damaged
    return report(run, kit, found, run_detections(kit))
