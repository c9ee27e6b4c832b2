"""Deduplicated rows → staged data files, a file a partition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import date, datetime
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl import memory
from kyra_etl.cloudtrail.schema import EVENTS, MALFORMED, PARTITION
from kyra_etl.lake import layout
from kyra_etl.lake.activity import merge, roll_up
from kyra_etl.lake.parquet import ParquetFile
from kyra_etl.lake.storage import ZSTD_LEVEL, Storage
from kyra_etl.model import DataFile

Partition = tuple[str, date]

_PLAIN = ("event_id", "request_id", "shared_event_id")
"""Columns of random ids: a dictionary of them only costs."""


def partitions_of(events: pa.Table) -> list[Partition]:
    """The (account, date) pairs a table touches, in order."""
    pairs = events.group_by(list(PARTITION)).aggregate([]).to_pylist()
    return sorted((pair["account"], pair["date"]) for pair in pairs)


def split(events: pa.Table) -> Iterator[tuple[Partition, pa.Table]]:
    """A table by partition, in order of the partitions; rows keep their order."""
    where = pl.DataFrame(pl.from_arrow(events.select(PARTITION))).with_row_index("_row")
    groups = where.group_by(PARTITION).agg("_row").sort(PARTITION)
    if groups.height > 1:  # all rows are moved once, rather than each partition's gathered from everywhere
        events = events.take(groups["_row"].explode().to_arrow())
    first = 0
    for account, day, rows in zip(*groups, strict=True):
        yield (account, day), events.slice(first, len(rows))
        first += len(rows)


def stage(
    storage: Storage, batch_id: str, attempt: int, events: Iterable[pa.Table], malformed: Sequence[dict[str, Any]]
) -> tuple[DataFile, ...]:
    """Write one attempt's files under `_staging/` and describe them; nothing is visible to readers yet.

    `events` are pieces with the columns of EVENTS, each a row group of its partitions; `malformed` are rows of schema
    MALFORMED. The roll-up is made of the very same rows.
    """
    files: list[DataFile] = []
    rolled: list[pa.Table] = []
    with ExitStack() as open_files:
        written: dict[Partition, _Written] = {}
        for piece in events:
            rolled.append(roll_up(piece))
            rows = None  # of a piece without any, there is nothing to split
            for partition, rows in split(piece.select(EVENTS.names)):
                if partition not in written:
                    path = layout.partitioned(layout.EVENTS_DIR, *partition, batch_id)
                    writing = _writing(storage, layout.staged(path, batch_id, attempt), EVENTS)
                    written[partition] = _Written(path, open_files.enter_context(writing))
                written[partition].add(rows)
            # Before the next piece is read, or both would be held.
            del piece, rows
            memory.trim()
    for partition, activity in split(merge(rolled)):
        files.append(written[partition].described(batch_id, attempt, partition))
        path = layout.partitioned(layout.ACTIVITY_DIR, *partition, batch_id)
        files.append(_write(storage, "activity", path, batch_id, attempt, activity, partition))
    if malformed:
        path = f"{layout.MALFORMED_DIR}/{batch_id}.parquet"
        table = pa.Table.from_pylist(list(malformed), MALFORMED)
        files.append(_write(storage, "malformed", path, batch_id, attempt, table))
    return tuple(files)


class _Written:
    """A partition's file of events, while it is written."""

    def __init__(self, path: str, file: ParquetFile) -> None:
        self._path, self._file = path, file
        self._times: list[datetime] = []

    def add(self, rows: pa.Table) -> None:
        bounds = pc.min_max(rows["event_time"]).as_py()
        self._times = [min((bounds["min"], *self._times)), max((bounds["max"], *self._times))]
        self._file.write(rows.drop_columns(list(PARTITION)))

    def described(self, batch_id: str, attempt: int, partition: Partition) -> DataFile:
        return DataFile(
            kind="events",
            path=self._path,
            staged_path=layout.staged(self._path, batch_id, attempt),
            rows=self._file.rows,
            size=self._file.size,
            account=partition[0],
            date=partition[1],
            min_time=self._times[0],
            max_time=self._times[1],
        )


def _writing(storage: Storage, path: str, schema: pa.Schema) -> AbstractContextManager[ParquetFile]:
    stored = pa.schema([field for field in schema if field.name not in PARTITION])
    return storage.parquet(path, stored, **parquet_options(stored))


def _write(
    storage: Storage,
    kind: Literal["activity", "malformed"],
    path: str,
    batch_id: str,
    attempt: int,
    table: pa.Table,
    partition: Partition | None = None,
) -> DataFile:
    staged_path = layout.staged(path, batch_id, attempt)
    with _writing(storage, staged_path, table.schema) as file:
        file.write(table.drop_columns([name for name in PARTITION if name in table.column_names]))
    account, day = partition or (None, None)
    return DataFile(kind, path, staged_path, file.rows, file.size, account, day)


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How the lake's files are encoded: zstd, dictionaries where values repeat, no writer-specific schema."""
    return {
        "compression": "zstd",
        "compression_level": ZSTD_LEVEL,
        "use_dictionary": [name for name in schema.names if name not in _PLAIN],
        "store_schema": False,
    }
