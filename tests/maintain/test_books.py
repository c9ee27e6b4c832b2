"""What runs publish about themselves becomes one file a day, and says the same."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import duckdb
import pytest

from kyra_etl import resources
from kyra_etl.errors import LakeError
from kyra_etl.lake.script import VIEWS, script
from kyra_etl.lake.tables import LATEST
from kyra_etl.maintain import books
from tests.detection.making import NOW, record
from tests.maintain.making import Upkeep

DAY = NOW.date()
LATER = NOW + timedelta(days=2)


def _files(house: Upkeep, table: str) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in house.lake.storage.sizes(table))


def _told(house: Upkeep) -> dict[str, list[tuple[Any, ...]]]:
    """What plain DuckDB reads, by the script that `kyra sql --init` writes."""
    with duckdb.connect() as connection:
        house.lake.register(connection)
        connection.execute(script(house.lake, resources.views_dir()).partition(VIEWS)[2])
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall() for table in LATEST}


def _filled(house: Upkeep) -> None:
    """Three runs, of which the last two tell more of what the first one told."""
    for n in range(3):
        house.load(record("Call", "", f"e{n}"), detect=False)
        row = {"alert_id": "a", "event_id": "e0", "event_time": NOW, "historical": n == 0}
        house.lake.write_table("alert_events", f"run-{n}", [row, {**row, "event_id": f"e{n}"}], DAY)
        file = {
            "integration": "acme",
            "bucket": "b",
            "key": "k",
            "etag": "e",
            "state": ("planned", "gone", "loaded")[n],
        }
        house.lake.write_table("log_files", f"run-{n}", [file], DAY)


def test_days_that_are_over_have_one_file_that_tells_the_same(house: Upkeep) -> None:
    _filled(house)
    before, last = _told(house), {table: _files(house, table)[-1] for table in LATEST}
    assert [len(before[table]) for table in ("sync_runs", "log_files", "alert_events")] == [3, 4, 3]

    house.now = LATER
    report = house.compact()

    assert (report.gathered, report.failed) == (2 + 5 + 2, ())
    assert {table: _files(house, table) for table in LATEST} == {table: [name] for table, name in last.items()}
    assert _told(house) == before
    assert house.compact().gathered == 0

    file = {"integration": "acme", "bucket": "b", "key": "k", "etag": "e", "state": "gone"}
    house.lake.write_table("log_files", "run-9", [file], DAY)
    late = _told(house)
    assert house.compact().gathered == 1
    assert _told(house) == late != before


def test_what_is_interrupted_between_is_done_by_the_next(folder: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(folder)
    before, folder.now = _told(folder), LATER

    def full(path: str) -> None:
        raise LakeError("No space.", "Free some.")

    with monkeypatch.context() as broken:
        broken.setattr(folder.lake.storage, "remove", full)
        assert [each["account"] for each in folder.compact().failed] == list(LATEST)
    assert _told(folder) == before  # rows are there twice, and told once

    assert folder.compact().gathered == 9
    assert _told(folder) == before


def test_a_day_stays_as_it_is_while_a_run_of_it_may_still_publish(folder: Upkeep) -> None:
    _filled(folder)
    slow = folder.state.runs.start("backfill", "acme", NOW + timedelta(hours=1))

    folder.now = LATER
    assert folder.compact().gathered == 0
    folder.state.runs.finish(slow, None, state="failed", now=LATER)
    assert folder.compact().gathered == 0
    folder.state.runs.mark_published(slow, "failed")
    assert folder.compact().gathered == 9


def test_a_broken_file_is_named_and_the_other_days_are_done(folder: Upkeep) -> None:
    _filled(folder)
    folder.overwrite(f"log_files/date={DAY}/run-1.parquet", b"PAR1 no more")

    folder.now = LATER
    report = folder.compact()

    assert report.gathered == 4
    (failed,) = report.failed
    assert (failed["account"], failed["date"]) == ("log_files", f"{DAY}")
    assert "run-1.parquet" in failed["error"]
    assert len(_files(folder, "log_files")) == 6


def test_reports_of_old_runs_leave_the_state_and_stay_in_the_lake(folder: Upkeep) -> None:
    folder.load(record("Call", "", "e"), detect=False)
    for n in range(120):
        at = NOW + timedelta(minutes=n)
        folder.state.runs.finish(folder.state.runs.start("sync", "local", at), None, state="failed", now=at)
    folder.now = NOW + 2 * books.KEPT

    assert folder.compact().runs == 20
    assert len(folder.state.runs.recent(limit=None)) == 101
    assert len(_told(folder)["sync_runs"]) == 1
