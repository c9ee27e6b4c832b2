"""Runs detections: an in-memory DuckDB, locked down, in which `events` is what one detection may look at.

A detection may read committed files of the lake and nothing else: no other file, no network, no writing, no setting.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import duckdb

from kyra_etl.cloudtrail.schema import ACTIVITY, EVENTS
from kyra_etl.detection.alerts import alert_id
from kyra_etl.detection.rule import Detection
from kyra_etl.errors import DetectionError, KyraError, LakeError
from kyra_etl.lake import Lake, guard, views
from kyra_etl.lake.views import Rows, first_line, literal, reading
from kyra_etl.model import SEVERITIES, DataFile, Finding, Window

FINDING_COLUMNS = ("event_id", "event_time", "account", "region", "actor", "source_ip", "target", "summary")
"""What every detection returns; `severity`, `event_ids` and what it groups by may come on top."""

IN_MEMORY = 200_000
"""New events up to this number are held in memory once; more are read from their files by each detection."""

SECONDS = 120.0
"""How long one detection may take."""

TRIES = 5
"""How often the lake's files are listed and read, while somebody keeps moving them."""

_AT = re.compile(r"^LINE (\d+):", re.MULTILINE)


class Committed(Protocol):
    """What the engine asks of the ledger."""

    def data_files(
        self, kind: str, *, accounts: Collection[str] | None, first: date | None, last: date | None
    ) -> Sequence[DataFile]: ...

    def historical_batches(self, batch_ids: Iterable[str]) -> set[str]: ...


class _Reach(NamedTuple):
    """Whom and when the new events of a detection concern."""

    accounts: list[str]
    first: datetime
    last: datetime


