"""Syncs, detections, queries and other compactions go on while a partition's files are swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kyra_etl.detect import detect_queued, detect_window
from kyra_etl.errors import LakeError
from kyra_etl.lake import Lake, Rows, guard, lane, taken
from kyra_etl.lake.dedup import Distinct
from kyra_etl.model import DataFile
from kyra_etl.settle import publish, tidy
from tests.detection.making import NOW, SELECT, record, write_detection
from tests.detection.test_detect import DAY as WINDOW
from tests.maintain.making import PARTITION, Upkeep

PAIR = '-- lookback = "1h"\n'
BEFORE = SELECT.replace("'seen' AS summary", "(SELECT count(*) FROM events)::VARCHAR AS summary")


@contextmanager
def once_before(owner: Any, name: str, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first call of a method finds that something has just happened."""
    original, happened = getattr(owner, name), []

    def replacement(*arguments: Any, **options: Any) -> Any:
        if not happened:
            happened.append(True)
            act()
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, replacement)
        yield
    assert happened


def _alerts(house: Upkeep) -> list[tuple[Any, ...]]:
    return [
        (one.alert_id, one.severity, one.event_ids, one.summary, one.historical, one.first_seen, one.last_seen)
        for one in house.state.alerts.list()
    ]


def _queue(house: Upkeep) -> None:
    """Two batches that wait for their detections, between others that do not."""
    write_detection(house.detections, "one_thing", sql=SELECT + "WHERE event_name = 'CreateUser'")
    write_detection(house.detections, "with_lookback", more=PAIR, sql=BEFORE + "WHERE event_name = 'CreateUser'")
    house.load(record("CreateUser", "09:50:00", "old"), detect=False)
    house.load(record("CreateUser", "10:00:00", "a"), record("GetUser", "10:00:01", "b"), waiting=True)
    house.load(record("CreateUser", "10:10:00", "c"), waiting=True)
    house.load(record("CreateUser", "10:20:00", "other"), detect=False)


def _detect(house: Upkeep) -> Any:
    return detect_queued(lake=house.lake, state=house.state, corpus=house.corpus, now=NOW)


@pytest.mark.parametrize("in_memory", [True, False], ids=["in-memory", "from-files"])
def test_queued_detections_find_their_events_after_a_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr(taken, "IN_MEMORY", 0)
    plain, compacted = Upkeep(tmp_path / "plain"), Upkeep(tmp_path / "compacted")
    for house in (plain, compacted):
        _queue(house)
    assert compacted.compact().partitions == 1

    reports = [_detect(house) for house in (plain, compacted)]

    assert _alerts(compacted) == _alerts(plain) != []
    assert {event for alert in _alerts(compacted) for event in alert[2]} >= {"a", "c"}
    assert not {event for alert in compacted.state.alerts.list() for event in alert.event_ids} & {"b"}
    assert [report.events for report in reports] == [3, 3], "new ones, not those that share a file with them"
    assert [report.batches for report in reports] == [2, 2]
    assert compacted.state.queue.depth() == 0
    for house in (plain, compacted):
        house.state.close()


@pytest.mark.parametrize("in_memory", [True, False], ids=["in-memory", "from-files"])
def test_a_compaction_amid_detections_changes_no_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr(taken, "IN_MEMORY", 0)
    plain, swapped, late = (Upkeep(tmp_path / name) for name in ("plain", "swapped", "late"))
    for house in (plain, swapped, late):
        _queue(house)

    _detect(plain)
    with once_before(taken, "reading", swapped.compact, monkeypatch):
        _detect(swapped)
    with once_before(lane.Lane, "_run", late.compact, monkeypatch):
        _detect(late)

    assert _alerts(plain) == _alerts(swapped) == _alerts(late)
    for house in (plain, swapped, late):
        house.state.close()


def test_a_back_test_sees_a_compacted_day_as_before(folder: Upkeep) -> None:
    _queue(folder)
    options = {"lake": folder.lake, "state": folder.state, "corpus": folder.corpus, "now": NOW, "dry_run": True}
    before = detect_window(WINDOW, **options)
    folder.compact()

    after = detect_window(WINDOW, **options)

    assert (after.days, after.findings, after.events) == (before.days, before.findings, before.events)


def test_replaced_files_of_a_queued_batch_are_remembered_while_it_waits(folder: Upkeep) -> None:
    _queue(folder)
    folder.compact()
    paths = folder.state.swaps.retired(NOW.replace(year=2030))
    assert len(paths) == 8

    folder.state.swaps.forget(paths)

    assert len(folder.state.swaps.retired(NOW.replace(year=2030))) == 4
    _detect(folder)
    assert {event for alert in _alerts(folder) for event in alert[2]} == {"a", "c"}
    folder.state.swaps.forget(paths)
    assert folder.state.swaps.retired(NOW.replace(year=2030)) == []


