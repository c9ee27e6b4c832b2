"""Runs detections: an in-memory DuckDB, locked down, in which `events` is what one detection may look at.

A detection may read committed files of the lake and nothing else: no other file, no network, no writing, no setting.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from secrets import token_hex
from time import perf_counter
from typing import Any

import duckdb

from kyra_etl.detection.rule import Detection
from kyra_etl.errors import DetectionError, KyraError, LakeError
from kyra_etl.lake import Lake, views
from kyra_etl.lake.lane import (
    SECONDS,
    Lane,
    examine,
    expect_columns,
    expect_types,
    interrupting,
    reading_lake,
    statement,
    telling,
)
from kyra_etl.lake.moving import TRIES
from kyra_etl.lake.taken import Committed, Taken, looks
from kyra_etl.lake.views import Rows, literal, moment, of_batches
from kyra_etl.model import DataFile, Finding, Window


@dataclass(frozen=True)
class Evaluation:
    """What came of one detection: findings, or the error; the rows it looked at, and how long it took."""

    detection: Detection
    findings: list[Finding]
    error: KyraError | None
    rows: int
    seconds: float


class Engine:
    """A database for many detections. `take` new events, then `evaluate` the detections on them.

    `macros` is the folder `sql/views`. Detections below the folder `trusted` are those that tests examine: their SQL
    is not examined again, and needs no column that it does not mention. So many `lanes` are evaluated side by side,
    each by one thread: planning a SELECT takes one core, and far longer than reading a small batch. None is one lane
    with every core, for batches that are large. Use as a context manager, or `close()`.
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
        lanes: int | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._trusted = trusted
        scratch = Path(tempfile.gettempdir()) / f"kyra-{token_hex(8)}"
        connections = _open(lake, lanes, scratch)
        self._connection = connections[0]
        self._taken = Taken(self._connection, lake, committed, self._trusts, scratch)
        self._lanes = [Lane(each, self._taken, committed, self._trusts, seconds) for each in connections]
        self._pool = ThreadPoolExecutor(len(self._lanes), "detection")
        self._free: SimpleQueue[Lane] = SimpleQueue()
        for lane in self._lanes:
            self._free.put(lane)
        # Meanwhile the new events are taken, on the first connection.
        self._macros = self._pool.submit(views.load_macros, connections[-1], macros, questions=False)
        if len(connections) == 1:
            self._macros.result()
        self.know(trails, accounts)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with interrupting([lane.connection for lane in self._lanes], 0):  # whoever left in the middle waits for nothing
            self._pool.shutdown()
        for lane in self._lanes:
            lane.connection.close()
        self._taken.close()

    def know(self, trails: Rows = (), accounts: Rows = (), alerts: Rows = (), alert_events: Rows = ()) -> None:
        """Set the last check's snapshot, `trails` and `accounts`, and what is known of `alerts` and their events."""
        views.register_known(
            self._connection, trails=trails, accounts=accounts, alerts=alerts, alert_events=alert_events
        )

    def know_alerts(self, alerts: Rows, alert_events: Rows) -> None:
        """Set the relations `alerts` and `alert_events`, for detections that read them."""
        views.register_rows(self._connection, "alerts", views.ALERTS, alerts)
        views.register_rows(self._connection, "alert_events", views.ALERT_EVENTS, alert_events)

    def span(self) -> tuple[datetime, datetime] | None:
        """When the first and the last of the new events happened."""
        return self._taken.span()

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
        self._taken.copies = True
        self._taking = partial(self._taken.take, listed, chosen, rows, detections)
        for attempt in range(1, TRIES + 1):
            try:
                self._take()
                return
            except LakeError:
                if attempt == TRIES:
                    raise

    def _take(self) -> None:
        with reading_lake():
            self._taking()

    def evaluate(self, detection: Detection, batch_ids: Collection[str] | None = None) -> list[Finding]:
        """The findings that rest on at least one of the new events (of these batches, or all that were taken).

        Raises DetectionError naming file and line when the SQL fails, and LakeError when a data file cannot be read.
        """
        self._macros.result()
        for attempt in range(1, TRIES + 1):
            try:
                if attempt > 1:
                    # A file may be published or replaced, and so move, between listing and reading: list once more.
                    self._taken.copies = False
                    self._take()
                return self._lanes[0].evaluate(detection, batch_ids)
            except LakeError:
                if attempt == TRIES:
                    raise
        raise AssertionError("unreachable")

    def evaluate_all(self, wanted: Sequence[tuple[Detection, Collection[str] | None]]) -> Iterator[Evaluation]:
        """What comes of each of these detections, each with the batches whose events are the new ones, in any order.

        Nothing is raised for a detection that fails: its evaluation has the error.
        """
        self._macros.result()
        turns, again = _in_turn(wanted), []
        # Each with the run's context, by which logs know it.
        evaluations = self._pool.map(lambda run, turn: run(self._on_a_lane, turn), [_here() for _ in turns], turns)
        kept = self._pool.submit(_here(), self._keep)
        for turn, evaluation in zip(turns, evaluations, strict=True):
            if isinstance(evaluation.error, LakeError):
                again.append(turn)
            else:
                yield evaluation
        kept.result()
        # To list and take the files once more is for one alone.
        for turn in again:
            yield _evaluation(self._lanes[0], turn[0], partial(self.evaluate, *turn))

    def _on_a_lane(self, wanted: tuple[Detection, Collection[str] | None]) -> Evaluation:
        with self._lane() as lane:
            return _evaluation(lane, wanted[0], partial(lane.evaluate, *wanted))

    def _keep(self) -> None:
        with self._lane() as lane:
            lane.keep()

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self._free.get()
        try:
            yield lane
        finally:
            self._free.put(lane)

    def _trusts(self, detection: Detection) -> bool:
        return self._trusted is not None and Path(detection.path).is_relative_to(self._trusted)


