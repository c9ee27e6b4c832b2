"""Records of our own in the lake are those of the state, also of runs that failed or were killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import publish, run
from kyra_etl.detect import detect_window
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import LakeError, StateError
from kyra_etl.lake import Lake
from kyra_etl.load import load
from kyra_etl.model import Limits, RunReport, Window
from kyra_etl.owner import owner_of
from kyra_etl.state import State
from tests.detection.making import record, write_detection
from tests.lakes import table

NOW = datetime(2026, 1, 20)


class House:
    """A state, a lake and one detection that finds every event."""

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.folder, self.lake, self.now = folder, lake, NOW
        self.state = State.open(str(folder / "state.db"))
        lake.claim(self.state.id)
        write_detection(folder / "detections", "one_thing")
        self.corpus = Corpus.load([folder / "detections"])

    def load(self, event_id: str, *, detect: bool = True) -> RunReport:
        """Load one event as a file of its own, a minute after the last one."""
        self.now += timedelta(minutes=1)
        path = self.folder / f"{event_id}.json"
        path.write_text(json.dumps({"Records": [record("CreateUser", "10:00:00", event_id)]}))
        corpus = self.corpus if detect else None
        clock = lambda: self.now  # noqa: E731
        return load([path], lake=self.lake, state=self.state, corpus=corpus, limits=Limits(), clock=clock)

    def runs(self) -> dict[str, tuple[Any, ...]]:
        """What the lake says of runs: state, error and events by id."""
        rows = table(self.lake, "sync_runs").to_pylist()
        return {row["run_id"]: (row["state"], row["error"], row["events"]) for row in rows}

    def files(self) -> set[str]:
        """Log files that the lake tells of."""
        return {Path(row["key"]).stem for row in table(self.lake, "log_files").to_pylist()}

    def alerts(self) -> set[str]:
        """Events of the alerts that the lake tells of."""
        alerts = {row["alert_id"]: row["event_ids"] for row in table(self.lake, "alerts").to_pylist()}
        told = {(row["alert_id"], row["event_id"]) for row in table(self.lake, "alert_events").to_pylist()}
        assert {(alert_id, each) for alert_id, event_ids in alerts.items() for each in event_ids} == told
        return {event_id for _, event_id in told}


@pytest.fixture
def house(tmp_path: Path, lake: Lake) -> Iterator[House]:
    house = House(tmp_path, lake)
    yield house
    house.state.close()


def test_a_run_that_fails_after_its_commit_is_published(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run.report

    def unlucky(*_: Any, **__: Any) -> RunReport:
        raise StateError("The numbers do not reconcile.", "Report it.")

    monkeypatch.setattr("kyra_etl.load.report", unlucky)
    with pytest.raises(StateError):
        house.load("a")

    [(state, error, _)] = house.runs().values()
    assert (state, error) == ("failed", "The numbers do not reconcile. Report it.")
    assert (house.files(), house.alerts()) == ({"a"}, {"a"})
    monkeypatch.setattr("kyra_etl.load.report", real)
    house.load("b")
    assert (len(house.runs()), house.files(), house.alerts()) == (2, {"a", "b"}, {"a", "b"})


@pytest.mark.parametrize("death", [KeyboardInterrupt, LakeError])
def test_what_was_not_published_is_made_up_for_by_the_next_run(
    house: House, monkeypatch: pytest.MonkeyPatch, death: type[BaseException]
) -> None:
    real = publish.publish_runs

    def dies(**_: Any) -> None:
        raise death("now")

    monkeypatch.setattr("kyra_etl.run.publish_runs", dies)
    with pytest.raises(death):
        house.load("a")
    monkeypatch.setattr("kyra_etl.run.publish_runs", real)

    house.load("b")

    assert [state for state, *_ in house.runs().values()] == ["succeeded", "succeeded"]
    assert (house.files(), house.alerts()) == ({"a", "b"}, {"a", "b"})
    assert house.state.runs.unpublished((), house.now) == []


def test_a_run_that_was_killed_is_made_up_for_once_it_is_known_to_be_dead(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("kyra_etl.state.runs.Runs.finish", lambda *_, **__: None)  # killed before it could say anything
        run_id = house.load("a").run_id
    assert not house.lake.storage.folders("sync_runs")
    house.state.runs.lost([run_id], "The process was killed; the next run goes on.", house.now)

    house.load("b")

    assert house.runs()[run_id][:2] == ("failed", "The process was killed; the next run goes on.")
    assert (house.files(), house.alerts()) == ({"a", "b"}, {"a", "b"})


def test_a_run_that_was_killed_where_nobody_can_tell_is_made_up_for_after_an_hour(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("kyra_etl.state.runs.Runs.finish", lambda *_, **__: None)
        killed = house.load("a").run_id
    house.load("b")
    assert house.files() == {"b"}, "it may be under way"
    house.now += timedelta(hours=1)
    busy = house.state.runs.start("load", "local", NOW)
    house.state.leases.take("load:local", owner_of(busy), 600)

    house.load("c")

    assert house.runs()[killed][0] == "running", "as the state says"
    assert busy not in house.runs(), "it holds a lease"
    assert (house.files(), house.alerts()) == ({"a", "b", "c"}, {"a", "b", "c"})
    house.state.runs.lost([killed], "The process was killed.", house.now)
    house.load("d")
    assert house.runs()[killed][0] == "failed"


def test_a_run_is_published_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.load("a")
    written: list[str] = []
    real = Lake.write_table
    monkeypatch.setattr(Lake, "write_table", lambda self, *given: written.append(given[1]) or real(self, *given))

    second = house.load("b")

    assert set(written) == {second.run_id, "alerts"}


def test_alerts_of_a_detect_are_published(house: House) -> None:
    house.load("a", detect=False)
    begun = house.now = house.now + timedelta(minutes=1)
    window = Window(datetime(2026, 1, 10), datetime(2026, 1, 11))
    detect_window(window, lake=house.lake, state=house.state, corpus=house.corpus, now=house.now)

    publish.publish_changed(begun, lake=house.lake, state=house.state, now=house.now)

    assert house.alerts() == {"a"}
