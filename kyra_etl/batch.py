"""One batch: fetch → decode → deduplicate → stage → commit → publish.

A crash before the commit leaves nothing but a staging folder that is swept later; a crash after it leaves files that
the next run publishes. Whoever lost the batch to another attempt finds the commit refused and removes what it staged.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl.cloudtrail.decode import FILE, DecodedFile
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import CommitRefused, LakeError, ObjectError, ObjectGone, VersionMismatch
from kyra_etl.fetch import Read, read_batch
from kyra_etl.lake import Lake, Partition, partitions_of
from kyra_etl.model import Batch, Commit, DataFile, FileOutcome, Limits, LogFileState
from kyra_etl.ports import Clock, LogBucket, Progress
from kyra_etl.retention import Young
from kyra_etl.settle import publish
from kyra_etl.state import State

ATTEMPTS_TO_COMMIT = 20


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
    """Load a planned batch and commit it: `read_planned`, then `commit_read`."""
    read = read_planned(
        batch,
        bucket=bucket,
        state=state,
        limits=limits,
        clock=clock,
        progress=progress,
        integration_account=integration_account,
    )
    return commit_read(batch, read, lake=lake, state=state, corpus=corpus, limits=limits, clock=clock)


def read_planned(
    batch: Batch,
    *,
    bucket: LogBucket,
    state: State,
    limits: Limits,
    clock: Clock,
    progress: Progress,
    pool: Executor | None = None,
    integration_account: str | None = None,
) -> Read:
    """Fetch and decode a planned batch, keeping its lease; nothing is changed by that.

    A file that cannot be had or read is set aside and the others load. Raises CollectError when no file could be had;
    the batch's files are then as new to a later run.
    """
    beat = clock()

    def each(files: int) -> None:
        nonlocal beat
        progress.advance(files)
        if clock() - beat > timedelta(seconds=limits.lease_seconds / 4):
            state.ledger.heartbeat(batch, limits.lease_seconds)
            beat = clock()

    return read_batch(
        batch,
        bucket=bucket,
        limits=limits,
        now=beat,
        pool=pool,
        integration_account=integration_account,
        young=_young(limits, state, beat.date()),
        each=each,
    )


def commit_read(
    batch: Batch,
    read: Read,
    *,
    lake: Lake,
    state: State,
    corpus: Corpus | None,
    limits: Limits,
    clock: Clock,
) -> bool:
    """Commit what was read of a batch; False when another attempt owns it by now (nothing is left behind).

    Raises LakeError or StateError; the batch is then not committed. What was read is let go of.
    """
    with closing(read.rows):
        return _commit(batch, read, lake=lake, state=state, corpus=corpus, limits=limits, clock=clock)


def _commit(
    batch: Batch, read: Read, *, lake: Lake, state: State, corpus: Corpus | None, limits: Limits, clock: Clock
) -> bool:
    keys = read.rows.keys()
    partitions = partitions_of(keys)
    malformed = _malformed(batch, read.files)
    for _ in range(ATTEMPTS_TO_COMMIT):
        if not state.ledger.heartbeat(batch, limits.lease_seconds):
            lake.discard(batch.batch_id, batch.attempt)
            return False
        versions = state.ledger.versions(partitions)
        try:
            distinct = lake.distinct(read.rows, _committed(state, partitions))
        except LakeError:
            if state.ledger.versions(partitions) == versions:
                raise
            continue  # a file that was to be compared with is gone because a compaction replaced it
        files = lake.stage(batch.batch_id, batch.attempt, read.rows.segments(distinct.keep), malformed)
        kept = keys if distinct.keep.true_count == keys.num_rows else keys.filter(distinct.keep)
        names = set(pc.unique(kept["event_name"]).to_pylist())
        commit = Commit(
            batch=batch,
            outcomes=_outcomes(read, kept, keys.filter(distinct.conflicts)),
            data_files=files,
            versions=versions,
            detections=corpus.for_events(names) if corpus is not None and kept.num_rows else (),
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


def _malformed(batch: Batch, files: Sequence[DecodedFile]) -> list[dict[str, Any]]:
    keys = {entry.id: entry.file.key for entry in batch.entries}
    return [
        {
            "integration": batch.integration,
            "source_key": keys[file.number],
            "position": record.position,
            "reason": record.reason,
            "record": record.record,
            "batch_id": batch.batch_id,
        }
        for file in files
        for record in file.malformed
    ]


def _young(limits: Limits, state: State, today: date) -> Young | None:
    """Which rows are younger than their account's events are kept; None when all are."""
    removed = state.swaps.horizons()
    if limits.retain_days is None and not limits.retain and not removed:
        return None
    return Young(limits, removed, today)


def _per_file(rows: pa.Table) -> dict[int, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(rows[FILE]).to_pylist()}


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


def _outcomes(read: Read, kept: pa.Table, conflicting: pa.Table) -> tuple[FileOutcome, ...]:
    kept_by_file = _per_file(kept)
    conflicts_by_file = _per_file(conflicting)
    outcomes = []
    for file in read.files:
        if file.problem is not None:
            outcomes.append(_set_aside(file.number, file.problem))
            continue
        events, late = kept_by_file.get(file.number, 0), read.expired.get(file.number, 0)
        outcomes.append(
            FileOutcome(
                id=file.number,
                state="loaded",
                records=file.records,
                events=events,
                duplicates=file.events - events - late,
                conflicts=conflicts_by_file.get(file.number, 0),
                malformed=len(file.malformed),
                expired=late,
                uncompressed=file.uncompressed,
                sha256=file.sha256,
                first_event_at=file.first_event_at,
                last_event_at=file.last_event_at,
            )
        )
    return tuple(outcomes)


def _set_aside(number: int, problem: ObjectError) -> FileOutcome:
    state: LogFileState = "gone" if isinstance(problem, ObjectGone) else "quarantined"
    return FileOutcome(number, state, reason=problem.reason, detail=str(problem), permanent=problem.permanent)
