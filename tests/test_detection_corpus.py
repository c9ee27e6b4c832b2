"""What holds for every built-in detection, whatever it looks for."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from kyra_etl import resources
from kyra_etl.detection.attack import table
from kyra_etl.detection.review import lint
from kyra_etl.detection.rule import Detection
from kyra_etl.lake.engine import problems
from kyra_etl.lake.views import load_macros, register
from kyra_etl.model import SEVERITIES
from tests.corpus import CASES, CORPUS

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


def severities(node: object) -> Iterator[str]:
    """The texts that CASEs called severity return, in a statement as DuckDB parses it."""
    if isinstance(node, list):
        for child in node:
            yield from severities(child)
    elif isinstance(node, dict):
        if node.get("class") == "CASE" and node.get("alias") == "severity":
            results = [*(check["then_expr"] for check in node["case_checks"]), node["else_expr"]]
            yield from (text for one in results if (text := one.get("literal", one.get("value", {})).get("text")))
        for child in node.values():
            yield from severities(child)


@each
def test_what_a_select_calls_severity_is_one(detection: Detection) -> None:
    with duckdb.connect() as connection:
        parsed = connection.execute("SELECT json_serialize_sql(?)", [detection.sql]).fetchone()
    assert parsed is not None

    assert set(severities(json.loads(parsed[0]))) <= set(SEVERITIES)


@pytest.mark.parametrize(("id", "attack"), KNOWN_BY.items())
def test_the_technique_that_customers_know_is_named(id: str, attack: str) -> None:
    detection = CORPUS.get(id)

    assert attack in {*(each.id for each in detection.attack), *detection.attack_legacy}


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


TABLE = Path(__file__).parent.parent / "docs" / "decisions" / "0013-the-corpus-number-by-number.md"

LISTED = {
    "root_account_usage": (13, 13),
    "iam_user_created": (12, 12),
    "mfa_disabled": (13, 12),
    "security_group_open": (16, 14),
    "cloudtrail_disabled": (14, 13),
    "s3_bucket_public": (22, 16),
    "unusual_region": (13, 14),
    "access_key_leaked": (14, 15),
}
"""How many cases that must fire (P) and that must not (N) are listed for each of the eight."""

ELSEWHERE = {("cloudtrail_disabled", "P13")}
"""An absence: tests/test_absence.py."""


@pytest.mark.parametrize("id", LISTED)
def test_every_listed_case_of_the_eight_is_a_case(id: str) -> None:
    fires, quiet = LISTED[id]
    wanted = {f"P{n}" for n in range(1, fires + 1)} | {f"N{n}" for n in range(1, quiet + 1)}
    labels = {label for case in CASES if case.detection == id for label in re.findall(r"\b[PN]\d+\b", case.name)}

    assert labels == wanted - {label for detection, label in ELSEWHERE if detection == id}


def test_every_number_of_the_ranked_list_is_a_detection_or_refused_with_a_reason() -> None:
    rows = re.findall(r"^\| (\d+|extra) \| (.+) \| (.+) \|$", TABLE.read_text(), re.MULTILINE)
    known = {detection.id for detection in CORPUS.detections}

    assert [number for number, _, _ in rows] == [*(str(number) for number in range(9, 68)), *["extra"] * 10]
    for _, names, what in rows:
        assert what if names == "refused" else set(re.findall(r"`(\w+)`", names)) <= known
    named = {name for _, names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    assert known >= named | LISTED.keys()  # whoever adds one beyond the list writes no number


def test_every_query_of_a_runbook_runs(tmp_path: Path) -> None:
    """With its … filled in: what an analyst pastes at three in the morning must not be wrong."""
    import duckdb

    shell = duckdb.connect()
    register(shell)
    load_macros(shell, resources.views_dir())
    queries, broken = 0, []
    for detection in CORPUS.detections:
        for step in detection.runbook.splitlines():
            for query in re.findall(r"(SELECT .+?)(?:\.(?=\s|$)|$)", step):
                filled = query.replace("'…'", "'2026-01-01'").replace("…", "x")
                queries += 1
                try:
                    shell.execute(filled)
                except duckdb.Error as error:
                    broken.append(f"{detection.id}: {filled}: {error}")
    assert not broken, "\n".join(broken)
    assert queries > 50