def _here() -> Callable[..., Any]:
    """Calls what it is given, in another thread, as from here."""
    return copy_context().run


def _evaluation(lane: Lane, detection: Detection, evaluate: Callable[[], list[Finding]]) -> Evaluation:
    begun, findings, error = perf_counter(), [], None
    try:
        findings = evaluate()
    except (DetectionError, LakeError) as told:
        error = told
    return Evaluation(detection, findings, error, lane.rows, perf_counter() - begun)


def _in_turn(
    wanted: Sequence[tuple[Detection, Collection[str] | None]],
) -> list[tuple[Detection, Collection[str] | None]]:
    """The first that looks around has that read, for all; meanwhile those are evaluated that need it not.

    Of these the first are those that learn: they have the activity read.
    """
    looking = [each for each in wanted if looks(each[0])]
    others = sorted((each for each in wanted if not looks(each[0])), key=lambda each: not each[0].baseline)
    return [*looking[:1], *others, *looking[1:]]


def problems(detections: Iterable[Detection], macros: Path) -> list[DetectionError]:
    """What is wrong with detections' SQL: each is run once over empty relations."""
    [connection] = _open(None)
    found = []
    try:
        views.load_macros(connection, macros, questions=False)
        views.register(connection)
        for detection in detections:
            try:
                with telling(detection):
                    views.set_unplaced_params(connection, detection)
                    examine(connection, detection)
                    described = connection.execute(statement(detection)).description or ()
                    columns = {column[0].lower(): str(column[1]) for column in described}
                    expect_columns(detection, set(columns))
                    expect_types(detection, columns)
            except DetectionError as error:
                found.append(error)
    finally:
        connection.close()
    return found


def _open(lake: Lake | None, lanes: int | None = None, scratch: Path | None = None) -> list[duckdb.DuckDBPyConnection]:
    """So many connections to one database, of a thread each; of None, one with all threads."""
    first = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    connections = [first, *(first.cursor() for _ in range(1, lanes or 1))]
    for connection in connections:
        for setting in ("enable_progress_bar = false", "TimeZone = 'UTC'", "parquet_metadata_cache = true"):
            connection.execute(f"SET {setting}")
    for setting in (
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        f"temp_directory = {literal(str(Path(tempfile.gettempdir()) / 'kyra-duckdb'))}",
        *(["threads = 1"] if lanes else []),
    ):
        first.execute(f"SET {setting}")
    if lake is not None:
        lake.register(first)
        first.execute(f"SET allowed_directories = {literal([lake.uri(''), str(scratch)])}")
    first.execute("SET enable_external_access = false")
    first.execute("SET lock_configuration = true")
    return connections
