"""Compaction: fewer files, the same events, whatever happens meanwhile."""

from __future__ import annotations

import errno
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kyra_etl.lake import Lake, Rows
from kyra_etl.lake import compact as compacting
from kyra_etl.lake.dedup import Distinct
from kyra_etl.lake.storage import ParquetFile
from kyra_etl.model import Limits
from kyra_etl.settle import tidy
from tests.detection.making import NOW, record
from tests.maintain.making import DAY, PARTITION, Upkeep

ODD = '{"a": 1.0, "n": 123456789012345678901234567890, "s": "\\u0000 é \\ud83d\\ude00"}'


def _call(batch: int, n: int) -> dict[str, Any]:
    parameters = {"x": [1.0, batch]}
    return record(f"Call{n % 2}", f"10:0{batch}:{n:02}", f"{batch}-{n}", requestParameters=parameters)


def _fill(house: Upkeep, batches: int = 4, each: int = 3) -> list[str]:
    """Batches of events in one partition; their ids."""
    ids = [f"{batch}-{n}" for batch in range(batches) for n in range(each)]
    for batch in range(batches):
        house.load(*(_call(batch, n) for n in range(each)), detect=False)
    return ids


def test_small_files_of_a_day_become_one_of_each_kind(house: Upkeep) -> None:
    ids = _fill(house)
    before, rolled = house.rows(), house.activity()
    assert house.places() == {"events": 4, "activity": 4, "_staging": 0, "_replaced": 0}

    report = house.compact()

    assert (report.partitions, report.files_read, report.files_written, report.failed) == (1, 8, 2, ())
    assert (report.before["files"], report.after["files"]) == (8, 2)
    assert report.before["events"] == report.after["events"] == 12
    assert 0 < report.after["bytes_per_event"] < report.before["bytes_per_event"]
    assert house.places() == {"events": 1, "activity": 1, "_staging": 0, "_replaced": 8}
    assert house.rows() == before, "to the last byte, with source_key, delivered_at and batch_id"
    assert house.activity() == rolled
    assert house.globbed() == house.ids() == ids


def test_running_again_does_nothing_until_a_late_file_comes(house: Upkeep) -> None:
    _fill(house)
    house.compact()
    again = house.compact()
    assert (again.partitions, again.before) == (0, again.after)

    house.load(record("Late", "10:00:00", "late"), _call(0, 0), detect=False)
    assert house.compact().partitions == 1

    assert house.places()["events"] == 1
    assert len(house.ids()) == 13
    assert house.globbed() == house.ids()


def test_texts_survive_byte_by_byte(house: Upkeep) -> None:
    path = house.folder / "odd.json"
    text = (
        '{"Records": ['
        + ",".join(
            f'{{"eventID": "{n}", "eventTime": "2026-01-10T10:00:00Z", "eventName": "Odd", "recipientAccountId": '
            f'"111122223333", "requestParameters": {ODD}, "strange": {ODD}}}'
            for n in range(3)
        )
        + "]}"
    )
    path.write_text(text)
    from kyra_etl.load import load

    load([path], lake=house.lake, state=house.state, corpus=None, limits=Limits(), clock=lambda: NOW)
    house.load(record("Call", "10:00:00", "x"), detect=False)
    before = house.rows()
    house.compact()

    assert house.rows() == before
    assert before[0]["request_parameters"] == ODD


def test_days_that_are_not_over_are_left_alone(folder: Upkeep) -> None:
    _fill(folder, batches=2)
    folder.load(record("New", "10:00:00", "n", eventTime=f"{NOW:%Y-%m-%d}T00:00:00Z"), detect=False)
    folder.load(record("New", "10:00:00", "m", eventTime=f"{NOW:%Y-%m-%d}T00:00:00Z"), detect=False)

    assert folder.compact().partitions == 1
    assert folder.compact(last=NOW.date()).partitions == 1


def test_days_and_accounts_can_be_chosen(folder: Upkeep) -> None:
    other = "999900001111"
    _fill(folder, batches=1)
    folder.load(record("Call", "10:00:00", "o", recipientAccountId=other), detect=False)

    assert folder.compact(first=DAY + timedelta(days=1)).partitions == 0
    assert folder.compact(last=DAY - timedelta(days=1)).partitions == 0
    assert folder.compact(accounts=[other]).partitions == 1
    assert folder.compact(first=DAY, last=DAY).partitions == 1


