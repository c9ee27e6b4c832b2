"""One open state database: its engine, its two kinds of transaction, and its errors in our words.

SQLite and PostgreSQL behave alike on purpose: a write transaction is the only one of its kind at any moment
(BEGIN IMMEDIATE there, one advisory lock here), a read transaction sees one snapshot. What holds for one holds
for the other, and no statement has to think about deadlocks. In return, write transactions are short: nobody
touches a file or the network inside one.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Column, Connection, Select, Table, create_engine, event, make_url, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from kyra_etl.errors import StateError
from kyra_etl.state.explain import explain

BUSY_SECONDS = 30
"""How long a writer waits for the one before it."""

SYNCHRONOUS = "FULL"
"""SQLite's word for a commit that is on the disk before it returns.

What is done next relies on it: files are moved, messages deleted. With less, a loss of power could leave a ledger that
is older than the lake, and events would be loaded twice.
"""

CHUNK = 500
"""Values in one IN (…) list."""

PAGE = 5_000
"""Rows that are read at a time where there may be millions."""

_WRITER_LOCK = 0x6B797261  # "kyra": the advisory lock that makes PostgreSQL have one writer at a time
_FORMS = "Use the path of a file, such as /srv/kyra/state.db, or postgresql://user:password@host/database."

T = TypeVar("T")


class Database:
    """An open database. Safe to share between threads; every process opens its own."""

    def __init__(self, url: str) -> None:
        """Connects to `url`; makes the file (readable by its owner only) if it is SQLite and not there yet."""
        parsed = _parse(url)
        self.where = _where(parsed)
        """The database by name, without user or password."""
        self._postgres = parsed.get_backend_name() == "postgresql"
        if not self._postgres:
            _make_file(Path(cast(str, parsed.database)), self.where)
        try:
            self._engine = create_engine(
                parsed,
                hide_parameters=True,
                pool_pre_ping=self._postgres,
                connect_args={"connect_timeout": 10} if self._postgres else {"timeout": BUSY_SECONDS},
            )
        except ImportError as error:
            raise StateError(
                "PostgreSQL as state database needs the driver psycopg.", "Run: pip install 'psycopg[binary]'"
            ) from error
        if self._postgres:
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._writer = self._engine
            event.listen(self._engine, "connect", _prepare_postgres)
        else:
            self._reader = self._engine.execution_options(kyra_begin="BEGIN")
            self._writer = self._engine.execution_options(kyra_begin="BEGIN IMMEDIATE")
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._driver_error: type[Exception] = self._engine.dialect.loaded_dbapi.Error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that reads one consistent snapshot."""
        with self._explained(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The transaction that may write: it has no rival until it ends. Rolled back by any exception."""
        with self._explained(), self._writer.begin() as connection:
            if self._postgres:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")
            yield connection

    def pages(self, query: Select[Any], *names: Column[Any]) -> Iterator[list[dict[str, Any]]]:
        """All the rows of a query, some thousands at a time, in the order of the columns that name one.

        Each page is of its own moment: no transaction lasts longer, and what stays as it is, is given once.
        """
        ordered, last = query.order_by(*names).limit(PAGE), None
        while True:
            page = ordered if last is None else ordered.where(tuple_(*names) > last)
            with self.read() as connection:
                rows = [dict(row) for row in connection.execute(page).mappings()]
            if not rows:
                return
            last = tuple(rows[-1][column.name] for column in names)
            yield rows

    def clock(self, connection: Connection) -> datetime:
        """The database's own time, naive UTC: the one clock that all processes of all machines share."""
        if self._postgres:
            return cast(datetime, connection.exec_driver_sql("SELECT clock_timestamp() AT TIME ZONE 'UTC'").scalar())
        text = connection.exec_driver_sql("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')").scalar()
        return datetime.fromisoformat(cast(str, text))

    def insert(self, table: Table) -> postgresql.Insert:
        """An INSERT that knows ON CONFLICT; both dialects spell it alike."""
        return postgresql.insert(table) if self._postgres else cast(postgresql.Insert, sqlite.insert(table))

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, self._driver_error, UnicodeError) as error:
            raise explain(error, self.where) from error


def chunks(values: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """`values` in slices of at most `size`, so that no statement carries more parameters than a database takes."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _parse(url: str) -> URL:
    """The URL with its driver. A text without a scheme is the path of an SQLite file."""
    if "://" not in url:
        if not url.strip():
            raise StateError("The state database has no address.", _FORMS)
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend in ("postgresql", "postgres"):
            return parsed.set(drivername="postgresql+psycopg")
        if backend != "sqlite":
            raise StateError(f"The state database cannot be {backend!r}.", _FORMS)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        # `from None`: SQLAlchemy's message may quote the URL, password and all
        raise StateError(f"The state database's URL cannot be read ({type(error).__name__}).", _FORMS) from None
    if not parsed.database or parsed.database == ":memory:":
        raise StateError("The state database must be a file: one in memory is not shared between threads.", _FORMS)
    return parsed


def _where(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return cast(str, url.database)
    port = f":{url.port}" if url.port else ""
    return f"{url.host or 'local socket'}{port}/{url.database or ''}"


def _make_file(path: Path, where: str) -> None:
    """Makes the file private before SQLite opens it: it holds external ids. WAL files copy its permissions."""
    if path.exists() or str(path).startswith("file:"):  # an SQLite URI says itself how to open
        return
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StateError(
            f"The state database {where} cannot be made: {error.strerror}.", "Check the path and its permissions."
        ) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin_sqlite` does
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # going over to WAL does not wait for the busy timeout, and several processes may be first at once
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
    connection.execute("PRAGMA cache_size = -32768")  # KiB: the tree's upper pages stay, however large it grows
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("kyra_begin", "BEGIN"))


def _prepare_postgres(connection: Any, _record: object) -> None:
    """Bounds every wait, and lets the server drop a writer whose machine went away with the lock in its hand."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {int(BUSY_SECONDS * 1000)}")
        cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
    connection.commit()
