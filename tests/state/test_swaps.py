"""Swapping data files in the books: wholly or not at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kyra_etl.errors import CommitRefused, VersionMismatch
from kyra_etl.model import DataFile
from kyra_etl.state import State
from tests.state.making import DAY, NOW, committing, file, observed, planned, sync

PARTITION = ("111111111111", DAY)


def _made(swap_id: str, n: int = 0, size: int = 50, kind: str = "events", **more: object) -> DataFile:
    name = f"{kind}/account=111111111111/date=2026-03-04/{swap_id}-{n}.parquet"
    made = DataFile(kind, name, f"_staging/{swap_id}-1/{name}", 6, size, *PARTITION)  # type: ignore[arg-type]
    return replace(made, **more)  # type: ignore[arg-type]


def _two(state: State) -> list[DataFile]:
    """Two published files of one partition, each of a batch."""
    for n in (1, 2):
        sync(state, [file(n)])
    files = state.ledger.unpublished()
    state.ledger.mark_published([one.path for one in files])
    return state.ledger.data_files("events")


def _swap(state: State, replaced: list[DataFile], **more: object) -> DataFile:
    swap_id = state.swaps.plan("compact", *PARTITION, NOW)
    made = _made(swap_id, **more)  # type: ignore[arg-type]
    state.swaps.commit(swap_id, replaced=replaced, made=[made], now=NOW)
    return made


def test_a_swap_lists_the_new_files_and_no_longer_the_old(state: State) -> None:
    old = _two(state)
    before = state.ledger.versions([PARTITION])[PARTITION]

    made = _swap(state, old)

    assert state.ledger.data_files("events") == [made]
    assert state.ledger.unsettled() == (old, [made])
    assert state.ledger.versions([PARTITION])[PARTITION] == before + 1


def test_a_commit_that_compared_with_the_old_files_compares_again(state: State) -> None:
    old = _two(state)
    batch = planned(state, observed(state, [file(3)]))
    commit = committing(state, batch)
    _swap(state, old)

    with pytest.raises(VersionMismatch):
        state.ledger.commit(commit, NOW)


def test_files_are_replaced_once(state: State) -> None:
    old = _two(state)
    late = state.swaps.plan("compact", *PARTITION, NOW)
    made = _swap(state, old[:1])

    for replaced, read in ((old, []), (old[1:], old[:1])):
        with pytest.raises(CommitRefused, match="replaced by somebody else"):
            state.swaps.commit(late, replaced=replaced, made=[_made(late)], read=read, now=NOW)

    assert set(state.ledger.data_files("events")) == {made, old[1]}
    assert state.swaps.planned() == {late}, "what was refused changed nothing"


def test_a_swap_that_was_called_off_cannot_be_committed(state: State) -> None:
    old = _two(state)
    one, other = (state.swaps.plan("rebuild", *PARTITION, NOW) for _ in range(2))
    state.swaps.abandon(one, NOW)
    assert state.swaps.planned() == {other}
    state.swaps.abandon(None, NOW)

    for swap_id in (one, other):
        with pytest.raises(CommitRefused, match="called off"):
            state.swaps.commit(swap_id, replaced=old, made=[_made(swap_id)], now=NOW)
    assert state.ledger.data_files("events") == old


def test_files_of_a_batch_are_those_it_is_in_now(state: State) -> None:
    first, second = (sync(state, [file(n)]) for n in (1, 2))
    state.ledger.mark_published([one.path for one in state.ledger.unpublished()])
    old = state.ledger.data_files("events")
    own, rows = state.ledger.files_of_batch(first.batch_id)
    assert (own, rows) == ([one for one in old if first.batch_id in one.path], 3)

    made = _swap(state, old)
    third = sync(state, [file(3)])

    assert state.ledger.files_of_batch(first.batch_id) == ([made], 3)
    assert state.ledger.files_of_batch(second.batch_id) == ([made], 3)
    assert made not in state.ledger.files_of_batch(third.batch_id)[0]


def test_a_partition_is_crowded_until_it_is_compacted(state: State) -> None:
    def crowded(full: int = 100, **bounds: object) -> list[tuple[str, object]]:
        chosen = {"first": None, "last": None, "accounts": None} | bounds
        return state.swaps.crowded(full, **chosen)  # type: ignore[arg-type]

    old = _two(state)
    assert crowded() == [PARTITION]
    assert crowded(last=DAY - timedelta(days=1)) == crowded(first=DAY + timedelta(days=1)) == []
    assert crowded(accounts=["999999999999"]) == []
    assert crowded(first=DAY, last=DAY, accounts=[PARTITION[0]]) == [PARTITION]

    made = _swap(state, old)
    state.ledger.mark_published([made.path])
    assert crowded() == []
    second = _swap(state, [], n=1)
    state.ledger.mark_published([second.path])
    assert crowded() == [PARTITION], "two small ones"
    assert crowded(full=50) == [], "two full ones"

    sync(state, [file(5)])
    assert crowded(full=50) == [], "not before it is published"
    state.ledger.mark_published([one.path for one in state.ledger.unpublished()])
    assert crowded(full=50) == [PARTITION]
    held = state.swaps.contents(PARTITION, 50)
    assert len(held.small) == 1
    assert {one.path for one in held.full} == {made.path, second.path}


def test_totals_count_live_files_alone(state: State) -> None:
    old = _two(state)
    assert state.swaps.totals() == {
        "files": 2,
        "bytes": 198,
        "events": 6,
        "event_files": 2,
        "event_bytes": 198,
    }
    _swap(state, old)

    assert state.swaps.totals()["files"] == 1
    assert state.swaps.totals()["event_bytes"] == 50


def test_replaced_files_are_remembered_until_forgotten(state: State) -> None:
    old = _two(state)
    _swap(state, old)
    paths = [one.path for one in old]
    later = NOW + timedelta(days=1)
    assert state.swaps.retired(later) == [], "they are among the others still"

    state.ledger.mark_retired(paths)
    assert state.swaps.retired(NOW) == []
    assert state.swaps.retired(later) == paths
    state.swaps.forget(paths)
    assert state.swaps.retired(later) == paths, "batches that wait for detections are found by them"

    state.queue.clear([(entry.batch_id, entry.detection) for entry in state.queue.pending()])
    state.swaps.forget([*paths, *(one.path for one in state.ledger.data_files("events"))])
    assert state.swaps.retired(later) == []
    assert len(state.ledger.data_files("events")) == 1, "what is live stays"
