"""What a detection may see and do, and what becomes of its rows."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from kyra_etl import resources
from kyra_etl.detect import detect_window
from kyra_etl.detection.rule import Corpus, Detection
from kyra_etl.errors import DetectionError, LakeError
from kyra_etl.lake import S3Options, lane, open_lake, taken
from kyra_etl.lake.engine import Engine, problems
from kyra_etl.model import Finding, Window
from tests.detection.making import NOW, SELECT, House, record, write_detection


def _find(house: House, detection: Detection, *, seconds: float = 60) -> list[Finding]:
    """What it finds when everything in the lake is new."""
    with Engine(house.lake, house.state.ledger, resources.views_dir(), seconds=seconds) as engine:
        engine.take(lambda: house.state.ledger.data_files("events"))
        return engine.evaluate(detection)


def _one(house: House, **parts: str) -> Detection:
    write_detection(house.detections, "one_thing", **parts)
    return house.corpus.get("one_thing")


def test_a_row_is_a_finding(house: House) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)

    [finding] = _find(house, _one(house))

    assert (finding.event_id, finding.event_ids, finding.severity) == ("a", ("a",), "medium")
    assert finding.event_time == datetime(2026, 1, 10, 10)
    assert finding.event_times == {"a": finding.event_time}
    assert finding.historical_ids == {"a"}, "it came by load"


def test_a_column_severity_overrides_the_detections(house: House) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)

    [finding] = _find(house, _one(house, sql=SELECT.replace("'seen'", "'high' AS severity, 'seen'")))

    assert finding.severity == "high"


def test_an_empty_lake_has_every_relation(house: House) -> None:
    others = ("principal FROM activity", "name FROM trails", "account FROM accounts")
    sql = SELECT + "WHERE " + " OR ".join(f"account IN (SELECT {other})" for other in others)

    assert _find(house, _one(house, sql=sql)) == []


def test_params_reach_the_sql(house: House) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), record("GetUser", "10:00:00", "b"), detect=False)
    more = (
        "-- params.names = { type = 'list[str]', default = ['CreateUser', \"it's\"] }\n"
        "-- params.on = { type = 'bool', default = true }\n"
    )
    sql = f"{SELECT} WHERE list_contains(getvariable('one_thing_names'), event_name) AND getvariable('one_thing_on')"

    assert [finding.event_id for finding in _find(house, _one(house, more=more, sql=sql))] == ["a"]


@pytest.mark.parametrize("reading", ["GETVARIABLE( 'one_thing_names')", "getvariable('one_thing_' || 'names')"])
def test_params_are_read_however_it_is_written(house: House, reading: str) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), record("GetUser", "10:00:00", "b"), detect=False)
    more = "-- params.names = { type = 'list[str]', default = ['CreateUser'] }\n"
    sql = f"{SELECT} WHERE list_contains({reading}, event_name)"

    assert [finding.event_id for finding in _find(house, _one(house, more=more, sql=sql))] == ["a"]


BEFORE = """\
SELECT e.event_id, e.event_time, e.account, e.aws_region AS region, e.principal AS actor,
  e.source_ip_address AS source_ip, e.event_name AS target, 'seen' AS summary, list(o.event_id) AS event_ids
FROM events AS e JOIN events AS o ON o.account = e.account AND o.event_name = 'CreateUser'
  AND o.event_time BETWEEN e.event_time - INTERVAL 30 MINUTE AND e.event_time
