"""One connection on which detections are evaluated, one after another: from the SELECT to findings."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import duckdb

from kyra_etl import logs
from kyra_etl.cloudtrail.records import EARLIEST
from kyra_etl.detection.alerts import alert_id
from kyra_etl.detection.rule import Detection
from kyra_etl.errors import DetectionError, KyraError, LakeError
from kyra_etl.lake import guard, views
from kyra_etl.lake.relations import Relations
from kyra_etl.lake.taken import Committed, Taken
from kyra_etl.lake.views import first_line
from kyra_etl.model import SEVERITIES, Finding

log = logs.logger(__name__)

FINDING_COLUMNS = ("event_id", "event_time", "account", "region", "actor", "source_ip", "target", "summary")
"""What every detection returns; `severity`, `event_ids` and what it groups by may come on top."""

SECONDS = 120.0
"""How long one detection may take."""

_LATEST = datetime(9000, 1, 1)

_AT = re.compile(r"^LINE (\d+):", re.MULTILINE)


class Lane:
    """A connection of an engine, for one thread at a time.

    A detection that takes longer than `seconds` is interrupted. The SQL of those that are `trusted` is not examined.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        taken: Taken,
        committed: Committed,
        trusted: Callable[[Detection], bool],
        seconds: float,
    ) -> None:
        self.connection, self._committed, self._trusted, self._seconds = connection, committed, trusted, seconds
        self._taken = taken
        self._relations = Relations(connection, taken)

    @property
    def rows(self) -> int:
        """Rows that the last detection looked at."""
        return self._relations.rows

    def keep(self) -> None:
        """Keep the new events once more, for runs to come: nobody here waits for it."""
        try:
            self._taken.keep(self.connection)
        except duckdb.Error as error:
            log.info("The new events were not kept once more: %s", first_line(error))

    def evaluate(self, detection: Detection, batch_ids: Collection[str] | None) -> list[Finding]:
        """The findings that rest on at least one of the new events (of these batches, or all that were taken).

        Raises DetectionError naming file and line when the SQL fails, and LakeError when a data file cannot be read.
        """
        with telling(detection, self._seconds):
            with reading_lake():
                if not self._relations.relate(detection, batch_ids):
                    return []
            views.set_unplaced_params(self.connection, detection)
            return list(self._findings(detection, self._run(detection)))

    def _run(self, detection: Detection) -> list[dict[str, Any]]:
        if not self._trusted(detection):
            examine(self.connection, detection)
        with interrupting([self.connection], self._seconds):
            # Planning costs far more than reading a batch: most hold nothing that a detection needs.
            if (
                detection.needs
                and not self.connection.execute(_on_its_lines(detection, detection.sql_of_needs)).fetchone()
            ):
                return []
            cursor = self.connection.execute(statement(detection))
            names = [column[0].lower() for column in cursor.description or ()]
            rows = cursor.fetchall()
        expect_columns(detection, set(names))
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _findings(self, detection: Detection, rows: list[dict[str, Any]]) -> Iterator[Finding]:
        if not rows:
            return
        for row in rows:
            _check(detection, row)
        named = ((row["account"], each) for row in rows for each in (row["event_id"], *(row.get("event_ids") or ())))
        pairs = sorted({pair for pair in named if pair[1]})
        self.connection.execute(
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
        findings = [_finding(detection, row, times, old) for row in rows]
        # By their anchor: of an event that is told twice, what is new of the one must not replace the other.
        fresh = {
            (finding.account, finding.event_id)
            for finding in findings
            if any((finding.account, event_id) in new for event_id in finding.event_ids)
        }
        yield from (finding for finding in findings if (finding.account, finding.event_id) in fresh)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with reading_lake():
            return self.connection.execute(sql).fetchall()


@contextmanager
def interrupting(connections: Sequence[duckdb.DuckDBPyConnection], after: float) -> Iterator[None]:
    """Interrupt what is done on these connections, from so many seconds on, until the block ends.

    Again and again: DuckDB forgets an interrupt that comes before a statement begins.
    """
    over = threading.Event()

    def interrupt() -> None:
        pause = after
        while not over.wait(pause):
            for connection in connections:
                connection.interrupt()
            pause = 0.1

    thread = threading.Thread(target=interrupt, name="interrupt", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def examine(connection: duckdb.DuckDBPyConnection, detection: Detection) -> None:
    """Raises DetectionError unless the detection is one statement that only reads; duckdb.Error for bad syntax."""
    complaint = guard.complaint(connection, _on_its_lines(detection, detection.sql))
    if complaint:
        raise DetectionError(f"{detection.at()}: {complaint}.", "A detection is one SELECT over the relations.")


def _on_its_lines(detection: Detection, sql: str, before: str = "") -> str:
    """The SELECT on the lines it has in its file, so that DuckDB's complaints name those."""
    return before + "\n" * (detection.sql_line - 1) + views.with_params(detection, guard.alone(sql))


def statement(detection: Detection) -> str:
    """The SELECT, for DuckDB to run."""
    # Inside another one: lines are counted from the beginning of a statement.
    return f"{_on_its_lines(detection, detection.sql, 'SELECT * FROM (')}\n)"


def expect_columns(detection: Detection, columns: set[str]) -> None:
    """Raises DetectionError naming a column that every detection, or this one, has to return."""
    for name in (*FINDING_COLUMNS, *detection.group_by):
        if name not in columns:
            raise DetectionError(
                f"{detection.at()}: the SELECT returns no column {name}.",
                f"It returns {', '.join(sorted(columns))}; what group_by names has to be among them.",
            )


def expect_types(detection: Detection, columns: Mapping[str, str]) -> None:
    """Raises DetectionError naming a column that holds something else: told by its type, before there is a row."""
    event_time, event_ids = columns["event_time"], columns.get("event_ids", "VARCHAR[]")
    if not event_time.startswith("TIMESTAMP") or event_time.endswith("TIME ZONE"):
        raise DetectionError(f"{detection.at()}: event_time is {event_time}.", "Return the event's own, a TIMESTAMP.")
    if event_ids not in ("VARCHAR[]", '"NULL"[]', '"NULL"'):
        raise DetectionError(
            f"{detection.at()}: event_ids is {event_ids}.", "Return a list of event ids, or leave it out."
        )


def _check(detection: Detection, row: dict[str, Any]) -> None:
    kinds = (("account", str), ("event_id", str), ("event_time", datetime))
    if not all(isinstance(row[name], kind) for name, kind in kinds):
        raise DetectionError(
            f"{detection.at()}: a row lacks event_id, event_time or account.", "They name the event it rests on."
        )
    event_time = row["event_time"]
    if event_time.tzinfo is not None:
        raise DetectionError(f"{detection.at()}: event_time has a time zone.", "Return the event's own, a TIMESTAMP.")
    if not EARLIEST <= event_time < _LATEST:
        raise DetectionError(f"{detection.at()}: event_time is {event_time}.", "Return the event's own.")
    if row.get("severity") not in (None, *SEVERITIES):
        raise DetectionError(
            f"{detection.at()}: severity {row['severity']!r} is none.", f"Return one of {', '.join(SEVERITIES)}."
        )
    event_ids = row.get("event_ids")
    if not isinstance(event_ids, list | None) or not all(isinstance(each, str | None) for each in event_ids or ()):
        raise DetectionError(
            f"{detection.at()}: event_ids is no list of texts.", "Return a list of event ids, or leave it out."
        )


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
def reading_lake() -> Iterator[None]:
    """Turns DuckDB's complaints about the lake's files into LakeErrors."""
    try:
        yield
    except duckdb.Error as error:
        raise _lake_error(error) from error


@contextmanager
def telling(detection: Detection, seconds: float = SECONDS) -> Iterator[None]:
    """Turns DuckDB's complaints about a detection's SQL into DetectionErrors with file and line, and any other failure:

    what somebody's SELECT brings about must not stop the detections beside it.
    """
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
        if isinstance(error, duckdb.IOException) or views.is_of_python(error) or of_a_file:
            raise _lake_error(error) from error
        place = _AT.search(str(error))
        line = int(place[1]) if place else detection.sql_line
        raise DetectionError(f"{detection.at(line)}: {first_line(error)}.", "Mend the SQL.") from error
    except Exception as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        raise DetectionError(f"{detection.at()}: {said}.", "Mend the SQL: its rows are no findings.") from error


def _lake_error(error: duckdb.Error) -> LakeError:
    return LakeError(
        f"The lake's files cannot be read: {first_line(error)}.", "Detections stay queued and run again next time."
    )
