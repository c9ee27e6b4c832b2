"""Runs detections: an in-memory DuckDB, locked down, in which `events` is what one detection may look at.

A detection may read committed files of the lake and nothing else: no other file, no network, no writing, no setting.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from kyra_etl.detection.alerts import alert_id
from kyra_etl.detection.rule import Detection
from kyra_etl.errors import DetectionError, KyraError, LakeError
from kyra_etl.lake import Lake, guard, views
from kyra_etl.lake.relations import Committed, Relations
from kyra_etl.lake.views import Rows, first_line, literal, moment, of_batches
from kyra_etl.model import SEVERITIES, DataFile, Finding, Window

FINDING_COLUMNS = ("event_id", "event_time", "account", "region", "actor", "source_ip", "target", "summary")
"""What every detection returns; `severity`, `event_ids` and what it groups by may come on top."""

SECONDS = 120.0
"""How long one detection may take."""

TRIES = 5
"""How often the lake's files are listed and read, while somebody keeps moving them."""

_AT = re.compile(r"^LINE (\d+):", re.MULTILINE)


class Engine:
    """One connection for many detections. `take` new events, then `evaluate` each detection on them.

    `macros` is the folder `sql/views`. Detections below the folder `trusted` are those that tests examine: their SQL
    is not examined again, and needs no column that it does not mention. `threads` of None is one a core, which a small
    batch does not repay. Use as a context manager, or `close()`.
    """

    def __init__(
        self,
        lake: Lake,
        committed: Committed,
        macros: Path,
        *,
        trails: Rows = (),
        accounts: Rows = (),
        trusted: Path | None = None,
        threads: int | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._committed = committed
        self._trusted = trusted
        self._seconds = seconds
        self._connection = _open(macros, lake, threads)
        self._relations = Relations(self._connection, lake, committed, self._trusts)
        self.know(trails, accounts)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def know(self, trails: Rows = (), accounts: Rows = (), alerts: Rows = (), alert_events: Rows = ()) -> None:
        """Set the last check's snapshot, `trails` and `accounts`, and what is known of `alerts` and their events."""
        views.register_known(
            self._connection, trails=trails, accounts=accounts, alerts=alerts, alert_events=alert_events
        )

    def know_alerts(self, alerts: Rows, alert_events: Rows) -> None:
        """Set the relations `alerts` and `alert_events`, for detections that read them."""
        views.register_rows(self._connection, "alerts", views.ALERTS, alerts)
        views.register_rows(self._connection, "alert_events", views.ALERT_EVENTS, alert_events)

    @property
    def rows(self) -> int:
        """Rows that the last detection looked at."""
        return self._relations.rows

    def span(self) -> tuple[datetime, datetime] | None:
        """When the first and the last of the new events happened."""
        return self._relations.span()

    def take(
        self,
        listed: Callable[[], Sequence[DataFile]],
        window: Window | None = None,
        *,
        batches: Collection[str] | None = None,
        rows: int | None = None,
        detections: Collection[Detection] = (),
    ) -> None:
        """Take the events of these data files as the new ones: those within the window, or of these batches.

        `rows` says how many they are, where the files hold others too. The list is asked for anew when a file of it
        has been replaced meanwhile. What the `detections` named here look at in common is read once.
        """
        within = [f"event_time >= {moment(window.start)} AND event_time < {moment(window.end)}"] if window else []
        chosen = " AND ".join([*within, *([of_batches(batches)] if batches is not None else [])]) or "true"
        self._relations.copies = True
        self._taking = partial(self._relations.take, listed, chosen, rows, detections)
        for attempt in range(1, TRIES + 1):
            try:
                self._take()
                return
            except LakeError:
                if attempt == TRIES:
                    raise

    def _take(self) -> None:
        with _reading_lake():
            self._taking()

    def evaluate(self, detection: Detection, batch_ids: Collection[str] | None = None) -> list[Finding]:
        """The findings that rest on at least one of the new events (of these batches, or all that were taken).

        Raises DetectionError naming file and line when the SQL fails, and LakeError when a data file cannot be read.
        """
        for attempt in range(1, TRIES + 1):
            try:
                with _reading_lake():
                    if not self._relations.relate(detection, batch_ids):
                        return []
                    views.set_unplaced_params(self._connection, detection)
                return list(self._findings(detection, self._run(detection)))
            except LakeError:
                # A file may be published or replaced, and so move, between listing and reading: list once more.
                if attempt == TRIES:
                    raise
                self._relations.copies = False
                self._take()
        raise AssertionError("unreachable")

    def _run(self, detection: Detection) -> list[dict[str, Any]]:
        if not self._trusts(detection):
            _examined(self._connection, detection)
        timer = threading.Timer(self._seconds, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            with _telling(detection, self._seconds):
                # Planning costs far more than reading a batch: most hold nothing that a detection needs.
                if (
                    detection.needs
                    and not self._connection.execute(_on_its_lines(detection, detection.sql_of_needs)).fetchone()
                ):
                    return []
                cursor = self._connection.execute(_statement(detection))
                names = [column[0] for column in cursor.description or ()]
                rows = cursor.fetchall()
        finally:
            timer.cancel()
        _expect_columns(detection, set(names))
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _trusts(self, detection: Detection) -> bool:
        return self._trusted is not None and Path(detection.path).is_relative_to(self._trusted)

    def _findings(self, detection: Detection, rows: list[dict[str, Any]]) -> Iterator[Finding]:
        if not rows:
            return
        for row in rows:
            _check(detection, row)
        with _telling(detection, self._seconds):
            named = (
                (row["account"], each) for row in rows for each in (row["event_id"], *(row.get("event_ids") or ()))
            )
            pairs = sorted({pair for pair in named if pair[1]})
            self._connection.execute(
                "CREATE OR REPLACE TEMP TABLE _evidence AS "
                "SELECT unnest($accounts) AS account, unnest($event_ids) AS event_id",
                {"accounts": [account for account, _ in pairs], "event_ids": [event_id for _, event_id in pairs]},
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
            of_alerts = detection.on_alerts and self._rows(
                "SELECT account, v.event_id, min(v.event_time), bool_and(v.historical) FROM alert_events AS v "
                "JOIN alerts USING (alert_id) WHERE v.event_time IS NOT NULL GROUP BY ALL"
            )
        times = {(account, event_id): time for account, event_id, time, _ in of_alerts or ()}
        times |= {(account, event_id): time for account, event_id, time, _ in seen}
        historical = self._committed.historical_batches({batch for row in seen for batch in row[3] if batch})
        old = {(account, event_id) for account, event_id, _, historical_ in of_alerts or () if historical_}
        old |= {(account, event_id) for account, event_id, _, batches in seen if historical.issuperset(batches)}
        for row in rows:
            finding = _finding(detection, row, times, old)
            if any((finding.account, event_id) in new for event_id in finding.event_ids):
                yield finding

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
                views.set_unplaced_params(connection, detection)
                _examined(connection, detection)
                with _telling(detection, SECONDS):
                    columns = connection.execute(_statement(detection)).description or ()
                _expect_columns(detection, {column[0] for column in columns})
            except DetectionError as error:
                found.append(error)
    finally:
        connection.close()
    return found


def _open(macros: Path, lake: Lake | None, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    spill = Path(tempfile.gettempdir()) / "kyra-duckdb"
    for setting in (
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_progress_bar = false",
        "TimeZone = 'UTC'",
        "parquet_metadata_cache = true",
        f"temp_directory = {literal(str(spill))}",
    ):
        connection.execute(f"SET {setting}")
    if threads is not None:
        connection.execute(f"SET threads = {threads}")
    views.load_macros(connection, macros, questions=False)
    if lake is not None:
        lake.register(connection)
        connection.execute(f"SET allowed_directories = [{literal(lake.uri(''))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _examined(connection: duckdb.DuckDBPyConnection, detection: Detection) -> None:
    """Raises DetectionError unless the detection is one statement that only reads."""
    with _telling(detection, SECONDS):
        complaint = guard.complaint(connection, _on_its_lines(detection, detection.sql))
    if complaint:
        raise DetectionError(f"{detection.at()}: {complaint}.", "A detection is one SELECT over the relations.")


def _on_its_lines(detection: Detection, sql: str, before: str = "") -> str:
    """The SELECT on the lines it has in its file, so that DuckDB's complaints name those."""
    return before + "\n" * (detection.sql_line - 1) + views.with_params(detection, sql)


def _statement(detection: Detection) -> str:
    # Inside another one: lines are counted from the beginning of a statement.
    return f"{_on_its_lines(detection, detection.sql, 'SELECT * FROM (')}\n)"


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
