"""What holds of every detection, whatever its cases are: all their events in few lakes, delivered in many ways.

Cases meet each other there, so what is compared is one delivery with another, or with nothing; not with `expect`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kyra_etl.cases import Bench, Case
from kyra_etl.detect import detect_window
from kyra_etl.lake import open_lake
from kyra_etl.load import load
from kyra_etl.model import SEVERITIES, Alert, Limits, Window
from kyra_etl.state import State
from tests.corpus import CASES, CORPUS

NOW = datetime(2026, 11, 1)

Record = dict[str, Any]


def records() -> tuple[list[Record], list[Record]]:
    """The history and the events of every case, each once; an id stands for the same event within its case alone."""
    seen: set[str] = set()
    parts: tuple[list[Record], list[Record]] = [], []
    for case in CASES:
        for part, events in zip(parts, (case.history, case.events), strict=True):
            for event in events:
                own = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{case}/{event['eventID']}"))
                if own not in seen:
                    seen.add(own)
                    part.append({**event, "eventID": own})
    return parts


HISTORY, EVENTS = records()

BY_THE_MINUTE = {"instance_secrets_downloaded"}
"""A minute's finding stands at its first event. When what excuses that event comes late, the minute is told at another,
and the alert keeps the events of both."""

CALMED = {"email_sending_probed"}
"""Silent among all cases together: by the history of one, the caller of the others uses the service every day."""


def when(record: Record) -> str:
    return str(record.get("eventTime"))


def caller(record: Record) -> str:
    """Whoever the event is of: for a role's sessions, the role."""
    identity = record.get("userIdentity") or {}
    issuer = (identity.get("sessionContext") or {}).get("sessionIssuer") or {}
    return str((record.get("recipientAccountId"), issuer.get("arn") or identity.get("arn")))


def delivered(folder: Path, batches: Sequence[Sequence[Record]]) -> list[Alert]:
    """The alerts after these batches, one load each; no detection may fail."""
    folder.mkdir()
    with State.open(str(folder / "state.db")) as state:
        lake = open_lake(str(folder / "lake"))
        lake.claim(state.id)
        for number, batch in enumerate(batches):
            path = folder / f"{number}.json"
            path.write_text(json.dumps({"Records": batch}))
            report = load([path], lake=lake, state=state, corpus=CORPUS, limits=Limits(), clock=lambda: NOW)
            assert report.detect.failed == (), state.queue.failing()
            assert report.malformed == 0
        return list(state.alerts.list())


def essence(alerts: Sequence[Alert]) -> dict[str, tuple[object, ...]]:
    return {a.alert_id: (a.detection, a.severity, sorted(a.event_ids), a.first_seen, a.last_seen) for a in alerts}


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> list[Alert]:
    """The alerts when everything but history comes in one batch."""
    return delivered(tmp_path_factory.mktemp("cases") / "at_once", [HISTORY, EVENTS])


@pytest.mark.xdist_group("cases at once")
def test_every_detection_that_needs_no_params_fires_on_all_cases_together(at_once: list[Alert]) -> None:
    assert len(at_once) > 300
    fire = {case.detection for case in CASES if case.fires and not case.params}
    assert {alert.detection for alert in at_once} >= fire - CALMED