def test_a_load_that_compared_with_replaced_files_compares_again(
    house: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.load(record("Call", "10:00:00", "a"), detect=False)
    house.load(record("Call", "10:00:00", "b"), detect=False)
    compared: list[int] = []
    distinct = Lake.distinct

    def noting(self: Lake, rows: Rows, committed: Mapping[Any, Sequence[DataFile]]) -> Distinct:
        compared.append(sum(map(len, committed.values())))
        return distinct(self, rows, committed)

    monkeypatch.setattr(Lake, "distinct", noting)
    with once_before(Lake, "stage", house.compact, monkeypatch):
        report = house.load(record("Call", "10:00:00", "a"), record("Call", "10:00:00", "c"), detect=False)

    assert compared == [2, 1], "with two files, and once more with the one in their place"
    assert (report.events, report.duplicates) == (1, 1)
    assert house.ids() == house.globbed() == ["a", "b", "c"]


def test_a_load_whose_files_to_compare_with_went_away_compares_again(
    folder: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.load(record("Call", "10:00:00", "a"), detect=False)
    folder.load(record("Call", "10:00:00", "b"), detect=False)

    with once_before(Lake, "distinct", folder.compact, monkeypatch):
        report = folder.load(record("Call", "10:00:00", "a"), record("Call", "10:00:00", "c"), detect=False)

    assert (report.events, report.duplicates) == (1, 1)
    assert folder.ids() == folder.globbed() == ["a", "b", "c"]


def test_a_lost_file_still_stops_a_load(folder: Upkeep) -> None:
    folder.load(record("Call", "10:00:00", "a"), detect=False)
    [file] = folder.state.ledger.data_files("events")
    (folder.folder / "lake" / file.path).unlink()

    with pytest.raises(LakeError, match="Restore it from a backup"):
        folder.load(record("Call", "10:00:00", "b"), detect=False)


def test_what_is_committed_during_a_compaction_stays(folder: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.load(record("Call", "10:00:00", "a"), detect=False)
    folder.load(record("Call", "10:00:00", "b"), detect=False)

    def arrives() -> None:
        folder.load(record("Call", "10:00:00", "c"), detect=False)

    with once_before(folder.state.swaps, "commit", arrives, monkeypatch):
        assert folder.compact().partitions == 1

    assert folder.ids() == folder.globbed() == ["a", "b", "c"]
    assert folder.compact().partitions == 1


def test_of_two_compactions_of_a_partition_one_counts(folder: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.load(record("Call", "10:00:00", "a"), detect=False)
    folder.load(record("Call", "10:00:00", "b"), detect=False)

    def other() -> None:
        folder.state.owners.expire(folder.state.owners.holding())  # as if the first one had slept through its lease
        assert folder.compact().partitions == 1

    with once_before(folder.state.swaps, "commit", other, monkeypatch):
        assert folder.compact().partitions == 0

    assert folder.ids() == folder.globbed() == ["a", "b"]
    assert folder.places() == {"events": 1, "activity": 1, "_staging": 0, "_replaced": 4}


def test_a_second_maintainer_leaves_at_once(folder: Upkeep) -> None:
    assert folder.state.leases.take("maintain", "somebody", 60)

    assert folder.compact().skipped == "another run is maintaining this lake"


def test_a_query_that_began_before_a_swap_is_asked_again(house: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    house.load(record("Call", "10:00:00", "a"), detect=False)
    house.load(record("Call", "10:00:00", "b"), detect=False)
    list_files, calls = house.lake.readable, []

    def stale(files: Any) -> list[str]:
        found = list_files(files)
        if not calls:
            house.compact()
        calls.append(found)
        return found

    monkeypatch.setattr(house.lake, "readable", stale)

    assert house.ids() == ["a", "b"]
    assert [len(found) for found in calls] == [2, 1, 1], "asked, looked whether files have moved, asked again"


def test_a_query_whose_files_are_replaced_as_it_begins_is_asked_again(
    house: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.load(record("Call", "10:00:00", "a"), detect=False)
    house.load(record("Call", "10:00:00", "b"), detect=False)
    complaint, asked = guard.complaint, []

    def meanwhile(connection: Any, sql: str) -> str | None:
        if not asked:
            house.compact()
        asked.append(sql)
        return complaint(connection, sql)

    monkeypatch.setattr(guard, "complaint", meanwhile)

    assert house.ids() == ["a", "b"]
    assert len(asked) == 2


def test_a_query_is_asked_again_for_as_long_as_its_files_keep_moving(
    folder: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaint, wanted = guard.complaint, [f"{number:02}" for number in range(9)]
    arriving = iter(wanted)

    def meanwhile(connection: Any, sql: str) -> str | None:
        for id_ in arriving:
            folder.load(record("Call", "10:00:00", id_), detect=False)
            folder.compact()
            break
        return complaint(connection, sql)

    folder.load(record("Call", "10:00:00", "x"), detect=False)
    monkeypatch.setattr(guard, "complaint", meanwhile)

    assert folder.ids() == [*wanted, "x"]


def test_files_stay_where_readers_found_them_until_the_last_partition_is_compacted(
    house: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id_, day in (("a", 10), ("b", 10), ("c", 11), ("d", 11)):
        house.load(record("Call", "", id_, eventTime=f"2026-01-{day}T10:00:00Z"), detect=False)
    listed = house.lake.readable(house.state.ledger.data_files("events"))
    commit, ids, seen = house.state.swaps.commit, ["a", "b", "c", "d"], []

    def noting(*arguments: Any, **options: Any) -> None:
        commit(*arguments, **options)
        assert house.ids() == house.globbed() == ids
        seen.append(house.places()["_replaced"])
        assert len(listed) == house.places()["events"]

    monkeypatch.setattr(house.state.swaps, "commit", noting)
    house.compact()

    assert seen == [0, 0]
    assert house.ids() == house.globbed() == ids
    assert house.places() == {"events": 2, "activity": 2, "_staging": 0, "_replaced": 8}


def test_a_query_of_a_file_that_is_gone_names_it(house: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    house.load(record("Call", "10:00:00", "a"), detect=False)
    [file] = house.state.ledger.data_files("events")
    complaint = guard.complaint

    def meanwhile(connection: Any, sql: str) -> str | None:
        house.lake.storage.remove(file.path)
        return complaint(connection, sql)

    monkeypatch.setattr(guard, "complaint", meanwhile)

    with pytest.raises(LakeError, match=r"cannot be read.*\.parquet") as told:
        house.ids()
    assert "Traceback" not in str(told.value)


def test_replaced_files_leave_before_others_are_published(house: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    house.load(record("Call", "10:00:00", "a"), detect=False)
    house.load(record("Call", "10:00:00", "b"), detect=False)
    seen: list[int] = []
    for name in ("put_aside", "move"):
        original = getattr(house.lake.storage, name)

        def watched(*arguments: Any, original: Any = original) -> Any:
            if isinstance(arguments[0], str) and not arguments[0].startswith("_staging"):
                return original(*arguments)  # one of many that are put aside at a time
            seen.append(len(house.globbed()))
            assert house.ids() == ["a", "b"], "readers through the ledger lack nothing meanwhile"
            done = original(*arguments)
            seen.append(len(house.globbed()))
            return done

        monkeypatch.setattr(house.lake.storage, name, watched)

    house.compact()

    assert max(seen) == 2
    assert house.globbed() == ["a", "b"]


def test_a_slow_publisher_does_not_bring_a_replaced_file_back(folder: Upkeep) -> None:
    folder.load(record("Call", "10:00:00", "a"), detect=False)
    folder.load(record("Call", "10:00:00", "b"), detect=False)
    files = folder.state.ledger.data_files("events")
    folder.compact()

    publish(files, lake=folder.lake, state=folder.state)  # it listed them before they were published
    assert folder.globbed() == ["a", "b"]

    # On S3 its copy may come late: then the file lies there again, until the next run takes it away.
    one = files[0]
    kept = folder.folder / "lake" / "_replaced" / one.path
    (folder.folder / "lake" / one.path).write_bytes(kept.read_bytes())
    folder.state.ledger.mark_published([one.path])
    tidy(lake=folder.lake, state=folder.state)
    assert folder.globbed() == ["a", "b"]


def test_replaced_files_are_removed_when_their_grace_is_over(house: Upkeep) -> None:
    from dataclasses import replace

    house.load(record("Call", "10:00:00", "a"), detect=False)
    house.load(record("Call", "10:00:00", "b"), detect=False)
    assert house.compact().removed == 0
    assert house.places()["_replaced"] == 4

    house.limits = replace(house.limits, replaced_hours=0)
    house.now = NOW.replace(hour=1)
    assert house.compact().removed == 4

    assert house.places() == {"events": 1, "activity": 1, "_staging": 0, "_replaced": 0}
    assert house.compact().removed == 0
    assert house.ids() == house.globbed() == ["a", "b"]
    assert house.state.swaps.contents(PARTITION, 2**27).activity != []


def test_a_query_that_misses_a_file_on_the_way_asks_again(folder: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB takes a file that went away for a folder then, one that it may not look into."""
    folder.load(record("Call", "10:00:00", "a"), detect=False)
    folder.load(record("Call", "10:00:00", "b"), detect=False)

    with once_before(guard, "complaint", folder.compact, monkeypatch):
        assert folder.ids() == ["a", "b"]


def test_a_query_over_a_file_that_is_gone_for_good_says_so(folder: Upkeep) -> None:
    folder.load(record("Call", "10:00:00", "a"), detect=False)
    [file] = folder.state.ledger.data_files("events")
    (folder.folder / "lake" / file.path).unlink()

    with pytest.raises(LakeError, match=f"cannot be read: .*{file.path}"):
        folder.ids()
