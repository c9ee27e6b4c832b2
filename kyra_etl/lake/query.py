"""Read-only SQL over the lake, for analysts: one SELECT at a time, and nothing to be reached but what is committed.

    events, activity                                      the committed data files, as the ledger lists them
    alerts, alert_events, log_files, sync_runs, status    records of our own, as of the query
    trails, accounts                                      what the last check saw, so that detections run here unchanged

Every statement runs on a fresh in-memory connection, so that it sees the lake as it is then. The locks, one behind the
other: the statement may only read (`guard`); files other than the committed ones cannot be opened; nothing is installed
or loaded; the configuration is locked.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from kyra_etl.cloudtrail import schema
from kyra_etl.errors import KyraError, LakeError, QueryError
from kyra_etl.lake import guard, views
from kyra_etl.lake.tables import TABLES

_FILES = {"events": schema.EVENTS, "activity": schema.ACTIVITY}
_SNAPSHOTS = {"trails": views.TRAILS, "accounts": views.ACCOUNTS}

NAMES = (*_FILES, *TABLES, *_SNAPSHOTS)
"""Every relation there is to ask."""

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",  # or a table name could be any variable of this program
}

TRIES = 5
"""How often the lake's files are listed and read, while somebody keeps moving them."""

T = TypeVar("T")

Files = Callable[[str], Sequence[str]]
"""Where to read the committed files of a kind ("events", "activity")."""
Rows = Mapping[str, Callable[[], Sequence[Mapping[str, Any]]]]
"""How to get the rows of a relation of our own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows in order; `more` when there were others beyond the limit. Column names are made unique."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool = False

    def as_dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Analyst:
    """Answers queries, each within `seconds`.

    `prepare` is called with a new connection and the query, before the locks close: for macros, variables, and file
    systems.
    """

    def __init__(
        self,
        files: Files,
        rows: Rows,
        *,
        seconds: float,
        prepare: Callable[[duckdb.DuckDBPyConnection, str], None] = lambda connection, sql: None,
    ) -> None:
        self._files, self._rows, self._seconds, self._prepare = files, rows, seconds, prepare

    def query(self, sql: str, params: Mapping[str, Any] | None = None, *, limit: int | None = None) -> Answer:
        """The rows of one SELECT. Raises QueryError for one that cannot be run, LakeError for trouble below it."""
        return self._run(sql, lambda connection: _answer(connection.execute(sql, params and dict(params)), limit))

    def arrow(self, sql: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        """As `query`, whole, as an Arrow table."""
        relation = {"params": dict(params)} if params else {}
        return self._run(sql, lambda connection: connection.sql(sql, **relation).to_arrow_table())

    def _run(self, sql: str, ask: Callable[[Any], T]) -> T:
        for attempt in range(1, TRIES + 1):
            try:
                return self._once(sql, ask)
            except duckdb.Error as error:
                # A staged file was published, or a compaction replaced it, since the list was read: read it once more.
                if attempt == TRIES or not isinstance(error, duckdb.IOException):
                    raise _explained(error) from error
        raise AssertionError("unreachable")

    def _once(self, sql: str, ask: Callable[[Any], T]) -> T:
        connection = self._connect(sql)
        try:
            if complaint := guard.complaint(connection, sql):
                raise QueryError(f"Only reading is possible here: {complaint}.", _remedy())
            return self._in_time(connection, ask)
        finally:
            connection.close()

    def _in_time(self, connection: duckdb.DuckDBPyConnection, ask: Callable[[Any], T]) -> T:
        """The answer, from a thread of its own: while it works, DuckDB hears neither a clock nor a Ctrl-C."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            answer = pool.submit(ask, connection)
            try:
                done, _ = wait([answer], self._seconds)
                if done:
                    return answer.result()
                raise LakeError(
                    f"The query was stopped after {self._seconds:g} seconds.",
                    "Narrow it by date and account, or raise query_seconds.",
                )
            finally:
                while not answer.done():
                    connection.interrupt()
                    wait([answer], 0.1)

    def _connect(self, sql: str) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(":memory:", config=_CONFIG)
        connection.execute("SET TimeZone = 'UTC'")
        self._prepare(connection, sql)
        allowed: list[str] = []
        for name in NAMES:
            # What the query does not mention stays empty: the ledger alone may be large.
            wanted = re.search(rf"\b{name}\b", sql, re.IGNORECASE) is not None
            if name in _FILES:
                files = self._files(name) if wanted else ()
                connection.execute(f"CREATE TEMP VIEW {name} AS {views.reading(_FILES[name], files)}")
                allowed += files
                continue
            rows = self._rows[name]() if wanted and name in self._rows else ()
            if name in _SNAPSHOTS:
                views.register_rows(connection, name, _SNAPSHOTS[name], rows)
            else:
                connection.register(name, _table(rows, TABLES[name]))
        spill = Path(tempfile.gettempdir()) / f"kyra-{secrets.token_hex(8)}"  # made and removed by DuckDB, when needed
        connection.execute(f"SET temp_directory = {views.literal(str(spill))}")
        connection.execute(f"SET allowed_paths = {views.literal(allowed)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection


def _answer(result: Any, limit: int | None) -> Answer:
    rows = result.fetchall() if limit is None else result.fetchmany(limit + 1)
    names = [column[0] for column in result.description]
    columns = tuple(_unique(names))
    more = limit is not None and len(rows) > limit
    return Answer(columns, rows[:limit] if more else rows, more)


def _unique(names: Sequence[str]) -> Iterator[str]:
    taken: set[str] = set()
    for name in names:
        unique, n = name, 1
        while unique in taken:
            unique, n = f"{name}_{n}", n + 1
        taken.add(unique)
        yield unique


def _table(rows: Sequence[Mapping[str, Any]], columns: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([_fitting(row, columns) for row in rows], schema=columns)


def _fitting(row: Mapping[str, Any], columns: pa.Schema) -> dict[str, Any]:
    return {name: list(v) if isinstance(v := row.get(name), tuple) else v for name in columns.names}


def _explained(error: duckdb.Error) -> KyraError:
    """What DuckDB said, in one line, with the next step."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in str(error).splitlines() if line.strip()]
    first = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", lines[0])
    hints = [line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))]
    text = " ".join([first, *hints[:1]])[:400].rstrip(".")
    text += "" if text.endswith(("?", "!")) else "."
    if isinstance(error, duckdb.OutOfMemoryException):
        return LakeError(f"The query needs too much memory: {text}", "Narrow it by date and account.")
    if isinstance(error, duckdb.PermissionException):
        return QueryError(f"Files are out of reach here: {text}", _remedy())
    if isinstance(error, duckdb.IOException) or ".parquet" in text:
        return LakeError(f"The lake cannot be read: {text}", "Restore the file from a backup.")
    if isinstance(error, duckdb.CatalogException) and "Table with name" in text:
        return QueryError(text, _remedy())
    if isinstance(error, duckdb.BinderException) and "column" in text.lower():
        return QueryError(text, "`kyra sql 'DESCRIBE events'` lists the columns.")
    return QueryError(text, "Mend the query: it is DuckDB's SQL.")


def _remedy() -> str:
    return f"Give one SELECT over {', '.join(NAMES)}."
