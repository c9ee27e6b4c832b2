"""One batch: fetch → decode → deduplicate → stage → commit → publish.

A crash before the commit leaves nothing but a staging folder that is swept later; a crash after it leaves files that
the next run publishes. Whoever lost the batch to another attempt finds the commit refused and removes what it staged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl.cloudtrail.decode import FILE, DecodedFile
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import CommitRefused, LakeError, ObjectError, ObjectGone, StateError, VersionMismatch
from kyra_etl.fetch import Read, read_batch
from kyra_etl.lake import Distinct, Lake, Partition, partitions_of
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
        # After the versions: what a retention takes away from here on moves them, and all of this is asked again.
        young = _young(limits, state, clock().date())
        fresh = young(keys) if young is not None else pa.repeat(pa.scalar(True), keys.num_rows)
        try:
            distinct = lake.distinct(read.rows, _committed(state, partitions))
        except LakeError:
            if state.ledger.versions(partitions) == versions:
                raise
            continue  # a file that was to be compared with is gone because a compaction replaced it
        keep = pc.and_(fresh, distinct.keep)
        files = lake.stage(batch.batch_id, batch.attempt, read.rows.segments(keep), malformed)
        outcomes = _outcomes(read, keys[FILE], fresh, distinct)
        _add_up(batch, outcomes, files)
        names = set(pc.unique(keys["event_name"].filter(keep)).to_pylist())
        commit = Commit(
            batch=batch,
            outcomes=outcomes,
            data_files=files,
            versions=versions,
            detections=corpus.for_events(names) if corpus is not None and names else (),
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
    read: Read, file_of: pa.ChunkedArray, fresh: pa.BooleanArray, distinct: Distinct
) -> tuple[FileOutcome, ...]:
    """What became of each log file; `file_of` says of each row whose it is, `fresh` whether it has not expired."""
    events = _per_file(file_of, pc.and_(fresh, distinct.keep))
    duplicates = _per_file(file_of, pc.and_not(fresh, distinct.keep))
    conflicts = _per_file(file_of, pc.and_(fresh, distinct.conflicts))
    expired = _per_file(file_of, pc.invert(fresh)) + Counter(read.expired)
    return tuple(
        _set_aside(file.number, file.problem)
        if file.problem is not None
        else FileOutcome(
            id=file.number,
            state="loaded",
            records=file.records,
            events=events[file.number],
            duplicates=duplicates[file.number],
            conflicts=conflicts[file.number],
            malformed=len(file.malformed),
            expired=expired[file.number],
            uncompressed=file.uncompressed,
            sha256=file.sha256,
            first_event_at=file.first_event_at,
            last_event_at=file.last_event_at,
        )
        for file in read.files
    )


def _per_file(file_of: pa.ChunkedArray, rows: pa.BooleanArray) -> Counter[int]:
    counted = pc.value_counts(file_of.filter(rows)).to_pylist() if rows.true_count else []
    return Counter({pair["values"]: pair["counts"] for pair in counted})


def _add_up(batch: Batch, outcomes: Sequence[FileOutcome], files: Sequence[DataFile]) -> None:
    """Nothing is committed but what adds up: each record of a log file has an end, and what is kept is in a data file.

    Raises StateError.
    """
    loaded = [one for one in outcomes if one.state == "loaded"]
    for what, expected, found in (
        *(
            ("a log file's records", one.records, one.events + one.duplicates + one.malformed + one.expired)
            for one in loaded
        ),
        ("staged events", sum(one.events for one in loaded), _rows(files, "events")),
        ("staged malformed records", sum(one.malformed for one in loaded), _rows(files, "malformed")),
    ):
        if expected != found:
            raise StateError(
                f"The numbers of batch {batch.batch_id} do not add up: {what}: {found:,} of {expected:,}.",
                "Nothing of it was committed; the next run takes it up again. If it says the same, please report it.",
            )


def _rows(files: Sequence[DataFile], kind: str) -> int:
    return sum(file.rows for file in files if file.kind == kind)


def _set_aside(number: int, problem: ObjectError) -> FileOutcome:
    state: LogFileState = "gone" if isinstance(problem, ObjectGone) else "quarantined"
    return FileOutcome(number, state, reason=problem.reason, detail=str(problem), permanent=problem.permanent)
