"""Figures for dashboards and alarms, each computed from the state database when it is asked for.

So they survive restarts, are the same from whichever machine they are asked, and cost nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Literal

from kyra_etl import __version__, cadence
from kyra_etl.model import SEVERITIES
from kyra_etl.state import State
from kyra_etl.status import LOCAL, status

STATES = ("Pending", "Connected", "Degraded", "Failed", "Paused")
RECENT_RUNS = 50


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name as Prometheus shows it, what it tells, and by what it is told apart."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric; `labels` in the metric's order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


_BY = ("integration",)
METRICS: tuple[Metric, ...] = (
    Metric("kyra_build_info", "gauge", "Always 1; the version is a label.", ("version",)),
    Metric("kyra_integration_state", "gauge", "1 for the state that `kyra status` shows.", (*_BY, "state")),
    Metric("kyra_last_success_timestamp_seconds", "gauge", "When the last run that worked ended.", (*_BY, "verb")),
    Metric(
        "kyra_last_success_age_seconds",
        "gauge",
        "How long ago that was; before the first, how long ago the integration was added.",
        (*_BY, "verb"),
    ),
    Metric("kyra_runs_total", "counter", "Runs, by how they ended.", (*_BY, "verb", "state")),
    Metric(
        "kyra_lag_seconds",
        "gauge",
        "From an event to its log file's delivery, in the last run that loaded some: p50, p95, most.",
        (*_BY, "quantile"),
    ),
    Metric("kyra_newest_event_timestamp_seconds", "gauge", "Time of the newest event in the lake.", _BY),
    Metric("kyra_log_files_loaded_total", "counter", "Log files loaded.", _BY),
    Metric("kyra_log_file_bytes_total", "counter", "Their bytes, as stored by AWS.", _BY),
    Metric("kyra_batches_total", "counter", "Batches committed.", _BY),
    Metric("kyra_records_total", "counter", "Records in the log files loaded.", _BY),
    Metric("kyra_events_total", "counter", "Of those, events that are in the lake by them.", _BY),
    Metric("kyra_duplicates_total", "counter", "Of those, events that were there already.", _BY),
    Metric(
        "kyra_conflicts_total",
        "counter",
        "Events whose id was there with other content about that time; both stay.",
        _BY,
    ),
    Metric("kyra_malformed_total", "counter", "Records that are no events; kept as they are.", _BY),
    Metric("kyra_expired_total", "counter", "Events older than the retention allows.", _BY),
    Metric("kyra_log_files_waiting", "gauge", "Log files found and not loaded yet.", _BY),
    Metric("kyra_log_files_gone", "gauge", "Log files that vanished from the bucket before they were read.", _BY),
    Metric("kyra_log_files_quarantined", "gauge", "Log files in quarantine, by reason.", (*_BY, "reason")),
    Metric("kyra_list_requests_total", "counter", "LIST requests to the bucket.", _BY),
    Metric("kyra_get_requests_total", "counter", "Log files read, failed attempts included.", _BY),
    Metric("kyra_request_cost_dollars_total", "counter", "What these requests cost, about.", (*_BY, "request")),
    Metric("kyra_alerts", "gauge", "Alerts, historical ones marked.", ("severity", "status", "historical")),
    Metric("kyra_detection_queue", "gauge", "Batches times detections that wait to be run."),
    Metric("kyra_detections_failing", "gauge", "Detections whose SQL fails."),
    Metric(
        "kyra_detection_seconds",
        "gauge",
        f"Seconds a detection took when it was last run, within the last {RECENT_RUNS} runs.",
        ("detection",),
    ),
    Metric("kyra_lake_files", "gauge", "Data files in the lake.", ("kind",)),
    Metric("kyra_lake_bytes", "gauge", "Their bytes.", ("kind",)),
    Metric("kyra_lake_rows", "gauge", "Their rows.", ("kind",)),
)
"""Every metric there is. docs/metrics.md is made of this, and a test holds the dashboard to it."""

_NAMED = {metric.name: metric for metric in METRICS}
_SUMS = {
    "kyra_log_files_loaded_total": "files",
    "kyra_log_file_bytes_total": "bytes",
    "kyra_batches_total": "batches",
    **{f"kyra_{name}_total": name for name in ("records", "events", "duplicates", "conflicts", "malformed", "expired")},
}


def collect(state: State, now: datetime) -> Iterator[tuple[Metric, list[Sample]]]:
    """Every metric with its values as of now, in the order of METRICS; one without values has none."""
    samples = sorted(_samples(state, now), key=lambda one: METRICS.index(one.metric))
    found = {metric: list(some) for metric, some in groupby(samples, key=lambda one: one.metric)}
    yield from ((metric, found.get(metric, [])) for metric in METRICS)


def _samples(state: State, now: datetime) -> Iterator[Sample]:
    def sample(name: str, value: float | int | datetime | None, *labels: str) -> Iterator[Sample]:
        if value is not None:
            number = value.replace(tzinfo=UTC).timestamp() if isinstance(value, datetime) else float(value)
            yield Sample(_NAMED[name], labels, number)

    figures = state.figures
    yield from sample("kyra_build_info", 1, __version__)
    told = status(state, now)
    free = {one["name"] for one in told["integrations"] if one["bucket"].startswith("file:")} | {LOCAL}
    for one in told["integrations"]:
        for each in STATES:
            yield from sample("kyra_integration_state", each == one["state"], one["name"], each)
        for quantile, key in (("0.5", "p50"), ("0.95", "p95"), ("1", "max")):
            yield from sample("kyra_lag_seconds", one["lag"][key], one["name"], quantile)
        ledger = one["ledger"]
        yield from sample("kyra_newest_event_timestamp_seconds", ledger["last_event_at"], one["name"])
        yield from sample("kyra_log_files_waiting", ledger["pending"] + ledger["planned"], one["name"])
        yield from sample("kyra_log_files_gone", ledger["gone"], one["name"])
    # Nobody waits for an integration that is paused or was removed.
    added = {one.name: one.created_at or now for one in state.integrations.list() if not one.paused}
    since = {(name, "sync"): at for name, at in added.items()}
    for row in figures.runs():
        name, verb, at = row["integration"], row["verb"], row["last_finished_at"]
        yield from sample("kyra_runs_total", row["runs"], name, verb, row["state"])
        if row["state"] == "succeeded" and name in (*added, LOCAL):
            yield from sample("kyra_last_success_timestamp_seconds", at, name, verb)
            since[name, verb] = max(at, added.get(name, at))
    for by, at in since.items():
        yield from sample("kyra_last_success_age_seconds", (now - at).total_seconds(), *by)
    reads: dict[str, int] = {}
    for row in figures.loaded():
        for name, column in _SUMS.items():
            yield from sample(name, row[column] or 0, row["integration"])
        reads[row["integration"]] = int(row["files"] or 0)
    for row in figures.quarantined():
        reads[row["integration"]] = reads.get(row["integration"], 0) + int(row["attempts"] or 0)
        yield from sample("kyra_log_files_quarantined", row["files"], row["integration"], row["reason"] or "retried")
    for who, count in reads.items():
        yield from sample("kyra_get_requests_total", count, who)
        price = 0.0 if who in free else cadence.cost_of_reading(count)
        yield from sample("kyra_request_cost_dollars_total", price, who, "GET")
    for row in figures.list_requests():
        count, who = int(row["requests"]), row["integration"]
        yield from sample("kyra_list_requests_total", count, who)
        yield from sample("kyra_request_cost_dollars_total", 0.0 if who in free else cadence.cost(count), who, "LIST")
    yield from _of_detections(state)
    for row in figures.lake():
        for what in ("files", "bytes", "rows"):
            yield from sample(f"kyra_lake_{what}", row[what], row["kind"])


def _of_detections(state: State) -> Iterator[Sample]:
    rows = state.figures.alerts()
    counted = {(row["severity"], row["status"], bool(row["historical"])): row["alerts"] for row in rows}
    for severity in SEVERITIES:
        for is_historical in (False, True):
            for each in ("open", "acknowledged", "closed"):
                labels = (severity, each, "yes" if is_historical else "no")
                yield Sample(_NAMED["kyra_alerts"], labels, float(counted.get((severity, each, is_historical), 0)))
    yield Sample(_NAMED["kyra_detection_queue"], (), float(state.queue.depth()))
    yield Sample(_NAMED["kyra_detections_failing"], (), float(len(state.queue.failing())))
    took: dict[str, float] = {}
    for run in state.runs.recent(limit=RECENT_RUNS):
        for detection, seconds in ((run["report"] or {}).get("detect") or {}).get("seconds", {}).items():
            took.setdefault(detection, seconds)
    for detection, seconds in sorted(took.items()):
        yield Sample(_NAMED["kyra_detection_seconds"], (detection,), seconds)
