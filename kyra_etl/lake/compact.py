"""Many small data files of a partition → few large ones, sorted for questions about rare events.

DuckDB sorts, on disk where memory does not suffice; the rows pass through in slices, so that no partition is too large.
The layout is argued in docs/decisions/0009-layout-of-compacted-files.md.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl import memory
from kyra_etl.cloudtrail.schema import ACTIVITY, EVENTS, PARTITION, RECORD_COLUMNS
from kyra_etl.errors import LakeError
from kyra_etl.lake import layout
from kyra_etl.lake.dedup import distinct
from kyra_etl.lake.storage import Storage
from kyra_etl.lake.views import first_line, literal, reading
from kyra_etl.lake.writer import parquet_options
from kyra_etl.model import DataFile

FULL = 128 * 2**20
"""A file this large is closed, and left alone by later compactions."""

GROUP_ROWS = 65_536
GROUP_BYTES = 192 * 2**20
"""Bounds of a row group, the second in memory, of which it takes a quarter at most: what is skipped, or read, whole."""

SLICE = 8_192
"""Rows that DuckDB hands over at a time."""

LEVEL = 9
"""Of zstd: a compacted file is written once and read for years."""

ORDER = ("event_source", "event_name", "principal", "event_time", "event_id")
"""Rare calls stand together, and what one principal did again and again compresses best side by side."""

ROW = 6_144
"""Bytes of memory that sorting takes for a row, about: what it holds, as DuckDB holds it, and where it goes."""

_CALL = "hex(coalesce(event_source, '') || chr(1) || coalesce(event_name, ''))"
"""What rows are ordered by first, as a text that can stand in a query whatever is in it."""

BLOOMS = ("event_id", "user_access_key_id")
"""Columns that people look for one value in, and that the order leaves scattered."""

ROLL_UP = """
SELECT principal, actor_kind, CASE WHEN access_key_kind = 'AKIA' THEN user_access_key_id END AS access_key, source_net,
  aws_region AS region, event_source, event_name, is_write, success,
  min(event_time) AS first_seen, max(event_time) AS last_seen, count(*) AS count
FROM ({events}) GROUP BY ALL ORDER BY ALL"""
"""`activity.roll_up` in SQL, for events that need not fit into memory."""

MERGE = """
SELECT * EXCLUDE (account, date, first_seen, last_seen, count),
  min(first_seen) AS first_seen, max(last_seen) AS last_seen, sum(count)::BIGINT AS count
