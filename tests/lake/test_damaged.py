"""A committed file that cannot be read holds up the batches that must be compared with it, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kyra_etl.errors import DamagedFile
from kyra_etl.load import load
from kyra_etl.model import Limits, RunReport
from tests.detection.making import NOW, House, record, write_detection


@contextmanager
def threads(*_: Any) -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(params=["one after the other", "each read ahead"])
def house(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    if request.param == "each read ahead":
        monkeypatch.setattr("kyra_etl.run.decoders", threads)
    house = House(tmp_path)
    yield house
    house.state.close()


def load_apart(house: House, *ids: str) -> RunReport:
    """Events of these ids, an event an hour from 08:00 on, each in a log file and a batch of its own."""
    paths = []
    for hour, id_ in enumerate(ids, start=8):
        paths.append(house.folder / f"{id_}.json")
        paths[-1].write_text(json.dumps({"Records": [record("CreateUser", f"{hour:02}:00:00", id_)]}))
    return load(
        paths,
        lake=house.lake,
        state=house.state,
        corpus=house.corpus,
        limits=Limits(batch_files=1),
        clock=lambda: NOW,
    )


def test_batches_after_one_that_meets_a_damaged_file_are_loaded(house: House) -> None:
    load_apart(house, "a")
    [file] = house.state.ledger.data_files("events")
    path = house.folder / "lake" / file.path
    content = path.read_bytes()
    path.write_bytes(content[:100])
    write_detection(house.detections, "one_thing")

    with pytest.raises(DamagedFile, match="account=111122223333/date=2026-01-10 cannot be read"):
        load_apart(house, "b", "c", "d")

    counts = house.state.ledger.counts("local")
    assert (counts["loaded"], counts["pending"], counts["planned"]) == (3, 1, 0)
    assert {alert.event_ids for alert in house.state.alerts.list()} == {("c",), ("d",)}
    run = house.state.runs.last("local", "failed")
    assert run is not None
    assert (run["report"]["loaded"], run["report"]["pending"]) == (2, 1)

    path.write_bytes(content)
    assert load_apart(house, "b", "c", "d").loaded == 1
