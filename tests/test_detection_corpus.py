"""What holds for every built-in detection, whatever it looks for."""

from __future__ import annotations

import gzip
import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from kyra_etl import resources
from kyra_etl.cases import load_cases
from kyra_etl.detection.attack import table
from kyra_etl.detection.rule import Corpus, Detection, lint
from kyra_etl.lake.engine import problems

CORPUS = Corpus.load([resources.detections_dir()])
CASES = load_cases([resources.cases_dir()])

KNOWN_BY = {
    "root_account_usage": "T1078.004",
    "iam_user_created": "T1136.003",
    "mfa_disabled": "T1556",
    "security_group_open": "T1562.007",
    "cloudtrail_disabled": "T1562.008",
    "s3_bucket_public": "T1530",
    "unusual_region": "T1535",
    "access_key_leaked": "T1528",
}

each = pytest.mark.parametrize("detection", CORPUS.detections, ids=lambda detection: detection.id)


def test_every_file_loads() -> None:
    assert [str(problem) for problem in CORPUS.problems] == []
    assert {detection.id for detection in CORPUS.detections} >= KNOWN_BY.keys()


def test_every_select_binds_and_returns_what_findings_need() -> None:
    assert [str(error) for error in problems(CORPUS.detections, resources.views_dir())] == []


@each
def test_a_reviewer_has_nothing_to_say(detection: Detection) -> None:
    assert lint(detection) == []


@each
def test_every_detection_has_cases_that_fire_and_cases_that_stay_quiet(detection: Detection) -> None:
    cases = [case for case in CASES if case.detection == detection.id]

    assert sum(case.fires for case in cases) >= 5
    assert sum(not case.fires for case in cases) >= 5
    assert any("errorCode" in event for case in cases for event in case.events), "no failed call among them"
    assert len({case.name for case in cases}) == len(cases)


@each
def test_names_the_select_asks_for_are_names_that_wake_it(detection: Detection) -> None:
    """Or evidence would come and nobody would look."""
    if not detection.event_names:
        return
    asked = set()
    for values in re.findall(r"event_name (?:IN \(|= |<> )((?:'\w+'[,\s]*)+)", detection.sql):
        asked |= set(re.findall(r"'(\w+)'", values))

    assert asked <= detection.event_names
    assert detection.event_names <= set(re.findall(r"\w+", detection.sql))


@each
def test_whoever_filters_by_name_filters_by_service_too(detection: Detection) -> None:
    """CreateUser is a call of a dozen services."""
    assert "event_source" in detection.sql


@pytest.mark.parametrize(("id", "attack"), KNOWN_BY.items())
def test_the_technique_that_customers_know_is_named(id: str, attack: str) -> None:
    detection = CORPUS.get(id)

    assert attack in {*(each.id for each in detection.attack), *detection.attack_legacy}


@each
def test_lookback_and_baseline_are_as_wide_as_the_select_looks(detection: Detection) -> None:
    """`events` reaches twice the lookback, so an interval in the SQL may be as long as the lookback."""
    units = {"MINUTE": 60, "HOUR": 3600, "DAY": 86400}
    spans = [int(n) * units[unit] for n, unit in re.findall(r"INTERVAL (\d+) (MINUTE|HOUR|DAY)", detection.sql)]
    reach = max(detection.lookback.total_seconds(), detection.baseline.total_seconds())

    assert max(spans, default=0) <= reach


def test_no_revoked_id_is_taken_for_a_valid_one() -> None:
    attack = table()

    assert not attack.techniques.keys() & attack.revoked.keys()
    assert all(old.revoked_by in attack.techniques for old in attack.revoked.values())


def test_hostile_records_stop_no_detection(tmp_path: Path, shared_data: Path) -> None:
    """Published records of every kind, and each with its parts turned into other shapes."""
    from kyra_etl.lake import open_lake
    from kyra_etl.load import load
    from kyra_etl.model import Limits
    from kyra_etl.state import State

    odd = [None, "x", 5, [], [None, 1, "x", {}], {}, {"items": {"items": []}}, {"userName": {"a": 1}}]
    parts = ("requestParameters", "responseElements", "additionalEventData", "userIdentity")
    records = []
    for source in ("panther", "traildiscover", "streamalert"):
        with gzip.open(shared_data / "records" / f"{source}.ndjson.gz", "rt") as lines:
            for number, line in enumerate(lines):
                record = json.loads(line)
                records.append(record)
                changed = {part: odd[(number + shift) % len(odd)] for shift, part in enumerate(parts)}
                records.append({**record, **changed, "eventID": f"odd-{source}-{number}"})
    (tmp_path / "records.json").write_text(json.dumps({"Records": records}))

    with State.open(str(tmp_path / "state.db")) as state:
        lake = open_lake(str(tmp_path / "lake"))
        lake.claim(state.id)
        report = load(
            [tmp_path / "records.json"],
            lake=lake,
            state=state,
            corpus=CORPUS,
            limits=Limits(),
            clock=lambda: datetime(2026, 11, 1),
        )

        assert report.events > 500
        assert report.detect.failed == (), state.queue.failing()
        assert report.alerts > 0
