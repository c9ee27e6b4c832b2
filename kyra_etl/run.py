"""What every journey does once it knows its log files: batches, detections, and a report that adds up."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from kyra_etl import logs
from kyra_etl.batch import commit_read, load_batch, read_planned
from kyra_etl.detect import detect_queued
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import DamagedFile, KyraError, StateError
from kyra_etl.fetch import Read, decoders
from kyra_etl.hints import Heard
from kyra_etl.lake import Lake
from kyra_etl.listing import Found
from kyra_etl.model import Batch, DetectReport, Integration, LedgerEntry, Limits, RunReport
from kyra_etl.owner import is_gone, name_of, owner_of
from kyra_etl.ports import Clock, LogBucket, Progress, Silent, Spread
from kyra_etl.publish import publish_runs
from kyra_etl.state import Lease, State
from kyra_etl.state.runs import RunState

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Kit:
    """The live parts a journey works with."""

    lake: Lake
    state: State
    corpus: Corpus | None
    limits: Limits
    clock: Clock
    progress: Progress
    spread: Spread | None = None
    """Has batches loaded elsewhere; without it this process loads them, one after the other."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a journey over one integration's bucket."""

    run_id: str
    verb: Literal["sync", "backfill", "load"]
    integration: str
    bucket_name: str
    bucket: LogBucket
    started_at: datetime
    account: str | None = None
    historical: bool = False
    lease: Lease | None = None
    """Renewed after every batch, where the journey holds one."""


@dataclass
class Recorded:
    """A run on its books; `report` must be set before the block ends."""

    run_id: str
    started_at: datetime
    report: RunReport | None = None
    problem: KyraError | None = None
    """Why the run counts as failed, although it did all that could be done; raised at its end, with the report."""


@contextmanager
def recorded(verb: Literal["sync", "backfill", "load"], integration: str, kit: Kit) -> Iterator[Recorded]:
    """Keep a run's start and its end in the state database, whichever way it ends."""
    runs, clock = kit.state.runs, kit.clock
    release_dead(kit)
    started_at = clock()
    entry = Recorded(runs.start(verb, integration, started_at), started_at)
    with logs.about(run=entry.run_id, integration=integration):
        log.info("The %s of %s begins.", verb, integration)
        try:
            yield entry
        except BaseException as error:
            said = str(error) if isinstance(error, KyraError) else f"{type(error).__name__}: {error}"
            log.error("The %s of %s failed: %s", verb, integration, said)
            runs.finish(entry.run_id, None, state="failed", error=said, now=clock())
            if isinstance(error, Exception):  # whoever stops it does not wait; the next run makes up for it
                with suppress(KyraError):
                    publish_runs(lake=kit.lake, state=kit.state, now=clock())
            raise
        _finish(entry, kit)


def _finish(entry: Recorded, kit: Kit) -> None:
    runs, clock = kit.state.runs, kit.clock
    skipped = entry.report is not None and entry.report.skipped is not None
    ended: RunState = "failed" if entry.problem else "skipped" if skipped else "succeeded"
    why = str(entry.problem) if entry.problem else None
    runs.finish(entry.run_id, entry.report, state=ended, error=why, now=clock())
    if entry.report is not None:
        _log(entry.report)
    publish_runs(lake=kit.lake, state=kit.state, now=clock())
    if entry.problem is not None:
        log.error("The run counts as failed: %s", entry.problem)
        entry.problem.report = entry.report
        raise entry.problem


def _log(report: RunReport) -> None:
    if report.skipped:
        log.info("Nothing was done: %s.", report.skipped)
        return
    log.info(
        "Done: %d log files loaded, %d quarantined, %d pending; %d new events, %d new alerts; %d LIST requests.",
        *(report.loaded, report.quarantined, report.pending, report.events, report.alerts, report.list_requests),
    )
    for reason, files in report.quarantined_by_reason.items():
        log.warning("Put into quarantine: %d, %s. `kyra quarantine list` names them.", files, reason)
    for detection in report.detect.failed:
        log.warning("Detection %s failed.", detection)


def release_dead(kit: Kit) -> None:
    """End the leases of processes that are known to have died, and call their runs failed."""
    dead = [owner for owner in kit.state.owners.holding() if is_gone(owner)]
    kit.state.owners.expire(dead)
    kit.state.runs.lost(map(name_of, dead), "The process was killed; the next run goes on.", kit.clock())


