"""Detections of the user's own, as they come: with mistakes in them. What is wrong is told, and the rest is done."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from tests.cli.conftest import Kyra, put, record
from tests.detection.making import SELECT, write_detection

CASES = """\
detection: {id}
base: {{eventVersion: "1.11", eventSource: ec2.amazonaws.com, eventName: RunInstances,
  eventTime: "2026-01-10T10:00:00Z", awsRegion: eu-west-1,
  recipientAccountId: "111122223333", userIdentity: {{type: IAMUser, userName: admin}}}}
cases:
{cases}
"""
CASE = "  - {name: it fires, events: [{}], expect: {alerts: 1}}"


@pytest.fixture
def own(kyra_home: Path) -> Path:
    """The folder of one's own detections."""
    return kyra_home / "detections"


def _cases(own: Path, id: str, cases: str = CASE) -> None:
    (own / "test" / f"{id}.yaml").write_text(CASES.format(id=id, cases=cases))


@pytest.mark.parametrize("text", ["-- ---", "-- ---\n-- title = 1\n-- ---\nSELECT 1"])
def test_a_file_that_cannot_be_read_stops_no_command(kyra: Kyra, own: Path, tmp_path: Path, text: str) -> None:
    write_detection(own, "good_one")
    write_detection(own, "bad_one").write_text(text)
    put(tmp_path, "a", record("e1"))

    loaded = kyra("load", tmp_path, "--json")

    assert (loaded.code, loaded.json["events"], loaded.json["alerts"]) == (0, 1, 1)
    assert "bad_one.sql:" in loaded.err
    assert "Detection bad_one fails on 1 batch" in kyra("status").err
    assert "good_one" in kyra("detections", "list").out
    linted = kyra("detections", "lint", "--json")
    assert linted.code == 1
    assert any("bad_one.sql:" in line for line in linted.json["problems"])


def test_params_of_odd_names_and_kinds_stop_no_command(kyra: Kyra, own: Path) -> None:
    write_detection(own, "bad_one", more="-- params.max-count = { type = 'int', default = 1 }\n")
    days = "-- baseline = '30d'\n-- params.learning_days = {{ type = '{}', default = {} }}\n"
    write_detection(own, "one_thing", more=days.format("str", "'many'"))
    write_detection(own, "more_things", more=days.format("int", 10**12))
    write_detection(own, "2_things", more="-- params.most = { type = 'int', default = 1 }\n")

    assert "bad_one.sql:8: a param cannot be called max-count" in kyra("detections", "lint", "bad_one").err
    assert kyra("sql", "SELECT getvariable('2_things_most') AS most", "--json").json == [{"most": 1}]
    assert kyra("status").code == 0


def test_cases_that_cannot_be_read_or_run_are_told_and_the_others_run(kyra: Kyra, own: Path) -> None:
    for id, sql in (("good_one", SELECT), ("bad_sql", SELECT + "WHERE nothing = 1"), ("bad_case", SELECT)):
        write_detection(own, id, sql=sql)
        _cases(own, id)
    _cases(own, "bad_case", "  - {name: it fires, events: [{}], expect: }")

    ran = kyra("detections", "test", "good_one", "bad_sql", "bad_case", "--json")

    assert ran.code == 1
    assert {case["detection"]: case["passed"] for case in ran.json["cases"]} == {"good_one": True, "bad_sql": False}
    [told, failed] = ran.json["problems"]
    assert "bad_case.yaml:1: it fires: expect says nothing" in told
    assert "bad_sql: it fires: " in failed
    assert "bad_sql.sql:12: Binder Error" in failed
    assert kyra("detections", "test", "good_one").code == 0


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("expect: [1]", "expect says nothing"),
        ("expect: {alerts: 0}, alerts: [{detection: x, events: [3]}]", "an alert rests on event 3"),
        ("expect: {alerts: 0}, alerts: [3]", "alerts is no list of objects"),
        ("expect: {alerts: 0}, history: {a: 1}", "history is no list of objects"),
        ("expect: {alerts: 0}, events: []", "there is no event"),
        ("expect: {alerts: 0}, events: [{x: [!absent ]}]", "not JSON serializable"),
        ("expect: {alerts: 0}, events: [{at: +9999999999999d}]", "is no offset"),
        ("expect: {alerts: 0}, events: [{repeat: {times: 2, seconds: 999999999999}}]", "out of range"),
    ],
)
def test_a_case_that_is_not_as_it_should_be_is_named(kyra: Kyra, own: Path, case: str, said: str) -> None:
    write_detection(own, "bad_case")
    events = "" if " events: [" in f" {case}".split("alerts: [")[0] else "events: [{}], "
    _cases(own, "bad_case", f"  - {{name: it fires, {events}{case}}}")

    ran = kyra("detections", "test", "bad_case", "--json")

    assert ran.code == 1
    [told] = ran.json["problems"]
    assert "bad_case.yaml:1: " in told
    assert said in told


def test_alerts_of_detect_are_in_the_lake(kyra: Kyra, own: Path, kyra_home: Path, tmp_path: Path) -> None:
    write_detection(own, "good_one")
    put(tmp_path, "a", record("e1"))
    assert kyra("load", tmp_path, "--no-detect").code == 0

    assert kyra("detect", "--from", "2026-01-10", "--to", "2026-01-10", "--dry-run").code == 0
    assert not (kyra_home / "lake" / "alerts").exists()
    assert kyra("detect", "--from", "2026-01-10", "--to", "2026-01-10").code == 0

    alerts, alert_events = (str(kyra_home / "lake" / name / "*/*.parquet") for name in ("alerts", "alert_events"))
    found = duckdb.sql(f"SELECT detection, event_id FROM '{alerts}' JOIN '{alert_events}' USING (alert_id)").fetchall()
    assert found == [("good_one", "e1")]
