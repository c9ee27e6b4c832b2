"""Checks of the lake: each a SELECT in `sql/checks/`, over what lies there and what the ledger lists.

    files       path, kind, account, date, rows, size, published, found_size, found_rows, problem: what the ledger lists
    strangers   path, size: what lies there besides
    events      the rows of those files that can be read, with `filename`
    activity    likewise

Rows returned are what is wrong. Front matter: title, about, remedy.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from kyra_etl.cloudtrail.schema import ACTIVITY, EVENTS
from kyra_etl.errors import LakeError
from kyra_etl.lake import layout, views
from kyra_etl.lake.compact import working_memory
from kyra_etl.lake.moving import TRIES, has_left
from kyra_etl.lake.storage import Storage
from kyra_etl.model import DataFile

FENCE = "-- ---"
SHOWN = 100
"""Rows of a check that are kept; all are counted."""
AT_ONCE = 16
"""Files looked at at the same time."""

_FILES = pa.schema(
    {
        **dict.fromkeys(("path", "kind", "account"), pa.string()),
        "date": pa.date32(),
        **dict.fromkeys(("rows", "size"), pa.int64()),
        "published": pa.bool_(),
        **dict.fromkeys(("found_size", "found_rows"), pa.int64()),
        "problem": pa.string(),
    }
)
_STRANGERS = pa.schema({"path": pa.string(), "size": pa.int64()})


@dataclass(frozen=True, slots=True)
class Check:
    """One question whose rows are faults."""

    id: str
    title: str
    about: str
    remedy: str
    sql: str


@dataclass(frozen=True, slots=True)
class Faults:
    """What a check found: how many rows, and the first of them by column."""

    check: Check
    count: int
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file of the ledger as it lies there: `at` is where, None when it does not."""

    file: DataFile
    at: str | None = None
    size: int | None = None
    rows: int | None = None
    problem: str | None = None