def load_found(run: Run, kit: Kit) -> DamagedFile | None:
    """Load what is linked to the run and not loaded yet, batch by batch, each committed on its own.

    Batches of dead attempts come first. A batch that a damaged file of the lake keeps from being committed waits for
    the next run, and the others go on: then the run has a problem, which is returned.
    """
    ledger, limits = kit.state.ledger, kit.limits
    owner = owner_of(run.run_id)
    overdue = ledger.take_over(
        run.run_id, run.integration, bucket=run.bucket_name, owner=owner, lease_seconds=limits.lease_seconds
    )
    waiting = ledger.waiting(run.run_id)
    left = [entry for batch in overdue for entry in batch.entries]
    kit.progress.stage("Loading", len(left) + len(waiting.ids) + len(waiting.historical))
    batches = itertools.chain(
        overdue,
        _planned(waiting.ids, run, kit, historical=run.historical),
        _planned(waiting.historical, run, kit, historical=True),
    )
    if kit.spread is not None:
        return _spread([batch.batch_id for batch in batches], owner, run, kit, kit.spread)
    with decoders(limits, waiting.size + sum(entry.file.size for entry in left)) as pool:
        if pool is not None:
            return _load_ahead(batches, run, kit, pool)
        return first_of([load_planned(batch, run, kit) for batch in batches])


def first_of(problems: Iterable[DamagedFile | None]) -> DamagedFile | None:
    """The problem to tell: what else is wrong shows when that is mended."""
    return next(filter(None, problems), None)


def _planned(ids: Sequence[int], run: Run, kit: Kit, *, historical: bool) -> Iterator[Batch]:
    for entries in in_batches(kit.state.ledger.entries(ids), kit.limits):
        batch = kit.state.ledger.plan(
            run.run_id,
            run.integration,
            run.bucket_name,
            entries,
            owner=owner_of(run.run_id),
            lease_seconds=kit.limits.lease_seconds,
            historical=historical,
            now=kit.clock(),
        )
        if batch is not None:
            yield batch


def _spread(batch_ids: Sequence[str], owner: str, run: Run, kit: Kit, spread: Spread) -> DamagedFile | None:
    """Hand planned batches out and keep their leases until somebody claims them."""
    ledger, seconds = kit.state.ledger, kit.limits.lease_seconds

    def alive() -> None:
        ledger.keep(batch_ids, owner=owner, lease_seconds=seconds)
        if run.lease is not None:
            run.lease.renew(seconds)

    try:
        if batch_ids:
            spread(batch_ids, renewing(alive, kit))
    except DamagedFile as error:
        return error
    finally:
        # What nobody has claimed goes back at once; a batch that somebody works on is theirs to settle.
        ledger.give_up(batch_ids, owner=owner, reason="not handed out", now=kit.clock())
    return None


def load_handed_out(batch_id: str, *, bucket_of: Callable[[Integration], LogBucket], **kit: Any) -> bool:
    """Load one batch that another process has planned and handed out; False when there was nothing left to do.

    `kit` holds the parts a journey takes. Whoever worked on the batch before finds its commit refused. Raises
    KyraError; the batch's log files then wait for the next run.
    """
    state, limits, clock = kit["state"], kit["limits"], kit["clock"]
    batch = state.ledger.claim(batch_id, owner=owner_of(batch_id), lease_seconds=limits.lease_seconds)
    if batch is None:
        return False
    try:
        integration = state.integrations.get(batch.integration)
        bucket, account = bucket_of(integration), integration.account_id
        is_ours = load_batch(batch, bucket=bucket, progress=Silent(), integration_account=account, **kit)
    except BaseException as error:
        state.ledger.abandon(batch, type(error).__name__, clock())
        raise
    _log_batch(batch, is_ours)
    return is_ours


def renewing(renew: Callable[[], object], kit: Kit) -> Callable[[], None]:
    """Calls `renew` when a quarter of a lease's time has passed since the last time."""
    renewed = kit.clock()

    def alive() -> None:
        nonlocal renewed
        if kit.clock() - renewed > timedelta(seconds=kit.limits.lease_seconds / 4):
            renew()
            renewed = kit.clock()

    return alive


def load_planned(batch: Batch, run: Run, kit: Kit) -> DamagedFile | None:
    """Load a batch of the run, unless another attempt owns it by now. When that fails, its files are given back."""
    try:
        return _settle(batch, _read(batch, run, kit, None), run, kit)
    except BaseException as error:
        _give_back(batch, error, kit)
        raise