FROM ({activity}) GROUP BY ALL ORDER BY ALL"""

_WHERE_FROM = ", filename = true, file_row_number = true"


@dataclass(frozen=True, slots=True)
class Partition:
    """What to write for, and how: `alive` is called now and then while it takes its time.

    Of the `memory`, half is DuckDB's to sort in; the rows of a group, and writing them, take the other half.
    """

    account: str
    day: date
    swap_id: str
    memory: int
    alive: Callable[[], object] = lambda: None

    @property
    def sorting(self) -> int:
        """Bytes of memory to sort in."""
        return self.memory // 2


def compact(
    storage: Storage,
    partition: Partition,
    events: Sequence[DataFile],
    full: Sequence[DataFile],
    activity: Sequence[DataFile],
) -> tuple[list[DataFile], int]:
    """Stage what takes the place of `events` and `activity`; the files, and how many events were there twice.

    `full` are the other files of the partition: what they hold is not written again. Raises LakeError.
    """
    with _working(storage, partition) as work:
        made, doubled = work.sort(events, full) if events else ([], 0)
        if doubled:
            work.write("activity", ROLL_UP.format(events=work.reading(EVENTS, [*full, *made])))
        elif activity:
            work.write("activity", MERGE.format(activity=work.reading(ACTIVITY, activity)))
        return work.made, doubled


def rebuild(storage: Storage, partition: Partition, events: Sequence[DataFile]) -> list[DataFile]:
    """Stage the roll-up of these events anew. Raises LakeError."""
    with _working(storage, partition) as work:
        work.write("activity", ROLL_UP.format(events=work.reading(EVENTS, events)))
        return work.made


class _Work:
    """One partition's files being made on one connection."""

    def __init__(self, storage: Storage, partition: Partition, connection: duckdb.DuckDBPyConnection) -> None:
        self._storage, self._partition, self._connection = storage, partition, connection
        self.made: list[DataFile] = []

    def reading(self, schema: pa.Schema, files: Sequence[DataFile], more: str = "") -> str:
        uris = [self._storage.uri(file.path if file.published else file.staged_path) for file in files]
        return reading(schema, uris, more)

    def sort(self, events: Sequence[DataFile], full: Sequence[DataFile]) -> tuple[list[DataFile], int]:
        names = ", ".join(_columns(EVENTS).names)
        doubled = self._doubled(events, full)
        rows = self.reading(EVENTS, events, _WHERE_FROM if doubled else "")
        apart = "ANTI JOIN _doubled USING (filename, file_row_number)" if doubled else ""
        parts = self._parts(rows, sum(file.rows for file in events))
        order = ", ".join(ORDER)
        made = self.write(
            "events", *(f"SELECT {names} FROM ({rows}) {apart} {part} ORDER BY {order}" for part in parts)
        )
        held, found = sum(file.rows for file in events), sum(file.rows for file in made) + doubled
        if held != found:
            raise LakeError(
                f"The files of {layout.partition(self._partition.account, self._partition.day)} hold {found} events, "
                f"and {held} were committed.",
                "`kyra maintain check` names the file. Nothing was changed.",
            )
        return made, doubled

    def _parts(self, rows: str, count: int) -> list[str]:
        """Conditions that cut the rows, in their order, into parts that can be sorted in memory, if need be with help.

        DuckDB sorts on disk what memory does not hold, but with rows this wide not any amount of them.
        """
        most = self._partition.sorting // ROW
        if count <= most:
            return [""]
        groups = self._connection.sql(f"SELECT {_CALL}, count(*) FROM ({rows}) GROUP BY 1 ORDER BY 1").fetchall()
        parts: list[tuple[str, str]] = []
        held = most
        for call, number in groups:
            if held + number > most:
                parts.append((call, call))
                held = 0
            parts[-1] = (parts[-1][0], call)
            held += number
        return [f"WHERE {_CALL} BETWEEN {literal(first)} AND {literal(last)}" for first, last in parts]

    def _doubled(self, events: Sequence[DataFile], full: Sequence[DataFile]) -> int:
        """Find the events that are there once more, by the rule of `dedup`; the table `_doubled` says where."""
        ids = self.reading(EVENTS, [*events, *full])
        self._connection.execute(
            f"CREATE TEMP TABLE _twice AS SELECT event_id FROM ({ids}) GROUP BY 1 HAVING count(*) > 1"
        )
        place = ["filename", "file_row_number"]
        content = ["account", *RECORD_COLUMNS]
        suspects = "SELECT {} FROM ({}) SEMI JOIN _twice USING (event_id)"
        mine = suspects.format(", ".join([*content, *place]), self.reading(EVENTS, events, _WHERE_FROM))
        ours = self._connection.sql(f"{mine} ORDER BY filename, file_row_number").to_arrow_table()
        if not ours.num_rows:
            return 0
        theirs = self._connection.sql(suspects.format(", ".join(content), self.reading(EVENTS, full))).to_arrow_table()
        keep = distinct(ours, ours.take, theirs).keep
        doubled = ours.select(place).filter(pc.invert(keep))
        self._connection.register("_doubled", doubled)
        return int(doubled.num_rows)

    def write(self, kind: Literal["events", "activity"], *queries: str) -> list[DataFile]:
        """Stage the rows of queries, one after the other, a file for every FULL bytes."""
        columns = _columns(EVENTS if kind == "events" else ACTIVITY)
        batches = (batch for query in queries for batch in self._connection.sql(query).to_arrow_reader(SLICE))
        slices = _slices(batches, columns, min(GROUP_BYTES, self._partition.memory // 4))
        already, rows = len(self.made), next(slices, None)
        while rows is not None:
            file, rows = self._write_file(kind, columns, rows, slices)
            self.made.append(file)
        return self.made[already:]

    def _write_file(
        self, kind: Literal["events", "activity"], columns: pa.Schema, rows: pa.Table, more: Iterator[pa.Table]
    ) -> tuple[DataFile, pa.Table | None]:
        """One file, and the rows that did not go into it."""
        account, day, swap_id = self._partition.account, self._partition.day, self._partition.swap_id
        directory = layout.EVENTS_DIR if kind == "events" else layout.ACTIVITY_DIR
        path = layout.partitioned(directory, account, day, f"{swap_id}-{len(self.made)}")
        staged_path = layout.staged(path, swap_id)
        times = _Times()
        options = parquet_options(rows.schema) | {"compression_level": LEVEL}
        if kind == "events":
            # As many as the rows of a group, for those of a small file must not cost more than they hold.
            bits = {"ndv": max(min(rows.num_rows, GROUP_ROWS), 1), "fpp": 0.05}
            options["bloom_filter_options"] = dict.fromkeys(BLOOMS, bits)
        with self._storage.parquet(staged_path, columns, **options) as file:
            while rows is not None and file.size < FULL:
                file.write(rows)
                if kind == "events":
                    times.add(rows["event_time"])
                self._partition.alive()
                rows = None  # or they would be held while the next are made
                memory.trim()
                rows = next(more, None)
        described = DataFile(
            kind, path, staged_path, file.rows, file.size, account, day, min_time=times.first, max_time=times.last
        )
        return described, rows


class _Times:
    """The earliest and latest of the times seen."""

    def __init__(self) -> None:
        self.first: datetime | None = None
        self.last: datetime | None = None

    def add(self, times: pa.ChunkedArray) -> None:
        found = pc.min_max(times).as_py()
        self.first = min(filter(None, (self.first, found["min"])), default=None)
        self.last = max(filter(None, (self.last, found["max"])), default=None)


@contextmanager
def working_memory(storage: Storage, spill: str, memory: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads the lake and takes about so many bytes of memory.

    What exceeds them goes to the folder `spill`, which is removed at the end.
    """
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    try:
        for setting in (
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            "enable_progress_bar = false",
            "TimeZone = 'UTC'",
            f"memory_limit = '{memory // 2**20}MiB'",
            f"threads = {max(1, min(os.cpu_count() or 1, memory // 2**29))}",  # each needs memory of its own
            f"temp_directory = {literal(spill)}",
        ):
            connection.execute(f"SET {setting}")
        storage.register(connection)
        yield connection
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


@contextmanager
def _working(storage: Storage, partition: Partition) -> Iterator[_Work]:
    try:
        spill = storage.scratch(layout.staged("sort", partition.swap_id))
        with working_memory(storage, spill, partition.sorting) as connection:
            yield _Work(storage, partition, connection)
    except duckdb.Error as error:
        place = layout.partition(partition.account, partition.day)
        raise LakeError(f"{place} cannot be rewritten: {first_line(error)}.", _remedy(error)) from error


def _remedy(error: duckdb.Error) -> str:
    if "No space left" in str(error) or "max_temp_directory_size" in str(error):
        return "Free some space; nothing was changed, and the next run does it again."
    if isinstance(error, duckdb.OutOfMemoryException):
        return "Raise compact_memory; nothing was changed."
    return "`kyra maintain check` names the file if one is broken. Nothing was changed."


def _columns(schema: pa.Schema) -> pa.Schema:
    """What stands in a file: the partition's columns are in its path."""
    return pa.schema([field for field in schema if field.name not in PARTITION])


def _slices(batches: Any, columns: pa.Schema, most: int) -> Iterator[pa.Table]:
    """Rows in tables of about a row group each."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            held.append(batch)
        if sum(one.num_rows for one in held) >= GROUP_ROWS or sum(one.nbytes for one in held) >= most:
            yield pa.Table.from_batches(held).select(columns.names).cast(columns)
            held = []
    if held:
        yield pa.Table.from_batches(held).select(columns.names).cast(columns)
