"""One batch: fetch → decode → deduplicate → stage → commit → publish.

A crash before the commit leaves nothing but a staging folder that is swept later; a crash after it leaves files that
the next run publishes. Whoever lost the batch to another attempt finds the commit refused and removes what it staged.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl.cloudtrail.decode import NOTHING, Decoded, Source, decode
from kyra_etl.cloudtrail.schema import EVENTS
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import CommitRefused, ObjectError, ObjectGone, VersionMismatch
from kyra_etl.lake import Lake, Partition, partitions_of
from kyra_etl.model import Batch, Commit, DataFile, FileOutcome, LedgerEntry, Limits, LogFileState
from kyra_etl.ports import Clock, LogBucket, Progress
from kyra_etl.state import State

_FILE = "_file"
"""Column that says which log file of the batch a row came from; never written."""

ATTEMPTS_TO_COMMIT = 20


@dataclass(frozen=True, slots=True)
class _Read:
    """A log file of the batch after fetching, and what it decoded to: nothing where there was a problem."""

    entry: LedgerEntry
    decoded: Decoded
    problem: ObjectError | None = None


def load_batch(
    batch: Batch,
    *,
    bucket: LogBucket,
    lake: Lake,
    state: State,
    corpus: Corpus | None,
    limits: Limits,
    clock: Clock,
    progress: Progress,
    integration_account: str | None = None,
) -> bool:
    """Load a planned batch and commit it; False when another attempt owns it by now (nothing is left behind).

    A file that cannot be had or read is set aside and the others load. Raises CollectError when no file could be had,
    LakeError or StateError; the batch is then not committed, and its files are as new to a later run.
    """
    reads = _read_all(batch, bucket, state, limits, clock, progress, integration_account)
    events, expired = _without_expired(_together(reads), limits, clock)
    malformed = [
        {
            "integration": batch.integration,
            "source_key": read.entry.file.key,
            "position": record.position,
            "reason": record.reason,
            "record": record.record,
            "batch_id": batch.batch_id,
        }
        for read in reads
        for record in read.decoded.malformed
    ]
    for _ in range(ATTEMPTS_TO_COMMIT):
        if not state.ledger.heartbeat(batch, limits.lease_seconds):
            lake.discard(batch.batch_id, batch.attempt)
            return False
        partitions = partitions_of(events)
        versions = state.ledger.versions(partitions)
        distinct = lake.new_rows(events, _committed(state, partitions))
        files = lake.stage(batch.batch_id, batch.attempt, distinct.rows.select(EVENTS.names), malformed)
        names = set(pc.unique(distinct.rows["event_name"]).to_pylist())
        commit = Commit(
            batch=batch,
            outcomes=_outcomes(reads, distinct.rows, distinct.conflicts, expired),
            data_files=files,
            versions=versions,
            detections=corpus.for_events(names) if corpus is not None and distinct.rows.num_rows else (),
        )
        try:
            state.ledger.commit(commit, clock())
        except VersionMismatch:
            # Somebody committed to one of the partitions meanwhile: what is new has to be asked again.
            lake.discard(batch.batch_id, batch.attempt)
            continue
        except CommitRefused:
            lake.discard(batch.batch_id, batch.attempt)
            return False
        publish(files, lake=lake, state=state)
        lake.discard(batch.batch_id, batch.attempt)
        return True
    raise VersionMismatch(
        f"Other runs kept committing to the partitions of batch {batch.batch_id}.",
        "It stays planned; the next run takes it up again.",
    )


def publish(files: Sequence[DataFile], *, lake: Lake, state: State) -> None:
    """Move committed files to where readers look; safe to repeat, by whoever comes next."""
    if files:
        state.ledger.mark_published(lake.publish(files))


def tidy(*, lake: Lake, state: State) -> None:
    """Complete what crashed runs left: publish what is committed, sweep what never will be."""
    staged = lake.staged_attempts()
    # The order matters. An attempt begun after the listing is not in it; one that commits after being found live is
    # left alone; one that committed before is found unpublished, and moved before its folder is swept.
    live = {f"{batch_id}-{attempt}" for batch_id, attempt in state.ledger.live_batches()}
    publish(state.ledger.unpublished(), lake=lake, state=state)
    lake.sweep(name for name in staged if name not in live)


def _read_all(
    batch: Batch,
    bucket: LogBucket,
    state: State,
    limits: Limits,
    clock: Clock,
    progress: Progress,
    integration_account: str | None,
) -> list[_Read]:
    now = beat = clock()

    def read(entry: LedgerEntry) -> _Read:
        file = entry.file
        source = Source(
            integration=batch.integration,
            source_key=file.key,
            batch_id=batch.batch_id,
            delivered_at=file.last_modified,
            key_account=file.account,
            integration_account=integration_account,
        )
        try:
            return _Read(entry, decode(bucket.read(file.key), source, now=now, max_bytes=limits.max_object_bytes))
        except ObjectError as problem:
            return _Read(entry, NOTHING, problem)

    reads = []
    with ThreadPoolExecutor(limits.fetch_threads, thread_name_prefix="fetch") as pool:
        for result in pool.map(read, batch.entries):
            reads.append(result)
            progress.advance()
            if clock() - beat > timedelta(seconds=limits.lease_seconds / 4):
                state.ledger.heartbeat(batch, limits.lease_seconds)
                beat = clock()
    return reads


def _together(reads: Sequence[_Read]) -> pa.Table:
    schema = EVENTS.append(pa.field(_FILE, pa.int64()))
    tables = [
        read.decoded.events.append_column(
            schema.field(_FILE), pa.repeat(pa.scalar(read.entry.id, pa.int64()), read.decoded.events.num_rows)
        )
        for read in reads
    ]
    return pa.concat_tables([schema.empty_table(), *tables])


def _without_expired(events: pa.Table, limits: Limits, clock: Clock) -> tuple[pa.Table, dict[int, int]]:
    """Drop rows older than the retention horizon, and count them by log file."""
    if limits.retain_days is None:
        return events, {}
    horizon = clock().date() - timedelta(days=limits.retain_days)
    kept = pc.greater_equal(events["date"], pa.scalar(horizon, pa.date32()))
    return events.filter(kept), _per_file(events.filter(pc.invert(kept)))


def _per_file(rows: pa.Table) -> dict[int, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(rows[_FILE]).to_pylist()}


def _committed(state: State, partitions: Sequence[Partition]) -> dict[Partition, list[DataFile]]:
    if not partitions:
        return {}
    wanted = set(partitions)
    files: dict[Partition, list[DataFile]] = {}
    accounts = sorted({account for account, _ in partitions})
    days: list[date] = [day for _, day in partitions]
    for file in state.ledger.data_files("events", accounts=accounts, first=min(days), last=max(days)):
        if file.account is not None and file.date is not None and (file.account, file.date) in wanted:
            files.setdefault((file.account, file.date), []).append(file)
    return files


def _outcomes(
    reads: Sequence[_Read], kept: pa.Table, conflicts: pa.BooleanArray, expired: dict[int, int]
) -> tuple[FileOutcome, ...]:
    kept_by_file = _per_file(kept)
    conflicts_by_file = _per_file(kept.filter(conflicts))
    return tuple(
        _set_aside(read.entry, read.problem)
        if read.problem is not None
        else _loaded(read.entry, read.decoded, kept_by_file, conflicts_by_file, expired)
        for read in reads
    )


def _loaded(
    entry: LedgerEntry, decoded: Decoded, kept: dict[int, int], conflicts: dict[int, int], expired: dict[int, int]
) -> FileOutcome:
    number = entry.id
    events, late = kept.get(number, 0), expired.get(number, 0)
    times: dict[str, Any] = pc.min_max(decoded.events["event_time"]).as_py()
    return FileOutcome(
        id=number,
        state="loaded",
        records=decoded.records,
        events=events,
        duplicates=decoded.events.num_rows - events - late,
        conflicts=conflicts.get(number, 0),
        malformed=len(decoded.malformed),
        expired=late,
        uncompressed=decoded.uncompressed,
        sha256=decoded.sha256,
        first_event_at=times["min"],
        last_event_at=times["max"],
    )


def _set_aside(entry: LedgerEntry, problem: ObjectError) -> FileOutcome:
    state: LogFileState = "gone" if isinstance(problem, ObjectGone) else "quarantined"
    return FileOutcome(entry.id, state, reason=problem.reason, detail=str(problem), permanent=problem.permanent)
