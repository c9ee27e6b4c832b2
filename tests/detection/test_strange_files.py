"""Whatever a file in somebody's `detections/` says, the other detections run, and what is wrong with it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kyra_etl import resources
from kyra_etl.detect import detect_queued
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import ConfigError
from kyra_etl.lake.engine import problems
from tests.detection.making import FRONT, NOW, SELECT, House, record, write_detection


def _front(more: str) -> str:
    return FRONT.format(title="Bad One", more=more) + SELECT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-- ---", "bad_one.sql:1: the front matter does not end"),
        ("-- ---\n", "the front matter does not end"),
        ("-- ---\n-- ---", "there is no SQL"),
        (_front("").replace('"1h"', '"9999999999d"'), "group_window '9999999999d' is no duration"),
        (_front('-- baseline = "999999d"\n'), "baseline '999999d' is no duration"),
        (_front('-- lookback = "99999999999999999999m"\n'), "is no duration"),
        (_front("-- params.max-count = { type = 'int', default = 1 }\n"), "a param cannot be called max-count"),
        (_front("-- params.'a b' = { type = 'int', default = 1 }\n"), "a param cannot be called a b"),
        (_front("-- params.most = { type = 'int', default = 99999999999999999999 }\n"), "no int"),
        (_front("-- params.most = { type = 'list[float]', default = [nan] }\n"), "no list[float]"),
        (_front(f"-- references = {'[' * 9_999}\n"), "RecursionError"),
    ],
)
def test_a_file_that_cannot_be_read_stops_no_other_and_shows_as_failing(house: House, text: str, said: str) -> None:
    write_detection(house.detections, "good_one")
    bad = write_detection(house.detections, "bad_one")
    bad.write_text(text)

    report = house.load(record("CreateUser", "10:00:00", "a"))

    assert report.events == report.alerts == 1
    assert report.detect.failed == ("bad_one",)
    [failing] = house.state.queue.failing()
    assert failing["detection"] == "bad_one"
    assert str(bad) in failing["last_error"]
    assert said in failing["last_error"]
    assert "\n" not in failing["last_error"]


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (f"{SELECT.rstrip()};\n-- the end\n", "CreateUser"),
        (f"{SELECT};;", "CreateUser"),
        (f"{SELECT};\n/* the end; */ ;", "CreateUser"),
        (f"{SELECT}-- it's; the end", "CreateUser"),
        (SELECT.replace("event_name", "event_name || '; -- ü'") + ";\n", "CreateUser; -- ü"),
        (SELECT.replace("event_name", "event_name || '\u2028'"), "CreateUser\u2028"),
        (SELECT.replace("AS region", "AS Region").replace("event_id", "EVENT_ID"), "CreateUser"),
    ],
    ids=["comment", "two", "both", "no-semicolon", "text", "separator", "capitals"],
)  # fmt: skip
def test_what_runs_in_a_shell_runs_here(house: House, sql: str, found: str) -> None:
    write_detection(house.detections, "one_thing", sql=sql)

    house.load(record("CreateUser", "10:00:00", "a"))

    assert problems(house.corpus.detections, resources.views_dir()) == []
    assert [alert.target for alert in house.state.alerts.list()] == [found]


def test_two_statements_are_refused_however_they_end(house: House) -> None:
    write_detection(house.detections, "one_thing", sql=f"{SELECT};{SELECT};\n-- the end")

    [error] = problems(house.corpus.detections, resources.views_dir())

    assert "these are 2 statements" in str(error)


def test_a_file_may_begin_with_a_mark_and_write_columns_in_capitals(house: House) -> None:
    path = write_detection(house.detections, "one_thing", sql=SELECT.replace("AS target", "AS Target"))
    path.write_text(path.read_text().replace('["account", "target"]', '["Account", "TARGET"]'), encoding="utf-8-sig")

    house.load(record("CreateUser", "10:00:00", "a"))

    assert [alert.target for alert in house.state.alerts.list()] == ["CreateUser"]


def test_what_came_while_a_file_could_not_be_read_is_judged_once_it_can(house: House) -> None:
    bad = write_detection(house.detections, "bad_one")
    mended = bad.read_text()
    bad.write_text("-- ---")
    house.load(record("CreateUser", "10:00:00", "a"))

    bad.write_text(mended)

    report = detect_queued(lake=house.lake, state=house.state, corpus=house.corpus, now=NOW)
    assert (report.failed, report.alerts_new, house.state.queue.depth()) == ((), 1, 0)


def test_a_file_that_is_broken_and_switched_off_is_left_alone(house: House) -> None:
    write_detection(house.detections, "bad_one").write_text("-- ---")
    house.load(record("CreateUser", "10:00:00", "a"))
    assert house.state.queue.depth() == 1

    corpus = Corpus.load([house.detections], disable=["bad_one"])

    assert corpus.for_events({"CreateUser"}) == ()
    report = detect_queued(lake=house.lake, state=house.state, corpus=corpus, now=NOW)
    assert (report.failed, house.state.queue.depth()) == ((), 0)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (SELECT.replace("FROM", ", [event_time] AS event_ids FROM"), "event_ids is no list of texts"),
        (SELECT.replace("FROM", ", [1, NULL] AS event_ids FROM"), "event_ids is no list of texts"),
        (SELECT.replace("event_time,", "CAST(event_time AS TIMESTAMPTZ) AS event_time,"), "event_time has a time zone"),
        (SELECT.replace("event_time,", "TIMESTAMP '-infinity' AS event_time,"), "event_time is 0001-01-01"),
        (SELECT.replace("event_time,", "TIMESTAMP 'infinity' AS event_time,"), "event_time is 9999-12-31"),
        (SELECT.replace("event_time,", "TIMESTAMP '290000-01-01' AS event_time,"), "a row lacks event_id, event_time"),
        (SELECT.replace("'seen'", "to_days(2000000000)"), "OverflowError: days=2000000000"),
    ],
)
def test_rows_of_another_kind_stop_no_other(house: House, sql: str, said: str) -> None:
    write_detection(house.detections, "good_one")
    bad = write_detection(house.detections, "bad_one", sql=sql)

    report = house.load(record("CreateUser", "10:00:00", "a"))

    assert {alert.detection for alert in house.state.alerts.list()} == {"good_one"}
    assert report.detect.failed == ("bad_one",)
    [failing] = house.state.queue.failing()
    assert f"{bad}:" in failing["last_error"]
    assert said in failing["last_error"]


def test_a_time_with_a_zone_is_told_before_any_event_comes(house: House) -> None:
    sql = SELECT.replace("event_time,", "CAST(event_time AS TIMESTAMPTZ) AS event_time,")
    write_detection(house.detections, "bad_one", sql=sql)
    write_detection(house.detections, "odd_one", sql=SELECT.replace("FROM", ", [event_time] AS event_ids FROM"))

    said = [str(error) for error in problems(house.corpus.detections, resources.views_dir())]

    assert len(said) == 2
    assert "event_time is TIMESTAMP WITH TIME ZONE" in said[0]
    assert "event_ids is TIMESTAMP[]" in said[1]


def test_settings_that_no_database_holds_are_refused(tmp_path: Path) -> None:
    write_detection(tmp_path, "good_one", more="-- params.most = { type = 'int', default = 1 }\n")

    with pytest.raises(ConfigError, match="must be of type int"):
        Corpus.load([tmp_path], {"good_one": {"most": 2**63}})