@pytest.mark.xdist_group("cases at once")
def test_shuffled_doubled_and_in_parts_the_same_alerts_arise(at_once: list[Alert], tmp_path: Path) -> None:
    """Of first-seen detections order may add alerts, when what was usual comes late; it never loses or lowers one,
    unless the history that ends their learning comes after what was to be judged by it."""
    rng = Random(7)
    batches: list[list[Record]] = [[] for _ in range(3)]
    earliest = {caller(record): record for record in sorted(EVENTS, key=when, reverse=True)}
    for record in EVENTS:
        # One case's caller may have begun, by another case, long before: that ends their learning, and comes first.
        begins = earliest[caller(record)] is record
        for number in {*rng.sample(range(3), 2), *([0] if begins else [])}:
            batches[number].append(record)
    for batch in batches:
        rng.shuffle(batch)

    late, soon = delivered(tmp_path / "parts", [HISTORY, *batches]), at_once

    learning = {detection.id for detection in CORPUS.detections if detection.baseline}
    # What adds up alerts follows theirs: a first-seen alert more is one more to add.
    apart = learning | {"risk_accumulated", *BY_THE_MINUTE}
    plain = [[alert for alert in alerts if alert.detection not in apart] for alerts in (late, soon)]
    assert essence(plain[0]) == essence(plain[1])
    minutes = [{a.alert_id: a for a in alerts if a.detection in BY_THE_MINUTE} for alerts in (late, soon)]
    assert minutes[0].keys() == minutes[1].keys()
    assert all(set(minutes[0][id_].event_ids) >= set(alert.event_ids) for id_, alert in minutes[1].items())
    severities = {alert.alert_id: SEVERITIES.index(alert.severity) for alert in late}
    lost = [
        (alert.detection, alert.severity, alert.summary)
        for alert in soon
        if alert.detection in learning and severities.get(alert.alert_id, -1) < SEVERITIES.index(alert.severity)
    ]
    assert lost == []


BY_AWS = {"access_key_leaked", "security_group_open"}
"""What AWS itself does and is told all the same: it puts a leaked key into quarantine, or opens a port for somebody."""


def test_what_services_do_for_themselves_is_no_alert(tmp_path: Path) -> None:
    service = {"type": "AWSService", "invokedBy": "config.amazonaws.com"}
    source = {"userIdentity": service, "sourceIPAddress": "config.amazonaws.com", "userAgent": "config.amazonaws.com"}

    alerts = delivered(tmp_path / "services", [[{**record, **source} for record in EVENTS]])

    assert {alert.detection for alert in alerts} - BY_AWS == set()


@pytest.mark.parametrize("nothing", [None, {}], ids=["null", "empty"])
def test_without_parameters_nothing_fails(nothing: object, tmp_path: Path) -> None:
    """AWS leaves requestParameters out of calls it refused, and out of some that worked."""
    bare = {"requestParameters": nothing, "responseElements": nothing, "additionalEventData": nothing}

    delivered(tmp_path / "bare", [[{**record, **bare} for record in EVENTS]])


def test_an_empty_lake_makes_no_alert(tmp_path: Path) -> None:
    assert delivered(tmp_path / "empty", [[]]) == []

    with State.open(str(tmp_path / "state.db")) as state:
        lake = open_lake(str(tmp_path / "lake"))
        lake.claim(state.id)
        window = Window(datetime(2026, 1, 1), datetime(2026, 1, 3))
        report = detect_window(window, lake=lake, state=state, corpus=CORPUS, now=NOW)
        assert (report.findings, report.failed) == (0, ())


def listed(request: Mapping[str, Any]) -> dict[str, Any]:
    """Headers and query parameters as S3 once wrote them: each value in a list."""
    return {
        key: [value]
        if isinstance(value, str) and (key.startswith("x-amz-") or key in ("acl", "policy", "lifecycle"))
        else value
        for key, value in request.items()
    }


HEADERS = [
    case
    for case in CASES
    if case.fires
    and any(
        event["eventSource"] == "s3.amazonaws.com"
        and isinstance(event.get("requestParameters"), dict)
        and listed(event["requestParameters"]) != event["requestParameters"]
        for event in case.events
    )
]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


@pytest.mark.parametrize("case", HEADERS, ids=str)
def test_headers_in_lists_are_read_alike(case: Case, bench: Bench) -> None:
    detection = CORPUS.get(case.detection)
    old = [
        {**event, "requestParameters": listed(event["requestParameters"])} if event.get("requestParameters") else event
        for event in case.events
    ]

    assert essence(bench.deliver(case, detection, [old])) == essence(bench.deliver(case, detection, [case.events]))
