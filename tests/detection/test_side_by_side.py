"""Detections evaluated side by side find what each finds alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import logs, resources
from kyra_etl.cases import load_cases
from kyra_etl.detection.rule import Corpus, Detection
from kyra_etl.errors import DetectionError
from kyra_etl.lake import lane, taken
from kyra_etl.lake.engine import Engine, Evaluation
from kyra_etl.model import Finding
from tests.detection.making import SELECT, House, record, write_detection

ENDLESS = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) " + SELECT.replace(
    "'seen'", "(SELECT max(i) FROM n)::VARCHAR"
)


def engine_of(house: House, lanes: int | None) -> Engine:
    engine = Engine(
        house.lake,
        house.state.ledger,
        resources.views_dir(),
        trusted=resources.detections_dir(),
        lanes=lanes,
    )
    return engine


def evaluated(house: House, corpus: Corpus, lanes: int | None) -> dict[str, Evaluation]:
    with engine_of(house, lanes) as engine:
        engine.take(lambda: house.state.ledger.data_files("events"), detections=corpus.detections)
        return {each.detection.id: each for each in engine.evaluate_all([(d, None) for d in corpus.detections])}


def in_order(findings: list[Finding]) -> list[Finding]:
    """Rows of a SELECT come in any order."""
    return sorted(findings, key=repr)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A lake with the events of the first case of each detection that fires."""
    house = House(tmp_path_factory.mktemp("house"))
    firsts = {case.detection: case for case in reversed(load_cases([resources.cases_dir()])) if case.fires}
    house.load(*(dict(event) for case in firsts.values() for event in case.events), detect=False)
    return house


@pytest.mark.parametrize("shared", [True, False])
def test_four_lanes_find_what_one_finds(everything: House, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shared:
        monkeypatch.setattr(taken, "SHARED", 0)
    corpus = Corpus.load([resources.detections_dir()])

    alone, together = (evaluated(everything, corpus, lanes) for lanes in (None, 4))

    assert len(together) == len(corpus.detections)
    assert {id_: in_order(each.findings) for id_, each in together.items()} == {
        id_: in_order(each.findings) for id_, each in alone.items()
    }
    assert {id_: each.rows for id_, each in together.items()} == {id_: each.rows for id_, each in alone.items()}
    assert sum(bool(each.findings) for each in together.values()) > 40
    assert [each.error for each in together.values() if each.error] == []


def test_one_that_fails_stops_none_beside_it(house: House) -> None:
    for name, sql in (("a_wrong", SELECT + "WHERE nothing"), ("b_right", SELECT), ("c_right", SELECT)):
        write_detection(house.detections, name, sql=sql)
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)

    found = evaluated(house, house.corpus, 2)

    assert isinstance(found["a_wrong"].error, DetectionError)
    assert [len(found[name].findings) for name in ("a_wrong", "b_right", "c_right")] == [0, 1, 1]


def test_a_file_that_left_is_the_lakes_fault_for_each_that_reads_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taken, "IN_MEMORY", 0)
    for name in ("a", "b", "c"):
        write_detection(house.detections, name)
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)
    [file] = house.state.ledger.data_files("events")
    path, away = Path(house.lake.uri(file.path)), house.folder / "away"

    with engine_of(house, 3) as engine:
        engine.take(lambda: house.state.ledger.data_files("events"))
        path.rename(away)
        found = list(engine.evaluate_all([(each, None) for each in house.corpus.detections]))
        away.rename(path)
        again = list(engine.evaluate_all([(each, None) for each in house.corpus.detections]))

    assert ["cannot be read" in str(each.error) for each in found] == [True] * 3
    assert [len(each.findings) for each in again] == [1] * 3


def test_leaving_in_the_middle_waits_for_nothing(house: House) -> None:
    write_detection(house.detections, "a_quick")
    write_detection(house.detections, "b_endless", sql=ENDLESS)
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)

    with engine_of(house, 2) as engine:
        engine.take(lambda: house.state.ledger.data_files("events"))
        first = next(iter(engine.evaluate_all([(each, None) for each in house.corpus.detections])))

    assert len(first.findings) == 1


def test_leaving_before_a_statement_begins_waits_for_nothing_either(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_detection(house.detections, "a_quick")
    long = SELECT.replace("'seen'", "(SELECT sum(sin(a.i * b.i)) FROM range(100000) AS a(i), range(3000) AS b(i))")
    write_detection(house.detections, "b_long", sql=long)
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)
    statement, left, ended = lane.statement, threading.Event(), []
    leaving = Engine.close

    def leave(engine: Engine) -> None:
        threading.Timer(0.2, left.set).start()
        leaving(engine)

    def when_left(detection: Detection) -> str:
        if detection.id == "b_long":
            left.wait()
        return statement(detection)

    def evaluate(self: lane.Lane, detection: Detection, *more: Any) -> list[Finding]:
        found = evaluating(self, detection, *more)
        ended.append(detection.id)
        return found

    evaluating = lane.Lane.evaluate
    monkeypatch.setattr(lane.Lane, "evaluate", evaluate)
    monkeypatch.setattr(lane, "statement", when_left)
    monkeypatch.setattr(Engine, "close", leave)
    with engine_of(house, 2) as engine:
        engine.take(lambda: house.state.ledger.data_files("events"))
        next(iter(engine.evaluate_all([(each, None) for each in house.corpus.detections])))

    assert ended == ["a_quick"]


def test_what_lanes_log_names_the_run(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    write_detection(house.detections, "a")
    house.load(record("CreateUser", "10:00:00", "a"), detect=False)
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(taken.Taken, "keep", lambda *_: asked.append(logs._about.get()))
    monkeypatch.setattr(taken.Taken, "concerning", lambda *_: asked.append(logs._about.get()))

    with engine_of(house, 2) as engine:
        engine.take(lambda: house.state.ledger.data_files("events"))
        with logs.about(run="r1"):
            list(engine.evaluate_all([(each, None) for each in house.corpus.detections]))

    assert asked == [{"run": "r1"}, {"run": "r1"}]
