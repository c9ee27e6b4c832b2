"""Read the log files of a batch: fetch them in threads, decode them here or in processes of their own.

Fetching waits for the network, decoding for the processor: a large load decodes on every core. Either way the same
function does it, so that there is one road. What is in flight at a time is bounded by the number of threads.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl import memory
from kyra_etl.cloudtrail.decode import FILE, Decoded, DecodedFile, Source, decode_files, decode_large
from kyra_etl.cloudtrail.stream import NotStreamable
from kyra_etl.errors import CollectError, DecodeError, ObjectError
from kyra_etl.lake import Rows
from kyra_etl.model import Batch, LedgerEntry, Limits
from kyra_etl.ports import LogBucket

T = TypeVar("T")
R = TypeVar("R")

GROUP_BYTES = 2**19
GROUP_FILES = 64
"""Log files fetched by one thread and decoded together, up to so many compressed bytes or files."""

LARGE = 8 * 2**20
"""Bytes as stored from which a log file is decoded piece by piece."""

WORTH_PROCESSES = 16 * 2**20
"""Compressed bytes from which a load is worth the second it takes to start processes."""


@contextmanager
def decoders(limits: Limits, size: int) -> Iterator[Executor | None]:
    """Processes to decode `size` compressed bytes with; None when this process may as well do it."""
    count = limits.decode_processes or os.cpu_count() or 1
    if count < 2 or size < WORTH_PROCESSES:
        yield None
        return
    # Not forked: this process has threads, and a fork would copy the locks they hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin) as pool:
        yield pool


def _begin() -> None:
    # Decoding makes no cycles; looking for them costs a third of its time.
    gc.disable()
    memory.give_back()


@dataclass(frozen=True, slots=True)
class Read:
    """What the log files of a batch held: `rows` in the batch's order, their file numbers the entries' ids."""

    rows: Rows
    files: tuple[DecodedFile, ...]
    expired: Mapping[int, int]
    """Rows by file that are older than what the lake retains; they are not among `rows`."""


def read_batch(
    batch: Batch,
    *,
    bucket: LogBucket,
    limits: Limits,
    now: datetime,
    pool: Executor | None,
    integration_account: str | None,
    retained: Callable[[pa.Table], pa.BooleanArray] | None,
    each: Callable[[int], None],
) -> Read:
    """Fetch and decode a batch's log files.

    A file that cannot be had or read is named with its problem, and the others are read. `retained` says which rows
    are young enough, if that matters; `each` is told how many more files are done. Raises CollectError when no file
    could be had.
    """

    def read(group: Sequence[LedgerEntry]) -> Decoded | tuple[LedgerEntry, bytes]:
        fetched: list[tuple[int, bytes, Source]] = []
        missing: list[DecodedFile] = []
        for entry in group:
            try:
                data = bucket.read(entry.file.key)
            except ObjectError as problem:
                missing.append(DecodedFile(entry.id, problem=problem))
                continue
            if len(data) >= LARGE and len(group) == 1:
                return entry, data
            fetched.append((entry.id, data, _source(batch, entry, integration_account)))
        decoding = partial(decode_files, fetched, now=now, max_bytes=limits.max_object_bytes)
        try:
            decoded = decoding() if pool is None else pool.submit(decoding).result()
        except BrokenExecutor as error:
            raise CollectError(
                "A process that decodes log files ended before its work, perhaps for want of memory.",
                "Set `decode_processes = 1` in kyra.toml, or give the machine more memory, and run this again.",
            ) from error
        return Decoded((*decoded.files, *missing), decoded.events)

    rows = Rows(budget=limits.batch_memory)
    files: list[DecodedFile] = []
    expired: Counter[int] = Counter()

    def keep(events: pa.Table) -> None:
        if retained is None:
            rows.append(events)
            return
        young = retained(events)
        rows.append(events.filter(young))
        expired.update(events.filter(pc.invert(young))[FILE].to_pylist())

    def stream(entry: LedgerEntry, data: bytes) -> DecodedFile:
        # In this process: one document cannot be shared out, and handing it over would copy it.
        before = rows.num_rows
        source = _source(batch, entry, integration_account)
        try:
            for piece in decode_large(entry.id, data, source, now=now, max_bytes=limits.max_object_bytes):
                keep(piece.events)
                each(0)
            return piece.files[0]
        except (NotStreamable, DecodeError) as error:
            rows.truncate(before)
            expired.pop(entry.id, None)
            if isinstance(error, DecodeError):
                return DecodedFile(entry.id, problem=error)
        whole = decode_files([(entry.id, data, source)], now=now, max_bytes=limits.max_object_bytes)
        keep(whole.events)
        return whole.files[0]

    with ThreadPoolExecutor(limits.fetch_threads, thread_name_prefix="fetch") as threads:
        for result in _in_order(threads, read, _groups(batch.entries, limits.fetch_threads), limits.fetch_threads + 1):
            if isinstance(result, Decoded):
                keep(result.events)
                done = result.files
            else:
                done = (stream(*result),)
            files.extend(done)
            each(len(done))
    return Read(rows, tuple(files), expired)


def _in_order(threads: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`threads.map`, with no more than so many items under way or waiting: results must not pile up."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _groups(entries: Sequence[LedgerEntry], threads: int) -> Iterator[list[LedgerEntry]]:
    # Few files are still spread over all threads.
    most = max(1, min(GROUP_FILES, len(entries) // threads))
    group: list[LedgerEntry] = []
    size = 0
    for entry in entries:
        if entry.file.size >= LARGE:
            if group:
                yield group
            yield [entry]
            group, size = [], 0
            continue
        group.append(entry)
        size += entry.file.size
        if len(group) >= most or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _source(batch: Batch, entry: LedgerEntry, integration_account: str | None) -> Source:
    return Source(
        integration=batch.integration,
        source_key=entry.file.key,
        batch_id=batch.batch_id,
        delivered_at=entry.file.last_modified,
        key_account=entry.file.account,
        integration_account=integration_account,
    )
