"""Read the log files of a batch: fetch them in threads, decode them here or in processes of their own.

Fetching waits for the network, decoding for the processor: a large load decodes on every core. Either way the same
function does it, so that there is one road. What is in flight at a time is bounded by the number of threads.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa

from kyra_etl.cloudtrail.decode import GROUPED, Decoded, DecodedFile, Source, decode_files
from kyra_etl.errors import ObjectError
from kyra_etl.model import Batch, LedgerEntry, Limits
from kyra_etl.ports import LogBucket

GROUP_BYTES = 2**20
GROUP_FILES = 64
"""Log files fetched by one thread and decoded together, up to so many compressed bytes or files."""

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
    with ProcessPoolExecutor(count, mp_context=context, initializer=_quietly) as pool:
        yield pool


def _quietly() -> None:
    # Decoding makes no cycles; looking for them costs a third of its time.
    gc.disable()


def read_batch(
    batch: Batch,
    *,
    bucket: LogBucket,
    limits: Limits,
    now: datetime,
    pool: Executor | None,
    integration_account: str | None,
    each: Callable[[int], None],
) -> Decoded:
    """Fetch and decode a batch's log files; rows are in the batch's order, their file numbers the entries' ids.

    A file that cannot be had or read is named with its problem, and the others are read. `each` is told how many more
    are done. Raises CollectError when no file could be had.
    """

    def read(group: Sequence[LedgerEntry]) -> Decoded:
        fetched: list[tuple[int, bytes, Source]] = []
        missing: list[DecodedFile] = []
        for entry in group:
            try:
                fetched.append((entry.id, bucket.read(entry.file.key), _source(batch, entry, integration_account)))
            except ObjectError as problem:
                missing.append(DecodedFile(entry.id, problem=problem))
        if pool is None:
            decoded = decode_files(fetched, now=now, max_bytes=limits.max_object_bytes)
        else:
            decoded = pool.submit(decode_files, fetched, now=now, max_bytes=limits.max_object_bytes).result()
        return Decoded((*decoded.files, *missing), decoded.events)

    done: list[Decoded] = []
    with ThreadPoolExecutor(limits.fetch_threads, thread_name_prefix="fetch") as threads:
        for decoded in threads.map(read, _groups(batch.entries, limits.fetch_threads)):
            done.append(decoded)
            each(len(decoded.files))
    return Decoded(
        tuple(file for decoded in done for file in decoded.files),
        pa.concat_tables([GROUPED.empty_table(), *(decoded.events for decoded in done)]),
    )


def _groups(entries: Sequence[LedgerEntry], threads: int) -> Iterator[list[LedgerEntry]]:
    # Few files are still spread over all threads.
    most = max(1, min(GROUP_FILES, len(entries) // threads))
    group: list[LedgerEntry] = []
    size = 0
    for entry in entries:
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
