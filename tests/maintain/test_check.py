"""Each check finds the fault planted for it, and nothing on a healthy lake."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from kyra_etl import resources
from kyra_etl.cloudtrail.schema import RECORD_COLUMNS
from kyra_etl.errors import LakeError
from kyra_etl.lake import Lake, Rows, checks
from kyra_etl.lake.dedup import Distinct
from kyra_etl.lake.tables import LATEST
from kyra_etl.maintain.check import CheckReport, check
from kyra_etl.maintain.rebuild import rebuild
from tests.detection.making import record
from tests.maintain.making import ACCOUNT, DAY, Upkeep

OTHER = "999900001111"


def _check(house: Upkeep, **bounds: Any) -> CheckReport:
    return check(house.kit, resources.checks_dir(), **bounds)


def _found(house: Upkeep, **bounds: Any) -> dict[str, tuple[dict[str, Any], ...]]:
    return {one.check.id: one.rows for one in _check(house, **bounds).faults if one.count}


def _filled(house: Upkeep) -> None:
    """Two batches in one partition, one of them in another too, compacted or not."""
    other = record("CreateUser", "10:00:00", "a", errorCode="No")
    house.load(record("CreateUser", "10:00:00", "a"), other, detect=False)
    elsewhere = record("GetUser", "11:00:00", "o", recipientAccountId=OTHER)
    house.load(record("GetUser", "11:00:00", "b"), elsewhere, detect=False)


def _file(house: Upkeep, kind: str = "events", n: int = 0) -> str:
    return house.state.ledger.data_files(kind, accounts=[ACCOUNT])[n].path


@pytest.fixture
def filled(house: Upkeep) -> Upkeep:
    _filled(house)
    return house


def test_a_healthy_lake_has_nothing_to_tell(house: Upkeep) -> None:
    assert _check(house).sound, "an empty one"
    _filled(house)
    before = _check(house)
    assert (before.sound, before.files, before.events) == (True, 6, 4)
    house.compact()
    after = _check(house)
    assert (after.sound, after.files, after.events) == (True, 4, 4)
    assert {one.check.id for one in after.faults} == {path.stem for path in resources.checks_dir().glob("*.sql")}


def test_a_lake_with_an_unpublished_batch_is_healthy(folder: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("kyra_etl.batch.publish", lambda *_, **__: None)
        patch.setattr(Lake, "discard", lambda *_: None)
        folder.load(record("CreateUser", "10:00:00", "a"), detect=False)
    assert folder.places()["_staging"] == 2

    assert _check(folder).sound


def cut_off(house: Upkeep) -> None:
    path = _file(house)
    house.overwrite(path, house.content(path)[:-30])


def overwritten(house: Upkeep) -> None:
    house.overwrite(_file(house), b"PAR1 something else PAR1")


def rewritten(house: Upkeep) -> None:
    path = _file(house)
    house.overwrite(path, house.table(path), compression="none")


def removed(house: Upkeep) -> None:
    house.lake.storage.remove(_file(house, "activity"))


def copied(house: Upkeep) -> None:
    path = _file(house)
    house.overwrite(f"{path.rpartition('/')[0]}/copy.parquet", house.content(path))


def shortened(house: Upkeep) -> None:
    path = _file(house)
    house.overwrite(path, house.table(path).slice(1))
    _written_anew(house, path)


def moved(house: Upkeep) -> None:
    """A file says what belongs elsewhere."""
    path = _file(house, n=1)
    rows = house.table(path)
    times = pc.add(rows["event_time"], pa.scalar(timedelta(days=1)))
    house.overwrite(path, rows.set_column(rows.column_names.index("event_time"), "event_time", times))
    _written_anew(house, path)


def doubled(house: Upkeep) -> None:
    """An event got in twice: a fault of ours."""

    def everything(lake: Lake, rows: Rows, committed: Any) -> Distinct:
        return Distinct(pa.repeat(pa.scalar(True), rows.num_rows), pa.repeat(pa.scalar(False), rows.num_rows))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lake, "distinct", everything)
        house.load(record("CreateUser", "10:00:00", "a"), detect=False)


def forgotten(house: Upkeep) -> None:
    """The roll-up lacks an event."""
    path = _file(house, "activity")
    rows = house.table(path)
    count = pc.add(rows["count"], 1)
    house.overwrite(path, rows.set_column(rows.column_names.index("count"), "count", count))
    _written_anew(house, path)


def _written_anew(house: Upkeep, path: str) -> None:
    """As if kyra had written it: of the size the ledger knows."""
    size = len(house.content(path))
    with house.state._database.write() as connection:
        connection.exec_driver_sql(f"UPDATE data_files SET size = {size} WHERE path = '{path}'")


FAULTS: tuple[tuple[Callable[[Upkeep], None], set[str]], ...] = (
    (cut_off, {"damaged_files"}),
    (overwritten, {"damaged_files"}),
    (rewritten, {"damaged_files"}),
    (removed, {"missing_files"}),
    (copied, {"unknown_files"}),
    (shortened, {"row_counts"}),
    (moved, {"misplaced_events", "activity_differs"}),
    (doubled, {"duplicate_events"}),
    (forgotten, {"activity_differs"}),
)


@pytest.mark.parametrize(("plant", "expected"), FAULTS, ids=[plant.__name__ for plant, _ in FAULTS])
def test_each_check_finds_its_fault(filled: Upkeep, plant: Callable[[Upkeep], None], expected: set[str]) -> None:
    plant(filled)

    assert _found(filled).keys() == expected
    assert _found(filled, accounts=[OTHER]).keys() <= {"unknown_files"}, "the rest is as it was"


def test_every_check_has_a_fault_planted_for_it() -> None:
    planted = set().union(*(expected for _, expected in FAULTS))

    assert planted == {path.stem for path in resources.checks_dir().glob("*.sql")}


def test_faults_are_named(filled: Upkeep) -> None:
    cut_off(filled)
    [row] = _found(filled)["damaged_files"]
    assert row["path"] == _file(filled)
    assert "not a parquet file" in row["problem"]


def test_a_double_is_told_with_its_files(filled: Upkeep) -> None:
    doubled(filled)

    [row] = _found(filled)["duplicate_events"]

    assert (row["account"], row["date"], row["event_id"], row["times"]) == (ACCOUNT, DAY, "a", 2)
    assert len(row["files"]) == 2


def test_a_page_that_was_overwritten_is_found_where_a_check_reads_it(filled: Upkeep) -> None:
    path = _file(filled)
    content = bytearray(filled.content(path))
    metadata = pq.read_metadata(pa.BufferReader(bytes(content)))
    columns = (metadata.row_group(0).column(i) for i in range(metadata.num_columns))
    chunk = next(column for column in columns if column.path_in_schema == "event_id")
    content[chunk.data_page_offset : chunk.data_page_offset + 40] = b"\xff" * 40
    filled.overwrite(path, bytes(content))

    [row] = _found(filled)["damaged_files"]

    assert row["path"] == path


def test_a_sync_amid_a_check_is_no_fault(filled: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, calls = filled.lake.storage.sizes, []

    def meanwhile(path: str) -> dict[str, int]:
        if path in LATEST:  # what runs publish is asked for by the compaction
            return sizes(path)
        calls.append(path)
        if len(calls) == 2:
            filled.load(record("CreateUser", "12:00:00", "late"), detect=False)
        if len(calls) == 3:
            filled.compact()
        return sizes(path)

    monkeypatch.setattr(filled.lake.storage, "sizes", meanwhile)

    assert _found(filled) == {}
    assert len(calls) == 4


def test_files_replaced_between_looking_and_reading_are_looked_for_again(
    filled: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = checks._run, []

    def meanwhile(*arguments: Any) -> Any:
        calls.append(True)
        if len(calls) == 1:
            filled.compact()
        return run(*arguments)

    monkeypatch.setattr(checks, "_run", meanwhile)

    assert _found(filled) == {}
    assert len(calls) > 1


def test_rebuild_makes_activity_of_the_events_again(house: Upkeep) -> None:
    _filled(house)
    truth = house.activity()

    assert rebuild(house.kit, accounts=[ACCOUNT]).partitions == 1
    assert house.activity() == truth
    assert rebuild(house.kit).partitions == 2
    assert house.activity() == truth
    assert _check(house).sound
    assert rebuild(house.kit, first=DAY + timedelta(days=1)).partitions == 0


def test_rebuild_mends_what_check_complains_of(filled: Upkeep) -> None:
    truth = filled.activity()
    forgotten(filled)
    filled.lake.storage.remove(_file(filled, "activity", 1))
    assert _found(filled).keys() == {"missing_files"}

    assert rebuild(filled.kit, first=DAY, last=DAY).partitions == 2

    assert _check(filled).sound
    assert filled.activity() == truth


def test_rebuild_tells_of_a_day_it_cannot_read_and_goes_on(filled: Upkeep) -> None:
    overwritten(filled)

    report = rebuild(filled.kit)

    assert report.partitions == 1
    [failed] = report.failed
    assert (failed["account"], failed["date"]) == (ACCOUNT, DAY.isoformat())
    assert filled.state.leases.take("maintain", "me", 60)
    assert rebuild(filled.kit).skipped == "another run is maintaining this lake"


def test_checks_say_what_to_do_and_compare_whole_records() -> None:
    loaded = checks.load(resources.checks_dir())

    for one in loaded:
        assert one.title[0].isupper()
        assert one.about.endswith(".")
        assert one.remedy.endswith(".")
    [doubles] = [one for one in loaded if one.id == "duplicate_events"]
    assert set(RECORD_COLUMNS) <= set(re.findall(r"\w+", doubles.sql))


def test_a_file_that_is_no_check_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.sql").write_text("SELECT 1")

    with pytest.raises(LakeError, match=r"mine\.sql is no check"):
        checks.load(tmp_path)


def test_days_can_be_chosen(filled: Upkeep) -> None:
    doubled(filled)

    assert _found(filled, last=date(2026, 1, 9)) == {}
    assert _found(filled, first=DAY).keys() == {"duplicate_events"}
    assert _check(filled, last=date(2026, 1, 9)).events == 0
