"""Read the log files of a batch: fetch them in threads, decode them here or in processes of their own.

Fetching waits for the network, decoding for the processor: a large load decodes on every core. Either way the same
function does it, so that there is one road.

Memory is bounded by settings, not by what the log files hold: so many groups of small log files are under way as there
are threads, one large one is fetched at a time and decoded piece by piece, and the rows of a process go to a temporary
file rather than back to this one.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from multiprocessing.reduction import DupFd
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl import memory
from kyra_etl.cloudtrail.decode import FILE, DecodedFile, Source, decode_files, decode_large
from kyra_etl.cloudtrail.framing import GZIP
from kyra_etl.cloudtrail.stream import NotStreamable
from kyra_etl.errors import CollectError, DecodeError, ObjectError
from kyra_etl.lake import Rows
from kyra_etl.lake.spool import Spilled, no_room, spill
from kyra_etl.model import Batch, LedgerEntry, Limits
from kyra_etl.ports import LogBucket
from kyra_etl.retention import Young

T = TypeVar("T")
R = TypeVar("R")

GROUP_BYTES = 2**19
GROUP_FILES = 64
"""Log files fetched by one thread and decoded together, up to so many compressed bytes or files."""

LARGE = 2**20
"""Bytes as stored from which a log file is fetched alone and decoded piece by piece."""

LARGE_UNPACKED = 16 * 2**20
"""Bytes of JSON from which a smaller file is decoded piece by piece too."""

WORTH_PROCESSES = 16 * 2**20
"""Compressed bytes from which a load is worth the second it takes to start processes."""

BEAT = 5.0
"""Seconds after which whoever waits for a log file says that it goes on."""


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


@dataclass(frozen=True, slots=True)
class _Decoding:
    """How log files are decoded; goes to the process that does it."""

    now: datetime
    max_bytes: int
    young: Young | None


@dataclass(slots=True)
class _Done:
    """What became of some log files. Their rows, in order, are in memory or spilled to the file that was lent."""

    files: list[DecodedFile] = field(default_factory=list)
    rows: list[pa.Table | Spilled] = field(default_factory=list)
    expired: Counter[int] = field(default_factory=Counter)


Fetched = tuple[int, Any, Source]
"""A log file's number, its bytes as stored (or what opens a file of them elsewhere), and where it came from."""


def read_batch(
    batch: Batch,
    *,
    bucket: LogBucket,
    limits: Limits,
    now: datetime,
    pool: Executor | None,
    integration_account: str | None,
    young: Young | None,
    each: Callable[[int], None],
) -> Read:
    """Fetch and decode a batch's log files.

    A file that cannot be had or read is named with its problem, and the others are read. `young` says which rows are
    young enough, if that matters; `each` is told how many more files are done, and now and then that it goes on.
    Raises CollectError when no file could be had.
    """
    rows = Rows(budget=limits.batch_memory)
    how = _Decoding(now, limits.max_object_bytes, young)
    one_at_a_time = threading.RLock()

    def fetch(group: Sequence[LedgerEntry], missing: list[DecodedFile]) -> Iterator[Fetched]:
        for entry in group:
            try:
                yield entry.id, bucket.read(entry.file.key), _source(batch, entry, integration_account)
            except ObjectError as problem:
                missing.append(DecodedFile(entry.id, problem=problem))

    def read(group: Sequence[LedgerEntry]) -> tuple[_Done, IO[bytes]]:
        missing: list[DecodedFile] = []
        is_large = group[0].file.size >= LARGE
        with rows.lend() as file:
            if pool is None:
                with one_at_a_time if is_large else nullcontext():
                    fetched = list(fetch(group, missing))
                    with one_at_a_time:
                        done = _decode(file, fetched, how)
            elif is_large:
                with tempfile.TemporaryFile() as packed:
                    with one_at_a_time:
                        shared = [(number, _set_aside(data, packed), of) for number, data, of in fetch(group, missing)]
                    done = _decode_in(pool, file, shared, how)
            else:
                done = _decode_in(pool, file, list(fetch(group, missing)), how)
            done.files.extend(missing)
            return done, file

    files: list[DecodedFile] = []
    expired: Counter[int] = Counter()
    with ThreadPoolExecutor(limits.fetch_threads, thread_name_prefix="fetch") as threads:
        groups = _groups(batch.entries, limits.fetch_threads)
        for done, file in _in_order(threads, read, groups, limits.fetch_threads + 1, lambda: each(0)):
            for part in done.rows:
                if isinstance(part, Spilled):
                    rows.adopt(file, part)
                else:
                    rows.append(part)
            files.extend(done.files)
            expired.update(done.expired)
            each(len(done.files))
    return Read(rows, tuple(files), expired)


