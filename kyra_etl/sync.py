"""One incremental run over an integration: discover → load → detect → report."""

from __future__ import annotations

from dataclasses import replace

from kyra_etl.absence import watch
from kyra_etl.detection.rule import Corpus
from kyra_etl.discover import discover
from kyra_etl.hints import Heard, take_notices
from kyra_etl.lake import Lake
from kyra_etl.model import Integration, Limits, RunReport
from kyra_etl.owner import owner_of
from kyra_etl.ports import Clock, LogBucket, NoticeQueue, Progress, Silent, Spread
from kyra_etl.run import Kit, Recorded, Run, load_found, recorded, renewing, report, run_detections
from kyra_etl.settle import tidy
from kyra_etl.state import Lease, State


def sync(
    integration: Integration,
    *,
    bucket: LogBucket,
    lake: Lake,
    state: State,
    corpus: Corpus | None,
    limits: Limits,
    clock: Clock,
    queue: NoticeQueue | None = None,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> RunReport:
    """Load every log file that came since, exactly once, and raise its alerts.

    With a `queue`, its notices are taken first; listing finds what they leave out.
    A run of the same integration that is under way makes this one return at once, `skipped` saying so. Raises
    KyraError; what was committed by then stays, and the next run goes on from there.
    """
    kit = Kit(lake, state, corpus, limits, clock, progress or Silent(), spread)
    with recorded("sync", integration.name, kit) as entry:
        if integration.paused:
            entry.report = _skipped(entry, integration, "the integration is paused", clock)
            return entry.report
        lease = state.leases.take(f"sync:{integration.name}", owner_of(entry.run_id), limits.lease_seconds)
        if lease is None:
            entry.report = _skipped(entry, integration, "another sync of this integration is running", clock)
            return entry.report
        try:
            entry.report = _sync(entry, integration, bucket, queue, lease, kit)
        finally:
            lease.release()
        return entry.report


def _sync(
    entry: Recorded,
    integration: Integration,
    bucket: LogBucket,
    queue: NoticeQueue | None,
    lease: Lease,
    kit: Kit,
) -> RunReport:
    state = kit.state
    run = Run(
        entry.run_id,
        "sync",
        integration.name,
        integration.bucket,
        bucket,
        entry.started_at,
        account=integration.account_id,
        historical=_is_initial(state, integration.name),
        lease=lease,
    )
    tidy(lake=kit.lake, state=state)
    heard = Heard()
    if queue is not None:
        kit.progress.stage("Taking notices")
        heard = take_notices(run.run_id, integration, queue, bucket=bucket, state=state, clock=kit.clock)
    found = discover(
        run.run_id,
        integration,
        bucket=bucket,
        state=state,
        limits=kit.limits,
        clock=kit.clock,
        progress=kit.progress,
        alive=renewing(lease.renew, kit),
    )
    entry.problem = found.problem or heard.problem
    state.ledger.carry(run.run_id, integration.name, kit.clock(), bucket=integration.bucket)
    damaged = load_found(run, kit)
    entry.problem = entry.problem or damaged
    # What a backfill loads is its own to look through: the five-minute run keeps its pace.
    detected = run_detections(kit, live_only=state.leases.are_held("backfill:", "history:"))
    absent = watch(integration, state=state, now=kit.clock())
    detected = replace(
        detected,
        alerts_new=detected.alerts_new + len(absent.new),
        alerts_updated=detected.alerts_updated + len(absent.updated),
        alert_ids=(*detected.alert_ids, *absent.new, *absent.updated),
    )
    return report(run, kit, found, detected, heard)


def _is_initial(state: State, name: str) -> bool:
    """Whether log files of the time before the integration are still coming in: their alerts are no news."""
    ended = [state.runs.last(name, how, verb="sync") for how in ("succeeded", "failed")]
    reports = [(run["started_at"], run["report"]) for run in ended if run is not None and run["report"] is not None]
    return not reports or bool(max(reports, key=lambda one: one[0])[1].get("initial"))


def _skipped(entry: Recorded, integration: Integration, why: str, clock: Clock) -> RunReport:
    return RunReport(entry.run_id, "sync", integration.name, entry.started_at, finished_at=clock(), skipped=why)