def test_rows_are_sorted_for_rare_names_and_hold_bloom_filters(house: Upkeep) -> None:
    _fill(house)
    house.compact()
    [file] = house.state.ledger.data_files("events")

    read = pq.ParquetFile(pa.BufferReader(house.content(file.path)))
    names = read.read(["event_name", "event_time"]).to_pylist()
    assert names == sorted(names, key=lambda row: (row["event_name"], row["event_time"]))
    chunk = {read.metadata.row_group(0).column(i).path_in_schema: i for i in range(read.metadata.num_columns)}
    assert "account" not in chunk
    with_bloom = read.metadata.row_group(0).column(chunk["event_id"]).to_dict()
    assert with_bloom["compression"] == "ZSTD"
    assert (file.min_time, file.max_time) == (
        NOW.replace(day=10, hour=10),
        NOW.replace(day=10, hour=10, minute=3, second=2),
    )


@pytest.mark.parametrize("most", [1, 4, 100])
def test_a_day_that_memory_does_not_hold_is_sorted_part_by_part(
    folder: Upkeep, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    ids = _fill(folder, batches=3)
    folder.load(record("", "10:00:00", "nameless"), detect=False)
    before = folder.rows()
    monkeypatch.setattr(compacting, "ROW", folder.limits.compact_memory // most)

    assert folder.compact().failed == ()

    assert folder.rows() == before
    assert folder.ids() == folder.globbed() == sorted([*ids, "nameless"])
    [file] = folder.state.ledger.data_files("events")
    names = pq.read_table(folder.lake.uri(file.path))["event_name"].to_pylist()
    assert names == sorted(names)


def test_what_is_sorted_on_disk_leaves_nothing_behind(house: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    spills: list[str] = []
    scratch = house.lake.storage.scratch

    def noting(path: str) -> str:
        spills.append(scratch(path))
        assert Path(spills[-1]).is_dir()
        return spills[-1]

    monkeypatch.setattr(house.lake.storage, "scratch", noting)
    _fill(house, batches=2)

    assert house.compact().partitions == 1

    assert len(spills) == 1
    assert not Path(spills[0]).exists()


def test_full_files_are_left_alone(house: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "FULL", 2_000)
    monkeypatch.setattr(compacting, "GROUP_ROWS", 2)
    monkeypatch.setattr(compacting, "SLICE", 2)
    ids = _fill(house, batches=3, each=4)

    house.compact()
    files = house.state.ledger.data_files("events")
    full = {file.path for file in files if file.size >= 2_000}
    assert len(full) > 1
    assert len(files) - len(full) <= 1
    assert sum(file.rows for file in files) == 12

    house.load(record("Late", "10:00:00", "late"), detect=False)
    assert house.compact().partitions == 1
    assert full <= {file.path for file in house.state.ledger.data_files("events")}
    assert house.ids() == house.globbed() == sorted([*ids, "late"])
    assert house.compact().partitions == 0


@pytest.mark.parametrize("late", [False, True], ids=["together", "beside-a-full-file"])
def test_events_that_got_in_twice_are_one_again(house: Upkeep, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    def everything(lake: Lake, rows: Rows, committed: Any) -> Distinct:
        return Distinct(pa.repeat(pa.scalar(True), rows.num_rows), pa.repeat(pa.scalar(False), rows.num_rows))

    house.load(record("Call", "10:00:00", "a"), record("Call", "10:00:00", "b"), detect=False)
    truth = house.activity()
    if late:
        house.compact()
        monkeypatch.setattr(compacting, "FULL", 100)
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "distinct", everything)
        house.load(record("Call", "10:00:00", "a"), detect=False)
        house.load(record("Call", "10:00:00", "a", errorCode="Conflict"), detect=False)
    assert house.ids() == ["a", "a", "a", "b"]
    monkeypatch.setattr(compacting, "FULL", 100 if late else 2**27)

    report = house.compact()

    assert report.doubled == 1
    assert house.ids() == house.globbed() == ["a", "a", "b"], "the other content stays"
    assert sum(row[-1] for row in house.activity()) == 3
    assert {row[:-3] for row in house.activity()} >= {row[:-3] for row in truth}


def test_a_broken_file_is_told_and_the_other_partitions_are_compacted(house: Upkeep) -> None:
    ids = _fill(house, batches=2)
    house.load(record("Call", "10:00:00", "o", recipientAccountId="999900001111"), detect=False)
    broken = house.state.ledger.data_files("events", accounts=[PARTITION[0]])[0]
    whole = house.content(broken.path)
    house.overwrite(broken.path, whole[:-20])

    report = house.compact()

    assert report.partitions == 1
    [failed] = report.failed
    assert (failed["account"], failed["date"]) == (PARTITION[0], DAY.isoformat())
    assert broken.path in failed["error"]

    house.overwrite(broken.path, whole)
    assert house.compact().partitions == 1
    assert house.ids() == sorted([*ids, "o"])


def test_a_file_with_other_rows_than_committed_is_not_compacted_away(house: Upkeep) -> None:
    _fill(house, batches=2)
    one, other = house.state.ledger.data_files("events")
    house.overwrite(one.path, house.table(one.path).slice(1))

    [failed] = house.compact().failed

    assert "hold 5 events, and 6 were committed" in failed["error"]
    assert house.state.ledger.data_files("events") == [one, other]


@pytest.mark.parametrize("kind", ["events", "activity"])
def test_a_full_disk_loses_nothing_and_the_next_run_finishes(
    folder: Upkeep, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    ids = _fill(folder)
    files = folder.state.ledger.data_files("events")
    write = pq.ParquetWriter.write_table

    def full(self: pq.ParquetWriter, table: pa.Table) -> None:
        if ("event_id" in table.column_names) == (kind == "events"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, table)

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        [failed] = folder.compact().failed
    assert "No space left on device" in failed["error"]
    assert "Free some space" in failed["error"]
    assert folder.state.ledger.data_files("events") == files
    assert folder.places()["_staging"] == 0
    assert folder.ids() == folder.globbed() == ids

    assert folder.compact().partitions == 1
    assert folder.ids() == folder.globbed() == ids


class Died(BaseException):
    """The process was killed: nothing of its clearing up happens."""


@pytest.mark.parametrize(
    "at",
    [
        "write",
        "commit",
        "committed",
        "put_aside",
        "put aside",
        "mark_retired",
        "move",
        "mark_published",
        "remove_folder",
    ],
)
def test_a_crash_at_any_step_is_completed_by_the_next_run(
    house: Upkeep, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    ids = _fill(house, batches=2)
    storage, swaps, ledger = house.lake.storage, house.state.swaps, house.state.ledger

    def dies(*_: Any, **__: Any) -> None:
        raise Died

    def after(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def replacement(*arguments: Any, **options: Any) -> None:
            original(*arguments, **options)
            raise Died

        patch.setattr(owner, name, replacement)

    with monkeypatch.context() as patch:
        if at == "write":
            after(ParquetFile, "write")
        elif at == "committed":
            after(swaps, "commit")
        elif at == "put aside":
            after(storage, "put_aside")
        else:
            owner = {"commit": swaps, "mark_retired": ledger, "mark_published": ledger}.get(at, storage)
            patch.setattr(owner, at, dies)
        # What a killed process no longer does.
        for owner, name in ((swaps, "abandon"), (house.lake, "discard")):
            if at != "remove_folder":
                patch.setattr(owner, name, dies)
        with pytest.raises(Died):
            _as_killed(house)
        patch.undo()

    _expire(house)
    assert house.ids() == ids
    assert set(house.globbed()) <= set(ids)
    assert len(house.globbed()) <= len(ids)

    tidy(lake=house.lake, state=house.state)
    assert house.ids() == house.globbed() == ids
    house.compact()
    assert house.ids() == house.globbed() == ids
    assert house.places() == {"events": 1, "activity": 1, "_staging": 0, "_replaced": 4}
    assert sum(row[-1] for row in house.activity()) == len(ids)


def _as_killed(house: Upkeep) -> None:
    """Compact without the first calling-off of older swaps, which is a patched one here."""
    from kyra_etl.maintain.compact import _compact, _Tally
    from kyra_etl.maintain.swap import LEASE_SECONDS, Work
    from kyra_etl.ports import Silent

    lease = house.state.leases.take("maintain", "killed", LEASE_SECONDS)
    assert lease is not None
    work = Work(house.lake, house.state, house.limits, lambda: NOW, Silent(), lease)
    _compact(work, PARTITION, _Tally())
    work.move()


def _expire(house: Upkeep) -> None:
    house.state.owners.expire(["killed"])