def load(folder: Path) -> list[Check]:
    """The checks of a folder, by name. Raises LakeError naming the file that is none."""
    checks = []
    for path in sorted(folder.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        try:
            _, front, sql = text.split(f"{FENCE}\n", 2)
            told = tomllib.loads("\n".join(line.removeprefix("-- ") for line in front.splitlines()))
            checks.append(Check(path.stem, told["title"], told["about"], told["remedy"], sql))
        except (ValueError, KeyError) as error:
            raise LakeError(f"{path} is no check: {error}.", "It begins with title, about and remedy.") from error
    return checks


def inspect(
    storage: Storage,
    checks: Sequence[Check],
    listed: Callable[[], Sequence[DataFile]],
    known: Callable[[], set[str]],
    wanted: Callable[[DataFile], bool],
    *,
    memory: int,
) -> list[Faults]:
    """Run checks over the lake as it is. Raises LakeError when that is impossible.

    `listed` are the live files as the ledger says at the time it is called, `known` the paths of these and of others it
    may account for; `wanted` says whose rows are read.
    """
    for attempt in range(1, TRIES + 1):
        try:
            with _connected(storage, memory) as connection:
                return _inspect(connection, storage, checks, listed, known, wanted)
        except _Moved:
            if attempt == TRIES:
                raise
    raise AssertionError("unreachable")


class _Moved(LakeError):
    """Files were replaced between looking at them and reading them."""


def _inspect(
    connection: duckdb.DuckDBPyConnection,
    storage: Storage,
    checks: Sequence[Check],
    listed: Callable[[], Sequence[DataFile]],
    known: Callable[[], set[str]],
    wanted: Callable[[DataFile], bool],
) -> list[Faults]:
    # A file may be published or replaced at any moment: what counts as missing is listed before and after looking,
    # what counts as a stranger is unknown before and after. Staging is looked at first: files only leave it.
    before, known_before = {file.path: file for file in listed()}, known()
    staged = storage.sizes(layout.STAGING_DIR)
    found = {path: size for place in layout.DATA_DIRS for path, size in storage.sizes(place).items()}
    after, known_after = {file.path for file in listed()}, known()
    strangers = {
        path: size for path, size in found.items() if path not in known_before | known_after and storage.exists(path)
    }
    seen = [_locate(file, found, staged) for path, file in before.items() if path in after]
    filesystem, root = storage.filesystem()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = list(pool.map(lambda one: _open(one, filesystem, root), seen))
        try:
            return _run(connection, storage, checks, seen, strangers, wanted)
        except duckdb.Error as error:
            if {file.path for file in listed()} != after:
                raise _Moved("Files of the lake kept moving while they were checked.", "Run it again.") from error
            # Which file is it? Read them through.
            read = list(pool.map(lambda one: _read(one, filesystem, root) if wanted(one.file) else one, seen))
            if read == seen:
                raise
            return _run(connection, storage, checks, read, strangers, wanted)


def _locate(file: DataFile, found: dict[str, int], staged: dict[str, int]) -> _Seen:
    if file.path in found:
        return _Seen(file, file.path, found[file.path])
    if not file.published and file.staged_path in staged:
        return _Seen(file, file.staged_path, staged[file.staged_path])
    return _Seen(file)


def _open(seen: _Seen, filesystem: pafs.FileSystem, root: str) -> _Seen:
    """With what its footer says."""
    if seen.at is None:
        return seen
    try:
        rows = pq.read_metadata(f"{root}/{seen.at}", filesystem=filesystem).num_rows
    except (OSError, pa.ArrowException) as error:
        if has_left(error, filesystem, [f"{root}/{seen.at}"]):
            return replace(seen, rows=seen.file.rows)  # it was moved since it was found
        return replace(seen, problem=views.first_line(error))
    if seen.size != seen.file.size:
        return replace(seen, rows=rows, problem=f"it has {seen.size:,} bytes and was written with {seen.file.size:,}")
    return replace(seen, rows=rows)


def _read(seen: _Seen, filesystem: pafs.FileSystem, root: str) -> _Seen:
    """With what comes of reading it through."""
    if seen.at is None or seen.problem is not None:
        return seen
    try:
        with pq.ParquetFile(f"{root}/{seen.at}", filesystem=filesystem) as file:
            for _ in file.iter_batches(1_024):
                pass
    except (OSError, pa.ArrowException) as error:
        if has_left(error, filesystem, [f"{root}/{seen.at}"]):
            raise _Moved("Files of the lake kept moving while they were checked.", "Run it again.") from error
        return replace(seen, problem=views.first_line(error))
    return seen


def _run(
    connection: duckdb.DuckDBPyConnection,
    storage: Storage,
    checks: Sequence[Check],
    seen: Sequence[_Seen],
    strangers: dict[str, int],
    wanted: Callable[[DataFile], bool],
) -> list[Faults]:
    rows = [
        {
            **{name: getattr(one.file, name) for name in _FILES.names if hasattr(one.file, name)},
            "found_size": one.size,
            "found_rows": one.rows,
            "problem": one.problem,
        }
        for one in seen
        if one.file.kind == "malformed" or wanted(one.file)
    ]
    connection.register("files", pa.Table.from_pylist(rows, _FILES))
    others = [{"path": path, "size": size} for path, size in sorted(strangers.items())]
    connection.register("strangers", pa.Table.from_pylist(others, _STRANGERS))
    for kind, schema in (("events", EVENTS), ("activity", ACTIVITY)):
        uris = [
            storage.uri(one.at)
            for one in seen
            if one.file.kind == kind and one.at is not None and one.problem is None and wanted(one.file)
        ]
        readable = views.reading(schema, uris, ", filename = true" if uris else "")
        filename = "" if uris else ", NULL::VARCHAR AS filename"
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {kind} AS SELECT *{filename} FROM ({readable})")
    return [_answer(connection, check) for check in checks]


def _answer(connection: duckdb.DuckDBPyConnection, check: Check) -> Faults:
    cursor = connection.execute(check.sql)
    names = [column[0] for column in cursor.description or ()]
    first = cursor.fetchmany(SHOWN)
    count = len(first)
    while more := cursor.fetchmany(10_000):
        count += len(more)
    return Faults(check, count, tuple(dict(zip(names, row, strict=True)) for row in first))


@contextmanager
def _connected(storage: Storage, memory: int) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        with working_memory(storage, tempfile.mkdtemp(prefix="kyra-"), memory) as connection:
            yield connection
    except duckdb.Error as error:
        raise LakeError(f"The lake cannot be checked: {views.first_line(error)}.", "Run it again.") from error