WHERE e.event_name = 'CreateAccessKey'
GROUP BY ALL
"""
PAIR = '-- event_names = ["CreateUser", "CreateAccessKey"]\n-- lookback = "30m"\n'


@pytest.mark.parametrize("late", ["CreateUser", "CreateAccessKey"])
def test_evidence_counts_once_whichever_part_comes_late(house: House, late: str) -> None:
    write_detection(house.detections, "one_thing", more=PAIR, sql=BEFORE)
    pair = [record("CreateUser", "10:00:00", "a"), record("CreateAccessKey", "10:20:00", "b")]
    first, second = sorted(pair, key=lambda each: each["eventName"] == late)

    assert house.load(first).detect.findings == 0
    assert house.load(second).detect.findings == 1
    assert house.load(record("CreateUser", "12:00:00", "c")).detect.findings == 0, "nothing new about the old ones"
    [alert] = house.state.alerts.list()
    assert alert.event_ids == ("a", "b")


def test_copies_of_recent_events_change_nothing_and_a_damaged_one_stops_nothing(house: House) -> None:
    counting = SELECT.replace("'seen'", "(SELECT count(*) FROM events)::VARCHAR") + " WHERE event_name = 'New'"
    write_detection(house.detections, "one_thing", more='-- lookback = "30m"\n', sql=counting)
    elsewhere = record("Old", "10:00:00", "far", recipientAccountId="444455556666")
    house.load(record("Old", "10:00:00", "a"), elsewhere)
    house.load(record("Old", "10:01:00", "b"), elsewhere | {"eventID": "farther"})
    copies = sorted(house.lake.storage.sizes("_gathered/events"))
    assert len(copies) == 2

    house.load(record("New", "10:02:00", "c"))
    path = Path(house.lake.uri(copies[1]))
    whole = path.read_bytes()
    path.write_bytes(b"PAR1" + b"x" * (len(whole) // 2) + whole[len(whole) // 2 + 4 :])
    report = house.load(record("New", "11:00:30", "d"))

    assert report.detect.failed == ()
    assert sorted(alert.summary for alert in house.state.alerts.list()) == ["3", "3"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_window_of_part_of_a_day_leaves_no_copy_that_lacks_the_rest(house: House, dry_run: bool) -> None:
    counting = SELECT.replace("'seen'", "(SELECT count(*) FROM events)::VARCHAR") + " WHERE event_name = 'New'"
    write_detection(house.detections, "one_thing", more='-- lookback = "30m"\n', sql=counting)
    elsewhere = record("Old", "10:00:00", "far", recipientAccountId="444455556666")
    house.load(record("Old", "09:50:00", "a"), record("Old", "10:20:00", "b"), elsewhere, detect=False)
    part = Window(datetime(2026, 1, 10, 10, 10), datetime(2026, 1, 10, 10, 30))

    detect_window(part, lake=house.lake, state=house.state, corpus=house.corpus, now=NOW, dry_run=dry_run)
    house.load(record("New", "10:25:00", "c"))

    [alert] = house.state.alerts.list()
    assert alert.summary == "3"


def test_names_of_relations_are_read_in_any_case(house: House) -> None:
    write_detection(house.detections, "one_thing", more=PAIR, sql=BEFORE.replace("events AS", "EVENTS AS"))
    house.load(record("CreateUser", "10:00:00", "a"))

    assert house.load(record("CreateAccessKey", "10:20:00", "b")).detect.findings == 1


def test_events_reach_twice_the_lookback_and_no_further(house: House) -> None:
    counting = SELECT.replace("'seen'", "(SELECT count(*) FROM events)::VARCHAR") + " WHERE event_name = 'New'"
    old = [record("Old", at, at) for at in ("08:59:59", "09:00:00", "10:30:00", "11:00:00", "11:00:01")]
    house.load(*old, record("Old", "10:00:00", "other", recipientAccountId="444455556666"), detect=False)
    write_detection(house.detections, "one_thing", more='-- event_names = ["New"]\n-- lookback = "30m"\n', sql=counting)

    house.load(record("New", "10:00:00", "new"))

    [alert] = house.state.alerts.list()
    assert alert.summary == "4", "the new one, and three of its account within the hour"


def test_only_named_narrows_events_to_the_names_asked_for(house: House) -> None:
    counting = SELECT.replace("'seen'", "(SELECT count(*) FROM events)::VARCHAR") + " WHERE event_name = 'New'"
    house.load(record("Old", "10:00:00", "a"), record("New", "10:01:00", "b"), detect=False)
    more = '-- event_names = ["New"]\n-- only_named = true\n-- lookback = "30m"\n'
    write_detection(house.detections, "one_thing", more=more, sql=counting)

    house.load(record("New", "10:02:00", "c"))

    assert [alert.summary for alert in house.state.alerts.list()] == ["2"]


def test_while_what_it_needs_is_empty_the_rest_of_a_select_is_not_run(house: House) -> None:
    told = SELECT.replace("'seen'", "error('This was run.')").replace("FROM events", "FROM wanted")
    sql = f"WITH wanted AS (\n  SELECT * FROM events WHERE event_name = 'New' -- not (an old one\n)\n{told}"
    write_detection(house.detections, "one_thing", more='-- needs = "wanted"\n', sql=sql)

    assert house.load(record("Old", "10:00:00", "a")).detect.failed == ()
    assert house.load(record("New", "10:01:00", "b")).detect.failed == ("one_thing",)


def test_without_a_lookback_only_new_events_are_seen(house: House) -> None:
    house.load(record("Old", "10:00:00", "a"), detect=False)
    counting = SELECT.replace("'seen'", "(SELECT count(*) FROM events)::VARCHAR")
    write_detection(house.detections, "one_thing", sql=counting)

    house.load(record("New", "10:00:00", "b"))

    assert [alert.summary for alert in house.state.alerts.list()] == ["1"]


def test_activity_reaches_back_over_the_baseline(house: House) -> None:
    house.load(
        record("Old", "10:00:00", "a"), record("Older", "10:00:00", "b", eventTime="2025-11-01T10:00:00Z"), detect=False
    )
    names = "(SELECT string_agg(event_name, ' ' ORDER BY event_name) FROM activity)"
    sql = SELECT.replace("'seen'", names)
    write_detection(house.detections, "one_thing", more='-- event_names = ["New"]\n-- baseline = "30d"\n', sql=sql)

    house.load(record("New", "11:00:00", "c"))

    assert [alert.summary for alert in house.state.alerts.list()] == ["New Old"]


@pytest.mark.parametrize("held", ["in memory", "on disk"])
def test_activity_of_many_days_is_what_it_was_once_it_is_gathered(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: str
) -> None:
    if held == "on disk":
        monkeypatch.setattr(taken, "SHARED", 0)
    days = ["2025-12-30", "2025-12-31", *(f"2026-01-{day:02}" for day in range(1, 10))]
    for day in days:
        house.load(record("Old", "", day, eventTime=f"{day}T10:00:00Z"), detect=False)
    told = (
        "(SELECT concat(count(*), ' ', string_agg(DISTINCT date::VARCHAR, ' ' ORDER BY date::VARCHAR)) FROM activity)"
    )
    sql = SELECT.replace("'seen'", told)
    for name in ("one_thing", "other_thing"):
        write_detection(house.detections, name, more='-- event_names = ["New"]\n-- baseline = "30d"\n', sql=sql)
    portions = list(house.lake.gathered(house.state.ledger.data_files("activity")))
    assert (sum(rows.num_rows for rows, _ in portions), sum(len(others) for _, others in portions)) == (10, 1)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    asked: list[int] = []
    gathered = house.lake.gathered
    monkeypatch.setattr(house.lake, "gathered", lambda files: asked.append(len(files)) or gathered(files))

    house.load(record("New", "11:00:00", "c"))

    assert [alert.summary for alert in house.state.alerts.list()] == 2 * [f"12 {' '.join([*days, '2026-01-10'])}"]
    assert asked == [12], "once for both"
    assert not list(scratch.glob("**/*.parquet")), "nothing is left of what was copied"


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM events",
        "SELECT 1; SELECT 2",
        "WITH x AS (COPY (SELECT 1) TO 'stolen.csv') SELECT 1",
        "COPY events TO 'stolen.csv'",
        "INSTALL httpfs",
        "SET memory_limit = '1TB'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM house",
    ],
)
def test_a_detection_can_only_read_the_relations(house: House, sql: str) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)

    with pytest.raises(DetectionError, match=r"one_thing\.sql:\d+: "):
        _find(house, _one(house, sql=sql))
    assert not Path("stolen.csv").exists()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (SELECT + "WHERE nothing = 1", ":12: Binder Error"),
        (SELECT + "WHERE WHERE", ":12: Parser Error"),
        ("\nSELECT\n  event_id,\n  foo\nFROM events", ":12: Binder Error"),
        ("SELECT event_id, event_time, account FROM events", "returns no column region"),
        (SELECT.replace("'seen'", "'odd' AS severity, 'seen'"), "severity 'odd' is none"),
        (SELECT.replace("event_id,", "NULL AS event_id,"), "a row lacks event_id"),
        (SELECT.replace("'seen'", "error('broken')"), "broken"),
    ],
)
def test_a_mistake_in_the_sql_names_file_and_line(house: House, sql: str, said: str) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)

    with pytest.raises(DetectionError) as caught:
        _find(house, _one(house, sql=sql))

    assert said in str(caught.value)
    assert "one_thing.sql:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_group_has_to_be_among_the_columns(house: House) -> None:
    path = write_detection(house.detections, "one_thing")
    path.write_text(path.read_text().replace('"target"]', '"colour"]'))

    [error] = problems([Corpus.load([house.detections]).get("one_thing")], resources.views_dir())

    assert "returns no column colour" in str(error)


def test_a_detection_that_takes_for_ever_is_stopped(house: House) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)
    endless = SELECT.replace(
        "'seen'", "(SELECT sum(sin(a.i * b.i)) FROM range(1000000) AS a(i), range(1000000) AS b(i))"
    )

    with pytest.raises(DetectionError, match="took longer than 0 seconds"):
        _find(house, _one(house, sql=endless), seconds=0.3)


def test_a_time_that_is_up_before_a_statement_begins_stops_it_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)
    long = SELECT.replace("'seen'", "(SELECT sum(sin(a.i * b.i)) FROM range(100000) AS a(i), range(3000) AS b(i))")
    statement = lane.statement

    def late(detection: Detection) -> str:
        time.sleep(0.2)
        return statement(detection)

    monkeypatch.setattr(lane, "statement", late)
    with pytest.raises(DetectionError, match="took longer than 0 seconds"):
        _find(house, _one(house, sql=long), seconds=0.1)


def test_a_missing_data_file_is_the_lakes_fault_not_the_detections(house: House) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)
    [file] = house.state.ledger.data_files("events")
    detection = _one(house)
    Path(house.lake.uri(file.path)).unlink()

    with pytest.raises(LakeError, match="cannot be read"):
        _find(house, detection)


def test_many_new_events_are_read_from_their_files(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken, "IN_MEMORY", 1)
    house.load(*(record("CreateUser", f"10:00:{second:02}", str(second)) for second in range(9)), detect=False)

    assert len(_find(house, _one(house))) == 9


def test_account_ids_keep_their_zero(house: House) -> None:
    house.load(record("CreateUser", "10:00:00", "a", recipientAccountId="012345678901"), detect=False)

    assert [finding.account for finding in _find(house, _one(house))] == ["012345678901"]


def test_a_lake_on_s3_is_read_all_the_same(tmp_path: Path, s3_server: str) -> None:
    import boto3

    boto3.client("s3").create_bucket(Bucket="lake")
    house = House(tmp_path, open_lake("s3://lake/kyra", S3Options(endpoint_url=s3_server, region="us-east-1")))
    write_detection(house.detections, "one_thing", more=PAIR, sql=BEFORE)

    house.load(record("CreateUser", "10:00:00", "a"))
    report = house.load(record("CreateAccessKey", "10:20:00", "b"))

    assert (report.detect.failed, report.detect.findings) == ((), 1)
    with pytest.raises(DetectionError):
        _find(house, _one(house, sql="SELECT * FROM 's3://lake/other.parquet'"))
    house.state.close()


def test_what_reads_alerts_runs_last_and_sees_those_of_its_own_run(house: House) -> None:
    write_detection(house.detections, "zz_plain")
    on_alerts = (
        "SELECT v.event_id, v.event_time, a.account, a.region, a.actor, a.source_ip, a.detection AS target,\n"
        "  concat('rests on ', a.detection) AS summary\n"
        "FROM alerts AS a JOIN alert_events AS v USING (alert_id)\nWHERE a.detection <> 'aa_above'"
    )
    write_detection(house.detections, "aa_above", more='-- lookback = "24h"\n', sql=on_alerts)

    house.load(record("CreateUser", "10:00:00", "a"))
    house.load(record("CreateUser", "10:30:00", "b"))

    found = {alert.detection: alert for alert in house.state.alerts.list()}
    assert found["aa_above"].summary == "rests on zz_plain"
    assert found["aa_above"].event_ids == found["zz_plain"].event_ids == ("a", "b")
    assert found["aa_above"].historical, "as what it rests on"


TWICE = """\
WITH a AS (SELECT * FROM events WHERE event_name = 'CreateUser')
SELECT event_id, event_time, account, aws_region AS region, principal AS actor, source_ip_address AS source_ip,
  event_name AS target, 'made' AS summary, 'high' AS severity, [event_id] AS event_ids
FROM a
UNION ALL BY NAME
SELECT event_id, event_time, account, aws_region AS region, principal AS actor, source_ip_address AS source_ip,
  event_name AS target, 'and used' AS summary, 'medium' AS severity,
  list_append((SELECT list(o.event_id) FROM events AS o WHERE o.event_name = 'CreateAccessKey'), event_id) AS event_ids
FROM a
"""


def test_what_is_new_of_one_of_two_findings_of_an_event_does_not_replace_the_other(house: House) -> None:
    write_detection(house.detections, "one_thing", more=PAIR, sql=TWICE)

    house.load(record("CreateUser", "10:00:00", "a"))
    house.load(record("CreateAccessKey", "10:20:00", "b"))

    [alert] = house.state.alerts.list()
    assert (alert.severity, alert.event_ids) == ("high", ("a", "b"))
