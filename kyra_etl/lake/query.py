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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from kyra_etl.cloudtrail import schema
from kyra_etl.errors import KyraError, LakeError, QueryError
from kyra_etl.lake import guard, views
from kyra_etl.lake.layout import EVERYWHERE, Reach
from kyra_etl.lake.moving import TRIES
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

_CHUNK = 10_000

T = TypeVar("T")

Files = Callable[[str, Reach], Sequence[str]]
"""Where to read the committed files of a kind ("events", "activity") within a reach."""
Rows = Mapping[str, Callable[[], Iterable[Mapping[str, Any]]]]
"""How to get the rows of a relation of our own; they are taken as they come, however many."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows in order; `more` when there were others beyond the limit. Column names are made unique."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool = False

    def as_dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Streamed:
    """How many rows were given; `more` when there were others beyond the limit."""

    rows: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class Macro:
    """A question that has a name."""

    name: str
    params: Sequence[str]
    about: str


Params = Mapping[str, Any] | None
Write = Callable[[Sequence[str], Iterable[Sequence[Any]]], None]
"""Takes the names of columns and the rows."""


class Analyst:
    """Answers queries, each within `seconds`.

    `prepare` is called with a new connection and the query, before the locks close: for macros, variables, and file
    systems. It says whether there are table macros now.
    """

    def __init__(
        self,
        files: Files,
        rows: Rows,
        *,
        seconds: float,
        prepare: Callable[[duckdb.DuckDBPyConnection, str], bool] = lambda connection, sql: False,
    ) -> None:
        self._files, self._rows, self._seconds, self._prepare = files, rows, seconds, prepare

    def query(self, sql: str, params: Params = None, *, limit: int | None = None, within: Reach = EVERYWHERE) -> Answer:
        """The rows of one SELECT, over the files `within`.

        Raises QueryError for one that cannot be run, LakeError for trouble below it.
        """
        return self._run(
            sql, lambda connection: _answer(connection.execute(sql, params and dict(params)), limit), within
        )

    def arrow(self, sql: str, params: Params = None) -> pa.Table:
        """As `query`, whole, as an Arrow table."""
        relation = {"params": dict(params)} if params else {}
        return self._run(sql, lambda connection: connection.sql(sql, **relation).to_arrow_table())

    def stream(self, sql: str, write: Write, *, limit: int | None = None) -> Streamed:
        """Give the rows of one SELECT, however many, to `write`, and say how many those were.

        The time that `write` takes counts. It may be called again, to begin anew: files can be replaced meanwhile.
        """

        def ask(connection: duckdb.DuckDBPyConnection) -> Streamed:
            result = connection.execute(sql)
            rows = _Rows(result, limit)
            write(_columns(result), rows)
            return rows.streamed()

        return self._run(sql, ask)

    def parquet(self, sql: str, target: BinaryIO, *, limit: int | None = None) -> Streamed:
        """As `stream`, into a Parquet file; `target` is emptied first."""

        def ask(connection: duckdb.DuckDBPyConnection) -> Streamed:
            target.seek(0)
            target.truncate()
            relation = connection.sql(sql)
            columns = tuple(_unique(relation.columns))
            rows, more = 0, False
            with relation.to_arrow_reader(_CHUNK) as reader:
                fields = [field.with_name(name) for field, name in zip(reader.schema, columns, strict=True)]
                with pq.ParquetWriter(target, pa.schema(fields), compression="zstd") as writer:
                    for batch in reader:
                        some = batch if limit is None else batch.slice(0, limit - rows)
                        writer.write_batch(some.rename_columns(list(columns)))
                        rows += some.num_rows
                        if more := some.num_rows < batch.num_rows:
                            break
            return Streamed(rows, more)

        try:
            return self._run(sql, ask)
        except pa.ArrowNotImplementedError as error:
            text = str(error).splitlines()[0][:200].rstrip(".")
            raise QueryError(
                f"Parquet cannot hold a column: {text}.", "Cast it to a text: CAST(… AS VARCHAR)."
            ) from error

    def columns(self) -> dict[str, list[tuple[str, str]]]:
        """Every relation, with the names and types of its columns."""
        found: dict[str, list[tuple[str, str]]] = {name: [] for name in NAMES}
        query = "SELECT table_name, column_name, data_type FROM duckdb_columns() ORDER BY table_oid, column_index"
        for relation, column, kind in self.query(query).rows:
            if relation in found:
                found[relation].append((column, kind))
        return found

    def macros(self) -> list[Macro]:
        """Our table macros, by name."""
        query = (
            "SELECT function_name, parameters, comment FROM duckdb_functions() "
            "WHERE function_type = 'table_macro' AND NOT internal ORDER BY function_name"
        )
        return [Macro(*row) for row in self.query(query).rows]

    def _run(self, sql: str, ask: Callable[[Any], T], within: Reach = EVERYWHERE) -> T:
        alike, tries, until = True, TRIES, monotonic() + self._seconds
        while True:
            listed: dict[str, Sequence[str]] = {}
            try:
                return self._once(sql, ask, within, alike, listed)
            except duckdb.Error as error:
                if alike and "schema mismatch" in str(error):
                    # Some files have other columns than the rest: an earlier version wrote them.
                    alike = False
                elif not _of_a_file(error) or monotonic() > until:
                    raise _explained(error) from error
                elif not self._have_moved(listed, within):
                    # S3 may be out of sorts for a moment.
                    tries -= 1
                    if not tries:
                        raise _explained(error) from error

    def _have_moved(self, listed: Mapping[str, Sequence[str]], within: Reach) -> bool:
        """Whether files left the place they were listed at: a staged one was published, or a compaction replaced it.

        Then it is worth asking again, for as long as that goes on.
        """
        return any(not set(files) <= set(self._files(name, within)) for name, files in listed.items())

    def _once(
        self, sql: str, ask: Callable[[Any], T], within: Reach, alike: bool, listed: dict[str, Sequence[str]]
    ) -> T:
        """One try; `listed` takes the files that it looks at, by their relation."""
        connection, mentioned = self._connect(sql, within, alike, listed)

        def ask_all(connection: duckdb.DuckDBPyConnection) -> T:
            for name in sorted(mentioned & TABLES.keys() & self._rows.keys()):
                views.fill(connection, name, TABLES[name], self._rows[name]())
            return ask(connection)

        try:
            if complaint := guard.complaint(connection, sql):
                raise QueryError(f"Only reading is possible here: {complaint}.", _remedy())
            return self._in_time(connection, ask_all)
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

    def _connect(
        self, sql: str, within: Reach, alike: bool, listed: dict[str, Sequence[str]]
    ) -> tuple[duckdb.DuckDBPyConnection, set[str]]:
        """A connection with every relation, those of the ledger empty, and the words that the query mentions."""
        connection = duckdb.connect(":memory:", config=_CONFIG)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # else on standard output, where DuckDB sees a notebook
        mentioned = _mentioned(connection, sql) if self._prepare(connection, sql) else _words(sql)
        for name in NAMES:
            # What the query does not mention stays empty: the ledger alone may be large.
            wanted = name in mentioned
            if name in _FILES:
                listed[name] = self._files(name, within) if wanted else ()
                _make_view(connection, name, listed[name], alike)
            elif name in _SNAPSHOTS:
                rows = self._rows[name]() if wanted and name in self._rows else ()
                views.register_rows(connection, name, _SNAPSHOTS[name], rows)
            else:
                views.register_rows(connection, name, views.columns_of(TABLES[name]), ())
        spill = Path(tempfile.gettempdir()) / f"kyra-{secrets.token_hex(8)}"  # made and removed by DuckDB, when needed
        connection.execute(f"SET temp_directory = {views.literal(str(spill))}")
        connection.execute(f"SET allowed_paths = {views.literal(list(chain(*listed.values())))}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection, mentioned


def _mentioned(connection: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """The words of a query, and those of the table macros it names."""
    query = (
        "SELECT function_name, macro_definition FROM duckdb_functions() "
        "WHERE function_type = 'table_macro' AND NOT internal"
    )
    macros = dict(connection.execute(query).fetchall())
    words, new = set[str](), _words(sql)
    while new:
        words |= new
        new = set().union(*(_words(macros[name]) for name in new & macros.keys())) - words
    return words


def _words(sql: str) -> set[str]:
    return set(re.findall(r"\w+", sql.lower()))


def _make_view(connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str], alike: bool) -> None:
    if alike:
        try:
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {views.reading_alike(_FILES[name], files)}")
            return
        except duckdb.BinderException:
            pass  # the first file lacks a column
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {views.reading(_FILES[name], files)}")


class _Rows:
    """The rows of a result, at most `limit`, as they are fetched."""

    def __init__(self, result: Any, limit: int | None) -> None:
        self._result, self._limit, self._given, self._more = result, limit, 0, False

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while rows := self._result.fetchmany(_CHUNK):
            for row in rows:
                if self._given == self._limit:
                    self._more = True
                    return
                self._given += 1
                yield row

    def streamed(self) -> Streamed:
        return Streamed(self._given, self._more)


def _columns(result: Any) -> tuple[str, ...]:
    return tuple(_unique([column[0] for column in result.description]))


def _answer(result: Any, limit: int | None) -> Answer:
    rows = result.fetchall() if limit is None else result.fetchmany(limit + 1)
    columns = _columns(result)
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


def _of_a_file(error: duckdb.Error) -> bool:
    """Whether a file of the list could not be read.

    Of one that is gone DuckDB asks whether it is a folder.
    """
    if isinstance(error, duckdb.PermissionException):
        return ".parquet/**/*.parquet" in str(error)
    if isinstance(error, duckdb.IOException) or views.is_of_python(error):
        return True
    return type(error) is duckdb.Error and ".parquet" in str(error)


def _explained(error: duckdb.Error) -> KyraError:
    """What DuckDB said, in one line, with the next step."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in str(error).splitlines() if line.strip()]
    first = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", re.sub(r"\s+", " ", views.first_line(error)))
    hints = [line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))]
    text = " ".join([first, *hints[:1]])[:400].rstrip(".")
    text += "" if text.endswith(("?", "!")) else "."
    if isinstance(error, duckdb.OutOfMemoryException):
        return LakeError(f"The query needs too much memory: {text}", "Narrow it by date and account.")
    if isinstance(error, duckdb.PermissionException) and not _of_a_file(error):
        return QueryError(f"Files are out of reach here: {text}", _remedy())
    if isinstance(error, duckdb.IOException) or views.is_of_python(error) or ".parquet" in text:
        return LakeError(
            f"The lake cannot be read: {text}",
            "`kyra maintain check` tells all that is wrong. Restore the file, or read around it with --skip-damaged.",
        )
    if isinstance(error, duckdb.CatalogException) and "Table with name" in text:
        return QueryError(text, _remedy())
    if isinstance(error, duckdb.BinderException) and "column" in text.lower():
        return QueryError(text, "`kyra sql 'DESCRIBE events'` lists the columns.")
    return QueryError(text, "Mend the query: it is DuckDB's SQL.")


def _remedy() -> str:
    return f"Give one SELECT over {', '.join(NAMES)}."
