"""Records through the whole road, JSON → load → detections, and the alerts that come of it.

Every user agent is replaced by one and the same: in published recordings attack tools name themselves, and whoever
wants to stay unseen does not.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from kyra_etl.detection.rule import Corpus
from kyra_etl.lake import open_lake
from kyra_etl.load import load
from kyra_etl.model import SEVERITIES, Alert, Limits
from kyra_etl.state import State

Record = Mapping[str, Any]

USER_AGENT = "aws-cli/2.15.0 Python/3.11.6 Linux/6.1 exe/x86_64"
NOW = datetime(2026, 11, 1)
"""When everything is loaded: after the last of the records."""


@dataclass(frozen=True, slots=True)
class Played:
    """What became of some records: `events` of them in the lake, and the alerts, in `seconds` altogether."""

    events: int
    alerts: tuple[Alert, ...]
    seconds: float

    def at_least(self, severity: str) -> tuple[Alert, ...]:
        """The alerts of this severity and above."""
        return tuple(alert for alert in self.alerts if ranked(alert.severity) >= ranked(severity))


def play(records: Iterable[Record], corpus: Corpus, *, now: datetime = NOW) -> Played:
    """Load records as one file into an empty lake. Raises RuntimeError when a detection fails on them."""
    began = perf_counter()
    with TemporaryDirectory(prefix="kyra-evaluation-") as folder:
        path = Path(folder) / "records.json.gz"
        path.write_bytes(gzip.compress(json.dumps({"Records": [neutral(one) for one in records]}).encode(), 1))
        with State.open(str(Path(folder) / "state.db")) as state:
            lake = open_lake(str(Path(folder) / "lake"))
            lake.claim(state.id)
            report = load([path], lake=lake, state=state, corpus=corpus, limits=Limits(), clock=lambda: now)
            if report.detect.failed:
                raise RuntimeError(f"{', '.join(report.detect.failed)} failed: {state.queue.failing()}")
            alerts = tuple(state.alerts.list())
    return Played(report.events, alerts, perf_counter() - began)


def only(corpus: Corpus, ids: Sequence[str]) -> Corpus:
    """The corpus, of these detections alone."""
    return replace(corpus, detections=tuple(map(corpus.get, ids)))


def neutral(record: Record) -> Record:
    """The record with a user agent that tells nothing."""
    return {**record, "userAgent": USER_AGENT} if record.get("userAgent") else record


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a gzipped NDJSON file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def ranked(severity: str) -> int:
    return SEVERITIES.index(severity)
