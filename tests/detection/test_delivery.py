"""The same alerts, however the records are delivered: at once, in parts, shuffled, twice; and what order may add."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kyra_etl.backfill import backfill
from kyra_etl.detect import detect_window
from kyra_etl.folder import FolderBucket
from kyra_etl.lake import taken
from kyra_etl.model import SEVERITIES, Alert, Integration, Limits, Window
from tests.corpus import CASES, CORPUS
from tests.detection import making
from tests.detection.making import House

LEARNING = frozenset(detection.id for detection in CORPUS.detections if detection.baseline)
"""First-seen detections: evidence that comes late may add alerts or raise them, never take one away."""

ABOVE = frozenset(detection.id for detection in CORPUS.detections if detection.on_alerts)
"""Their evidence is alerts, which order may have added."""

Essence = dict[str, tuple[Any, ...]]


def _records() -> list[Mapping[str, Any]]:
    """What wakes every detection: the events of its first case that fires without a history."""
    first: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for case in CASES:
        plain = not (case.history or case.params or case.trails or case.accounts or case.alerts)
        if case.fires and plain and len(case.events) <= 20:
            first.setdefault(case.detection, case.events)
    return [record for records in first.values() for record in records]


RECORDS = _records()
LATER = datetime(2026, 2, 10)


def _alerts(house: House, batches: list[list[Mapping[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> list[Alert]:
    monkeypatch.setattr(House, "corpus", CORPUS)
    monkeypatch.setattr(making, "NOW", LATER)
    for batch in batches:
        report = house.load(*batch)
        assert (report.malformed, report.detect.failed) == (0, ())
    return list(house.state.alerts.list())


def _judged_later(house: House) -> list[Alert]:
    """Loaded without looking, then looked at day by day, as `kyra detect --from` does; by the clock of `_alerts`."""
    house.load(*RECORDS, detect=False)
    window = Window(datetime(2026, 1, 1), LATER)
    detect_window(window, lake=house.lake, state=house.state, corpus=CORPUS, now=LATER)
    return list(house.state.alerts.list())


def _backfilled(house: House) -> list[Alert]:
    """Brought by `kyra backfill`, day by day, from a bucket with a log file for each account, region and day."""
    files = defaultdict[str, list[Mapping[str, Any]]](list)
    for record in RECORDS:
        account, region, day = record["recipientAccountId"], record["awsRegion"], record["eventTime"][:10]
        files[f"AWSLogs/{account}/CloudTrail/{region}/{day.replace('-', '/')}/a.json"].append(record)
    for key, records in files.items():
        path = house.folder / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"Records": records}))
    acme = Integration("acme", (house.folder / "bucket").as_uri())
    house.state.integrations.add(acme, LATER)
    reports = backfill(
        acme,
        Window(datetime(2026, 1, 1), LATER),
        bucket=FolderBucket(house.folder / "bucket", clock=lambda: LATER),
        lake=house.lake,
        state=house.state,
        corpus=CORPUS,
        limits=Limits(),
        clock=lambda: LATER,
    )
    assert sum(report.loaded for report in reports) == len(files)
    return list(house.state.alerts.list())


def _essence(alerts: list[Alert], but: frozenset[str]) -> Essence:
    return {
        a.alert_id: (a.detection, a.severity, a.event_count, a.event_ids, a.first_seen, a.last_seen, a.target)
        for a in alerts
        if a.detection not in but
    }


def _parts(seed: int, count: int) -> list[list[Mapping[str, Any]]]:
    """The records in a random order, in so many batches, a third of them delivered twice."""
    draw = random.Random(seed)
    shuffled = [*RECORDS, *draw.sample(RECORDS, len(RECORDS) // 3)]
    draw.shuffle(shuffled)
    return [shuffled[start::count] for start in range(count)]


def _differs(alerts: list[Alert], whole: list[Alert]) -> list[str]:
    """What differs from the alerts of one batch; a first-seen detection may only say more."""
    left, right = (_essence(each, LEARNING | ABOVE) for each in (alerts, whole))
    seen = {alert.alert_id: SEVERITIES.index(alert.severity) for alert in alerts}
    return [
        f"{left.get(id_)} instead of {right.get(id_)}"
        for id_ in sorted(left | right)
        if left.get(id_) != right.get(id_)
    ] + [
        f"{alert.detection}: {alert.summary} is lost or lowered"
        for alert in whole
        if alert.detection in LEARNING and seen.get(alert.alert_id, -1) < SEVERITIES.index(alert.severity)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Alert]:
    """The alerts when all records come in one batch."""
    house = House(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        alerts = _alerts(house, [RECORDS], patch)
    house.state.close()
    assert len({alert.detection for alert in alerts}) > 50
    return alerts


@pytest.mark.slow
@pytest.mark.xdist_group("deliveries")
def test_alerts_do_not_depend_on_how_records_are_delivered(
    whole: list[Alert], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    houses = {name: House(tmp_path / name) for name in ("parts", "unshared", "backtest")}
    parts = _alerts(houses["parts"], _parts(1, 6), monkeypatch)
    backtest = _judged_later(houses["backtest"])
    monkeypatch.setattr(taken, "SHARED", 0)
    unshared = _alerts(houses["unshared"], [RECORDS], monkeypatch)
    for house in houses.values():
        house.state.close()

    assert _essence(unshared, frozenset()) == _essence(whole, frozenset())
    assert _essence(backtest, LEARNING | ABOVE) == _essence(whole, LEARNING | ABOVE)
    assert _differs(parts, whole) == []


@pytest.mark.slow
@pytest.mark.xdist_group("deliveries")
def test_in_a_hundred_batches_shuffled_and_some_twice_the_same_alerts_arise(
    whole: list[Alert], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path / "hundred")
    alerts = _alerts(house, _parts(2, 100), monkeypatch)
    house.state.close()

    assert _differs(alerts, whole) == []


@pytest.mark.slow
@pytest.mark.xdist_group("deliveries")
def test_a_backfill_makes_the_same_alerts(whole: list[Alert], tmp_path: Path) -> None:
    house = House(tmp_path / "backfilled")
    alerts = _backfilled(house)
    house.state.close()

    assert _differs(alerts, whole) == []
    assert all(alert.historical for alert in alerts)
