"""What a detection's file may say, and how a mistake in it is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from kyra_etl.detection.rule import Corpus, Detection, parse
from kyra_etl.errors import ConfigError, DetectionError, UnknownName
from tests.detection.making import FRONT, SELECT, write_detection


def _some(more: str = "") -> str:
    return FRONT.format(title="Some Thing", more=more) + SELECT


def _parse(more: str = "") -> Detection:
    return parse(_some(more), id="some_thing", group="test", path="some_thing.sql")


def test_a_file_becomes_a_detection() -> None:
    detection = _parse(
        '-- event_names = ["A", "B"]\n-- lookback = "15m"\n-- baseline = "30d"\n'
        '-- params = { ports = { type = "list[int]", default = [22], about = "…" } }\n'
    )

    assert detection.title == "Some Thing"
    assert detection.event_names == {"A", "B"}
    assert (detection.lookback, detection.baseline) == (timedelta(minutes=15), timedelta(days=30))
    assert detection.params["ports"].value == [22]
    assert detection.params["ports"].sql_type == "BIGINT[]"
    assert detection.variable("ports") == "some_thing_ports"
    assert detection.sql == SELECT.rstrip()
    assert (FRONT.format(title="", more="\n" * 4) + SELECT).splitlines()[detection.sql_line - 1].startswith("SELECT")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1", "some_thing.sql:1: there is no front matter"),
        ("", "some_thing.sql:1: there is no front matter"),
        ("-- ---\n-- title = 'x'\nSELECT 1", "some_thing.sql:3: the front matter does not end"),
        ("-- ---\n-- title = \n-- ---\nSELECT 1", "some_thing.sql:2: the front matter is not TOML"),
        (FRONT.format(title="Some Thing", more=""), "some_thing.sql:8: there is no SQL"),
        (FRONT.format(title="Other", more="") + SELECT, "some_thing.sql:2: the title makes other"),
        (_some(more="-- colour = 1\n"), "some_thing.sql:8: there is no key colour"),
        (_some(more='-- lookback = "soon"\n'), "some_thing.sql:8: lookback 'soon'"),
        (_some(more="-- only_named = true\n"), "some_thing.sql:8: only_named"),
        (_some(more='-- needs = "calls"\n'), "some_thing.sql:8: the SELECT has no CTE called calls"),
        (_some().replace('"medium"', '"bad"'), "some_thing.sql:3: severity"),
        (_some().replace('-- about        = "A test."\n', ""), "about is missing"),
        (_some().replace('"account", ', ""), "some_thing.sql:6: group_by"),
        (_some().replace("T1078.004", "T1"), "no technique's id"),
        (_some(more='-- params = { p = { type = "set", default = 1 } }\n'), "param p"),
        (_some(more='-- params = { p = { type = "int", default = "x" } }\n'), "no int"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_line_and_a_remedy(text: str, said: str) -> None:
    with pytest.raises(DetectionError) as caught:
        parse(text, id="some_thing", group="test", path="some_thing.sql")

    assert said in caught.value.message
    assert caught.value.remedy


def test_a_broken_file_does_not_stop_the_others(tmp_path: Path) -> None:
    write_detection(tmp_path, "good_one")
    write_detection(tmp_path, "bad_one").write_text("SELECT 1")

    corpus = Corpus.load([tmp_path, tmp_path / "missing"])

    assert [detection.id for detection in corpus.detections] == ["good_one"]
    assert [problem.detection for problem in corpus.problems] == ["bad_one"]
    with pytest.raises(DetectionError, match="no front matter"):
        corpus.get("bad_one")


def test_ids_are_unique_over_all_folders(tmp_path: Path) -> None:
    write_detection(tmp_path / "a", "good_one")
    write_detection(tmp_path / "b", "good_one")

    corpus = Corpus.load([tmp_path / "a", tmp_path / "b"])

    assert len(corpus.detections) == 1
    assert "good_one too" in str(corpus.problems[0])


def test_settings_change_params_and_switch_off(tmp_path: Path) -> None:
    params = '-- params = { ports = { type = "list[int]", default = [22] } }\n'
    write_detection(tmp_path, "good_one", more=params)
    write_detection(tmp_path, "dull_one")

    corpus = Corpus.load([tmp_path], {"good_one": {"ports": [80]}}, ["dull_one"])

    assert corpus.get("good_one").params["ports"].value == [80]
    assert [detection.id for detection in corpus.detections] == ["good_one"]
    assert corpus.get("dull_one") in corpus.disabled
    for settings, said in [
        ({"good_on": {}}, "Did you mean good_one"),
        ({"good_one": {"port": [1]}}, "Did you mean ports"),
        ({"good_one": {"ports": "80"}}, "type list"),
        ({"good_one": {"ports": [True]}}, "type list"),
    ]:
        with pytest.raises(ConfigError) as caught:
            Corpus.load([tmp_path], settings)
        assert said in str(caught.value)


def test_an_unknown_detection_names_the_nearest(tmp_path: Path) -> None:
    write_detection(tmp_path, "good_one")

    with pytest.raises(UnknownName, match="Did you mean good_one"):
        Corpus.load([tmp_path]).get("god_one")


def test_only_events_that_concern_a_detection_wake_it(tmp_path: Path) -> None:
    write_detection(tmp_path, "any_event")
    write_detection(tmp_path, "one_event", more='-- event_names = ["CreateUser"]\n')
    corpus = Corpus.load([tmp_path])

    assert corpus.for_events({"GetUser", None}) == ("any_event",)
    assert corpus.for_events({"CreateUser"}) == ("any_event", "one_event")