class Engine:
    """One connection for many detections. `take` new events, then `evaluate` each detection on them.

    `macros` is the folder `sql/views`. Use as a context manager, or `close()`.
    """

    def __init__(
        self,
        lake: Lake,
        committed: Committed,
        macros: Path,
        *,
        trails: Rows = (),
        accounts: Rows = (),
        seconds: float = SECONDS,
    ) -> None:
        self._lake = lake
        self._committed = committed
        self._seconds = seconds
        self._connection = _open(macros, lake)
        self.know(trails, accounts)
        self.take(lambda: ())

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def know(self, trails: Rows = (), accounts: Rows = ()) -> None:
        """Set the last check's snapshot: the relations `trails` and `accounts`."""
        views.register(self._connection, trails=trails, accounts=accounts)

    def take(
        self,
        listed: Callable[[], Sequence[DataFile]],
        window: Window | None = None,
        *,
        batches: Collection[str] | None = None,
        rows: int | None = None,
    ) -> None:
        """Take the events of these data files as the new ones: those within the window, or of these batches.

        `rows` says how many they are, where the files hold others too. The list is asked for anew when a file of it
        has been replaced meanwhile.
        """
        self._listed, self._rows_taken = listed, rows
        within = [f"event_time >= {_moment(window.start)} AND event_time < {_moment(window.end)}"] if window else []
        self._within = " AND ".join([*within, *([_of(batches)] if batches is not None else [])]) or "true"
        for attempt in range(1, TRIES + 1):
            try:
                self._take()
                return
            except LakeError:
                if attempt == TRIES:
                    raise

    def _take(self) -> None:
        files = self._listed()
        rows = f"SELECT * FROM ({reading(EVENTS, self._lake.readable(files))}) WHERE {self._within}"
        known = sum(file.rows for file in files) if self._rows_taken is None else self._rows_taken
        small = known <= IN_MEMORY
        self._execute(f"CREATE OR REPLACE TEMP TABLE _held AS {rows if small else reading(EVENTS, ())}")
        self._execute(f"CREATE OR REPLACE TEMP VIEW _taken AS {'SELECT * FROM _held' if small else rows}")

    def evaluate(self, detection: Detection, batch_ids: Collection[str] | None = None) -> list[Finding]:
        """The findings that rest on at least one of the new events (of these batches, or all that were taken).

        Raises DetectionError naming file and line when the SQL fails, and LakeError when a data file cannot be read.
        """
        for attempt in range(1, TRIES + 1):
            try:
                of = "true" if batch_ids is None else _of(batch_ids)
                self._execute(f"CREATE OR REPLACE TEMP VIEW _new AS SELECT * FROM _taken WHERE {of}")
                if not self._relate(detection):
                    return []
                self._run(detection)
                return list(self._findings(detection))
            except LakeError:
                # A file may be published or replaced, and so move, between listing and reading: list once more.
                if attempt == TRIES:
                    raise
                self._take()
        raise AssertionError("unreachable")

    def _relate(self, detection: Detection) -> bool:
        """Make `events` and `activity` for one detection; False when no new event concerns it."""
        named = "true"
        if detection.event_names:
            named = f"event_name IN ({', '.join(map(literal, sorted(detection.event_names)))})"
        reach = self._spans(named, 2 * detection.lookback)
        if reach is None:
            return False
        if detection.lookback:
            files = self._files("events", reach.accounts, reach.first, reach.last)
            near = f"event_time BETWEEN {_moment(reach.first)} AND {_moment(reach.last)}"
            self._execute(
                f"CREATE OR REPLACE TEMP VIEW events AS SELECT * FROM ({reading(EVENTS, files)}) AS e WHERE {near} "
                "AND EXISTS (SELECT 1 FROM _spans AS s WHERE s.account = e.account "
                "AND e.event_time BETWEEN s.first AND s.last)"
            )
        else:
            self._execute("CREATE OR REPLACE TEMP VIEW events AS SELECT * FROM _new")
        known: list[str] = []
        if detection.baseline:
            # A day more at the start: an activity row counts by its last use, which may lie later than its date begins.
            start = reach.first - detection.baseline - timedelta(days=1)
            known = self._files("activity", reach.accounts, start, reach.last)
        self._execute(f"CREATE OR REPLACE TEMP VIEW activity AS {reading(ACTIVITY, known)}")
        views.set_params(self._connection, [detection])
        return True

    def _spans(self, named: str, around: timedelta) -> _Reach | None:
        """Merge the times around new events into few spans an account."""
        margin = f"INTERVAL {int(around.total_seconds())} SECOND"
        self._execute(
            f"""CREATE OR REPLACE TEMP TABLE _spans AS
            WITH edges AS (
              SELECT DISTINCT account, event_time - {margin} AS first, event_time + {margin} AS last
              FROM _new WHERE {named}
            ), marked AS (
              SELECT *, coalesce(first > max(last) OVER (PARTITION BY account ORDER BY first
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true) AS starts FROM edges
            ), numbered AS (
              SELECT *, sum(starts::INT) OVER (PARTITION BY account ORDER BY first ROWS UNBOUNDED PRECEDING) AS span
              FROM marked
            )
            SELECT account, min(first) AS first, max(last) AS last FROM numbered GROUP BY account, span"""
        )
        accounts, first, last = self._rows("SELECT list(DISTINCT account), min(first), max(last) FROM _spans")[0]
        return _Reach(sorted(accounts), first, last) if accounts else None

    def _files(self, kind: str, accounts: Collection[str], first: datetime, last: datetime) -> list[str]:
        files = self._committed.data_files(kind, accounts=accounts, first=first.date(), last=last.date())
        near = [
            file
            for file in files
            if (file.min_time is None or file.min_time <= last) and (file.max_time is None or file.max_time >= first)
        ]
        return self._lake.readable(near)

    def _run(self, detection: Detection) -> None:
        statement = _select(self._connection, detection)
        timer = threading.Timer(self._seconds, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            with _telling(detection, self._seconds):
                self._connection.execute(f"CREATE OR REPLACE TEMP TABLE _found AS {statement}")
        finally:
            timer.cancel()
        _expect_columns(detection, {row[0] for row in self._rows("DESCRIBE _found")})

    def _findings(self, detection: Detection) -> Iterator[Finding]:
        with _telling(detection, self._seconds):
            cursor = self._connection.execute("SELECT * FROM _found")
            names = [column[0] for column in cursor.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            if not rows:
                return
            for row in rows:
                _check(detection, row)
            ids = "list_append(event_ids, event_id)" if "event_ids" in names else "[event_id]"
            self._connection.execute(
                "CREATE OR REPLACE TEMP TABLE _evidence AS "
                f"SELECT DISTINCT account, unnest({ids}) AS event_id FROM _found"
            )
            new = set(
                self._rows("SELECT DISTINCT account, event_id FROM _new SEMI JOIN _evidence USING (account, event_id)")
            )
            if not new:
                return
            seen = self._rows(
                "SELECT account, event_id, min(event_time), list(DISTINCT batch_id) FROM events "
                "SEMI JOIN _evidence USING (account, event_id) GROUP BY account, event_id"
            )
        times = {(account, event_id): time for account, event_id, time, _ in seen}
        historical = self._committed.historical_batches({batch for row in seen for batch in row[3] if batch})
        old = {(account, event_id) for account, event_id, _, batches in seen if historical.issuperset(batches)}
        for row in rows:
            finding = _finding(detection, row, times, old)
            if any((finding.account, event_id) in new for event_id in finding.event_ids):
                yield finding

    def _execute(self, sql: str) -> None:
        with _reading_lake():
            self._connection.execute(sql)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with _reading_lake():
            return self._connection.execute(sql).fetchall()


def problems(detections: Iterable[Detection], macros: Path) -> list[DetectionError]:
    """What is wrong with detections' SQL: each is run once over empty relations."""
    connection = _open(macros, None)
    found = []
    try:
        views.register(connection)
        for detection in detections:
            try:
                views.set_params(connection, [detection])
                statement = _select(connection, detection)
                with _telling(detection, SECONDS):
                    connection.execute(f"CREATE OR REPLACE TEMP TABLE _found AS {statement}")
                    columns = connection.execute("DESCRIBE _found").fetchall()
                _expect_columns(detection, {row[0] for row in columns})
            except DetectionError as error:
                found.append(error)
    finally:
        connection.close()
    return found


def _open(macros: Path, lake: Lake | None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    spill = Path(tempfile.gettempdir()) / "kyra-duckdb"
    for setting in (
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "TimeZone = 'UTC'",
        f"temp_directory = {literal(str(spill))}",
    ):
        connection.execute(f"SET {setting}")
    views.load_macros(connection, macros)
    if lake is not None:
        lake.register(connection)
        connection.execute(f"SET allowed_directories = [{literal(lake.uri(''))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _select(connection: duckdb.DuckDBPyConnection, detection: Detection) -> str:
    """The detection's one SELECT, on the lines it has in its file, so that DuckDB's complaints name those."""
    sql = "\n" * (detection.sql_line - 1) + detection.sql
    with _telling(detection, SECONDS):
        complaint = guard.complaint(connection, sql)
    if complaint:
        raise DetectionError(f"{detection.at()}: {complaint}.", "A detection is one SELECT over the relations.")
    return sql


def _expect_columns(detection: Detection, columns: set[str]) -> None:
    for name in (*FINDING_COLUMNS, *detection.group_by):
        if name not in columns:
            raise DetectionError(
                f"{detection.at()}: the SELECT returns no column {name}.",
                f"It returns {', '.join(sorted(columns))}; what group_by names has to be among them.",
            )


def _check(detection: Detection, row: dict[str, Any]) -> None:
    kinds = (("account", str), ("event_id", str), ("event_time", datetime))
    if not all(isinstance(row[name], kind) for name, kind in kinds):
        raise DetectionError(
            f"{detection.at()}: a row lacks event_id, event_time or account.", "They name the event it rests on."
        )
    if row.get("severity") not in (None, *SEVERITIES):
        raise DetectionError(
            f"{detection.at()}: severity {row['severity']!r} is none.", f"Return one of {', '.join(SEVERITIES)}."
        )
    if not isinstance(row.get("event_ids"), list | None):
        raise DetectionError(f"{detection.at()}: event_ids is no list.", "Return a list of event ids, or leave it out.")


def _finding(
    detection: Detection, row: dict[str, Any], times: dict[tuple[str, str], datetime], old: set[tuple[str, str]]
) -> Finding:
    account, event_id, event_time = row["account"], row["event_id"], row["event_time"]
    event_ids = tuple(sorted({event_id, *(each for each in row.get("event_ids") or () if each)}))
    return Finding(
        detection=detection.id,
        account=account,
        event_id=event_id,
        event_time=event_time,
        severity=row.get("severity") or detection.severity,
        event_ids=event_ids,
        alert_id=alert_id(detection.id, [row[name] for name in detection.group_by], event_time, detection.group_window),
        historical_ids=frozenset(each for each in event_ids if (account, each) in old),
        event_times={each: times[account, each] for each in event_ids if (account, each) in times},
        **{name: _text(row[name]) for name in ("region", "actor", "source_ip", "target", "summary")},
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _of(batch_ids: Iterable[str]) -> str:
    return f"batch_id IN ({', '.join(map(literal, sorted(batch_ids)))})"


def _moment(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.isoformat(sep=' ')}'"


@contextmanager
def _reading_lake() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise _lake_error(error) from error


@contextmanager
def _telling(detection: Detection, seconds: float) -> Iterator[None]:
    """Turns DuckDB's complaints about a detection's SQL into DetectionErrors with file and line."""
    try:
        yield
    except KyraError:
        raise
    except duckdb.InterruptException as error:
        raise DetectionError(
            f"{detection.at()}: took longer than {seconds:.0f} seconds.", "Narrow what it reads; it stays queued."
        ) from error
    except duckdb.Error as error:
        of_a_file = ".parquet" in str(error) and not isinstance(error, duckdb.PermissionException)
        if isinstance(error, duckdb.IOException) or of_a_file:
            raise _lake_error(error) from error
        place = _AT.search(str(error))
        line = int(place[1]) if place else detection.sql_line
        raise DetectionError(f"{detection.at(line)}: {first_line(error)}.", "Mend the SQL.") from error


def _lake_error(error: duckdb.Error) -> LakeError:
    return LakeError(
        f"The lake's files cannot be read: {first_line(error)}.", "Detections stay queued and run again next time."
    )
