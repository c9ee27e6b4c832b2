"""The newest events, kept once more: a file a run, in place of a file a batch, account and day.

Many detections look at what lies some minutes around the new events, in every run: of twenty accounts that is hundreds
of small files, and opening one costs more than its rows do. So a run keeps the events it took as new ones in one file,
with the data files that they are of, for the runs of the next hours. A copy, and never the truth: names of data files
are never used twice, so a copy counts as long as the ledger lists all the files it is of, and is passed over else.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from kyra_etl import logs
from kyra_etl.cloudtrail.schema import EVENTS
from kyra_etl.errors import LakeError
from kyra_etl.lake import layout
from kyra_etl.lake.storage import Storage
from kyra_etl.lake.writer import parquet_options
from kyra_etl.model import DataFile

log = logs.logger(__name__)

KEPT = timedelta(hours=4)
"""How long before the newest event a copy ends that is let go of."""

MOST = 20_000
"""Rows of a copy at most: the files of a larger run are large themselves."""

_FOLDER = f"{layout.GATHERED_DIR}/events"
_FILES = b"files"
_TIME = "%Y%m%dT%H%M%S"


class _Copy(NamedTuple):
    """A copy, by its name: the path, and the seconds of its first and last event."""

    path: str
    first: datetime
    last: datetime


def keep(storage: Storage, files: Sequence[DataFile], rows: pa.Table) -> None:
    """Keep all the rows of these data files (schema EVENTS) for runs to come, and let go of what is too old.

    Nothing is kept of a single file, of too many rows, of times that are past, or of fewer rows than the files have:
    later runs would miss the others. A failure is only told in the log.
    """
    times = [(file.min_time, file.max_time) for file in files if file.min_time and file.max_time]
    if len(files) < 2 or len(times) < len(files) or rows.num_rows > MOST:
        return
    if rows.num_rows != sum(file.rows for file in files):
        return
    first, last = min(first for first, _ in times), max(last for _, last in times)
    told = sorted([one.path, one.size, one.rows, one.account, str(one.min_time), str(one.max_time)] for one in files)
    covered = json.dumps(told).encode()
    stem = f"{_FOLDER}/{first:{_TIME}}-{last:{_TIME}}-{hashlib.sha256(covered).hexdigest()[:16]}-"
    try:
        copies = _copies(storage)
        newest = max((copy.last for copy in copies), default=last)
        for copy in copies:
            if copy.last < max(newest, last) - KEPT:
                storage.remove(copy.path)
        if last >= newest - KEPT and not any(copy.path.startswith(stem) for copy in copies):
            whole = rows.select(EVENTS.names).replace_schema_metadata({_FILES: covered})
            # Of its own name, for two runs may take the same events: whoever reads a copy must not find half of another
            # one, with its rows in another order.
            name = f"{secrets.token_hex(8)}.parquet"
            staged = f"{layout.STAGING_DIR}/{layout.TABLES_STAGING}/{name}"
            # With the schema, or what is told beside the rows is lost.
            storage.write_parquet(staged, whole, **parquet_options(rows.schema) | {"store_schema": True})
            storage.move(staged, f"{stem}{name}")
    except (OSError, pa.ArrowException, LakeError) as error:
        log.info("The new events were not kept once more: %s", str(error).partition("\n")[0])


def kept(
    storage: Storage, files: Sequence[DataFile], accounts: Collection[str], first: datetime, last: datetime
) -> tuple[list[str], set[str]]:
    """URIs of the copies that hold events of that time, and the paths of the data files that they stand for.

    `files` are all data files of these accounts that may hold an event of that time. Copies hold other accounts' and
    other times' events too.
    """
    listed = {file.path: file.size for file in files}
    uris: list[str] = []
    stood_for: set[str] = set()
    for copy in _copies(storage):
        if copy.last + timedelta(seconds=1) < first or copy.first > last:
            continue
        own = {
            path: size
            for path, size, account, begins, ends in _covered(storage, copy)
            # As texts, which `str` makes of such times in their order, with and without less than seconds.
            if account in accounts and begins <= str(last) and ends >= str(first)
        }
        # Two copies may be of the same file: a run that failed is run again.
        if own and own.items() <= listed.items() and stood_for.isdisjoint(own):
            uris.append(storage.uri(copy.path))
            stood_for |= own.keys()
    return uris, stood_for


def forget(storage: Storage, before: date) -> None:
    """Let go of every copy with an event of a day before that one. Raises LakeError."""
    for copy in _copies(storage):
        if copy.first.date() < before:
            storage.remove(copy.path)


def _copies(storage: Storage) -> list[_Copy]:
    found = []
    for path in sorted(storage.sizes(_FOLDER)):
        first, last, *_ = f"{path.rpartition('/')[2]}--".split("-")
        try:
            found.append(_Copy(path, datetime.strptime(first, _TIME), datetime.strptime(last, _TIME)))
        except ValueError:  # none of ours
            continue
    return found


def _covered(storage: Storage, copy: _Copy) -> list[tuple[str, int, str, str, str]]:
    """The data files that a copy is of: path, size, account, first and last time.

    None if another version wrote it, or if it has not all their rows.
    """
    filesystem, root = storage.filesystem()
    try:
        with filesystem.open_input_file(f"{root}/{copy.path}") as stream:
            file = pq.ParquetFile(stream)
            schema, held = file.schema_arrow, file.metadata.num_rows
        told = json.loads(schema.metadata[_FILES])
        if schema.names == EVENTS.names and held == sum(rows for _, _, rows, *_ in told):
            return [(path, size, account, first, last) for path, size, _, account, first, last in told]
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        pass
    return []