def _set_aside(data: bytes, packed: IO[bytes]) -> Any:
    """What another process opens to read these bytes: they are not held here while it decodes them."""
    try:
        packed.write(data)
        packed.flush()
    except OSError as error:
        raise no_room(error) from error
    return DupFd(packed.fileno())


def _decode_in(pool: Executor, file: IO[bytes], fetched: list[Fetched], how: _Decoding) -> _Done:
    try:
        return pool.submit(_decode_elsewhere, DupFd(file.fileno()), fetched, how).result()
    except BrokenExecutor as error:
        raise CollectError(
            "A process that decodes log files ended before its work, perhaps for want of memory.",
            "Set `decode_processes = 1` in kyra.toml, or give the machine more memory, and run this again.",
        ) from error


def _decode_elsewhere(lent: Any, fetched: list[Fetched], how: _Decoding) -> _Done:
    """In a process of its own: all rows go to the file that was lent."""
    with os.fdopen(lent.detach(), "r+b") as file:
        done = _decode(file, fetched, how)
        done.rows = [part if isinstance(part, Spilled) else spill(file, [part]) for part in done.rows]
        return done


def _decode(file: IO[bytes], fetched: list[Fetched], how: _Decoding) -> _Done:
    """Small log files into a table, large ones piece by piece into the file."""
    done = _Done()
    for is_large, some in itertools.groupby(fetched, lambda one: _is_large(one[1])):
        if not is_large:
            _add(done, some, how)
            continue
        for number, data, source in some:
            with BytesIO(data) if isinstance(data, bytes) else os.fdopen(data.detach(), "rb") as stored:
                _add_large(done, file, (number, stored, source), how)
    return done


def _add(done: _Done, fetched: Iterable[Fetched], how: _Decoding) -> None:
    decoded = decode_files(fetched, now=how.now, max_bytes=how.max_bytes)
    done.files.extend(decoded.files)
    done.rows.append(_young(decoded.events, how, done.expired))


def _add_large(done: _Done, file: IO[bytes], fetched: tuple[int, IO[bytes], Source], how: _Decoding) -> None:
    number, stored, source = fetched
    files: list[DecodedFile] = []
    expired: Counter[int] = Counter()

    def pieces() -> Iterator[pa.Table]:
        stored.seek(0)
        for piece in decode_large(number, stored, source, now=how.now, max_bytes=how.max_bytes):
            files.extend(piece.files)
            yield _young(piece.events, how, expired)

    try:
        done.rows.append(spill(file, pieces()))
    except NotStreamable:
        stored.seek(0)
        _add(done, [(number, stored.read(), source)], how)
        return
    except DecodeError as problem:
        done.files.append(DecodedFile(number, problem=problem))
        return
    done.files.extend(files)
    done.expired.update(expired)


def _young(events: pa.Table, how: _Decoding, expired: Counter[int]) -> pa.Table:
    if how.young is None:
        return events
    young = how.young(events)
    expired.update(events.filter(pc.invert(young))[FILE].to_pylist())
    return events.filter(young)


def _is_large(data: Any) -> bool:
    if not isinstance(data, bytes):
        return True
    # A gzip stream ends with the size of what it holds; of several streams in one file it is that of the last.
    unpacked = int.from_bytes(data[-4:], "little") if data.startswith(GZIP) else len(data)
    return len(data) >= LARGE or unpacked >= LARGE_UNPACKED


def _in_order(
    threads: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int, alive: Callable[[], None]
) -> Iterator[R]:
    """`threads.map`, with no more than so many items under way or waiting: results must not pile up.

    `alive` is called now and then while the next result takes its time.
    """
    waiting: deque[Future[R]] = deque()

    def first() -> R:
        while not wait([waiting[0]], BEAT).done:
            alive()
        return waiting.popleft().result()

    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) > ahead:
            yield first()
    while waiting:
        yield first()


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