def _load_ahead(batches: Iterable[Batch], run: Run, kit: Kit, pool: Executor) -> DamagedFile | None:
    """Read each batch while the one before it is committed, so that neither waits for the other."""
    problems: list[DamagedFile | None] = []
    under_way: deque[tuple[Batch, Future[Read]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        try:
            for batch in batches:
                under_way.append((batch, reader.submit(_read, batch, run, kit, pool)))
                if len(under_way) > 1:
                    problems.append(_settle(under_way[0][0], under_way[0][1].result(), run, kit))
                    under_way.popleft()
            for batch, reading in under_way:
                problems.append(_settle(batch, reading.result(), run, kit))
        except BaseException as error:
            for batch, _ in under_way:
                _give_back(batch, error, kit)
            raise
    return first_of(problems)


def _settle(batch: Batch, read: Read, run: Run, kit: Kit) -> DamagedFile | None:
    """Commit what was read of a batch; what a damaged file is in the way of is given back."""
    try:
        _commit(batch, read, run, kit)
    except DamagedFile as error:
        _give_back(batch, error, kit)
        log.error("Batch %s waits: %s", batch.batch_id, error)
        return error
    return None


def _give_back(batch: Batch, error: BaseException, kit: Kit) -> None:
    # Its files go back at once rather than when the lease ends; if the commit did happen, nothing changes.
    kit.state.ledger.abandon(batch, type(error).__name__, kit.clock())


def _read(batch: Batch, run: Run, kit: Kit, pool: Executor | None) -> Read:
    return read_planned(
        batch,
        bucket=run.bucket,
        state=kit.state,
        limits=kit.limits,
        clock=kit.clock,
        progress=kit.progress,
        pool=pool,
        integration_account=run.account,
    )


def _commit(batch: Batch, read: Read, run: Run, kit: Kit) -> None:
    if run.lease is not None:
        run.lease.renew(kit.limits.lease_seconds)
    is_ours = commit_read(
        batch, read, lake=kit.lake, state=kit.state, corpus=kit.corpus, limits=kit.limits, clock=kit.clock
    )
    _log_batch(batch, is_ours)


def _log_batch(batch: Batch, is_ours: bool) -> None:
    size = sum(entry.file.size for entry in batch.entries)
    with logs.about(run=batch.run_id, integration=batch.integration, batch=batch.batch_id):
        if is_ours:
            log.info("Committed %d log files of %d bytes.", len(batch.entries), size)
        else:
            log.info("Another attempt has the batch by now; attempt %d left nothing behind.", batch.attempt)


def in_batches(entries: Iterable[LedgerEntry], limits: Limits) -> Iterator[list[LedgerEntry]]:
    """Split log files by compressed bytes and by number, in their order; one larger than the limit stands alone."""
    batch: list[LedgerEntry] = []
    size = 0
    for entry in entries:
        if batch and (size + entry.file.size > limits.batch_bytes or len(batch) >= limits.batch_files):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.file.size
    if batch:
        yield batch


def run_detections(kit: Kit, *, live_only: bool = False) -> DetectReport:
    """Run the detections that are queued, by this run or by one that did not come to it."""
    if kit.corpus is None:
        return DetectReport()
    return detect_queued(
        lake=kit.lake,
        state=kit.state,
        corpus=kit.corpus,
        now=kit.clock(),
        progress=kit.progress,
        live_only=live_only,
    )


def report(run: Run, kit: Kit, found: Found, detected: DetectReport, heard: Heard | None = None) -> RunReport:
    """Count what the run did, each term by its own query, and insist that the numbers reconcile.

    Raises StateError when they do not: that is a fault of ours, and better seen than carried on with.
    """
    tally = kit.state.ledger.tally(run.run_id)
    counted = RunReport(
        run_id=run.run_id,
        verb=run.verb,
        integration=run.integration,
        started_at=run.started_at,
        finished_at=kit.clock(),
        listed=found.listed,
        hinted=tally["hinted"],
        carried=tally["carried"],
        loaded=tally["loaded"],
        already_loaded=found.already_loaded + tally["already_loaded"],
        ignored=found.ignored.total(),
        quarantined=tally["quarantined"],
        gone=tally["gone"],
        pending=tally["pending"],
        records=tally["records"],
        events=tally["events"],
        duplicates=tally["duplicates"],
        conflicts=tally["conflicts"],
        malformed=tally["malformed"],
        expired=tally["expired"],
        alerts=detected.alerts_new,
        batches=tally["batches"],
        list_requests=found.requests + (heard.requests if heard else 0),
        folders_listed=found.folders.total(),
        folders_waiting=found.waiting,
        notices=dict(sorted(heard.kinds.items())) if heard else {},
        initial=run.historical and found.waiting_new > 0,
        ignored_by_kind=dict(sorted(found.ignored.items())),
        quarantined_by_reason=tally["quarantined_by_reason"],
        lag_p50=tally["lag_p50"],
        lag_p95=tally["lag_p95"],
        lag_max=tally["lag_max"],
        detect=detected,
    )
    imbalance = counted.imbalance()
    if imbalance is not None:
        raise StateError(
            f"The numbers of run {run.run_id} do not reconcile: {imbalance}.",
            "What is loaded stays loaded. Please report this with the output of `kyra status --json`.",
        )
    return counted
