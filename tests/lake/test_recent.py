"""Copies of recent events and the files left to read are together the events that were asked for, each once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyra_etl.cloudtrail.schema import EVENTS
from kyra_etl.errors import LakeError
from kyra_etl.lake import Lake, open_lake, recent
from kyra_etl.lake.views import reading
from kyra_etl.model import DataFile

NOON = datetime(2026, 3, 1, 12)
ACCOUNTS = ("012345678901", "111122223333", "222233334444")
MINUTE = timedelta(minutes=1)
AGES = timedelta(hours=8)


def event(account: str, at: datetime, number: int) -> dict[str, Any]:
    return {"account": account, "date": at.date(), "event_time": at, "event_id": f"{account}-{at}-{number}"}


def write(lake: Lake, account: str, at: datetime, name: str) -> tuple[DataFile, pa.Table]:
    """A published file of three events, a minute apart, and its rows."""
    path = f"events/account={account}/date={at.date()}/{name}.parquet"
    rows = pa.Table.from_pylist([event(account, at + n * MINUTE, n) for n in range(3)], EVENTS)
    size = lake.storage.write_parquet(path, rows.drop_columns(["account", "date"]))
    return DataFile("events", path, path, 3, size, account, at.date(), at, at + 2 * MINUTE, published=True), rows


def run(lake: Lake, at: datetime, name: str, accounts: Sequence[str] = ACCOUNTS) -> list[DataFile]:
    """What a run takes as new: a file an account; kept once more."""
    written = [write(lake, account, at, name) for account in accounts]
    lake.keep_recent([file for file, _ in written], pa.concat_tables(rows for _, rows in written))
    return [file for file, _ in written]


def near(files: Sequence[DataFile], accounts: Collection[str], first: datetime, last: datetime) -> list[DataFile]:
    return [f for f in files if f.account in accounts and f.min_time <= last and f.max_time >= first]  # type: ignore[operator]


def asked(
    lake: Lake, files: Sequence[DataFile], accounts: Collection[str], first: datetime, last: datetime
) -> tuple[list[str], int]:
    """The ids of the events of that time, and how many files were read where they lie."""
    wanted = near(files, accounts, first, last)
    copies, stood_for = lake.kept_recent(wanted, accounts, first, last)
    others = [file for file in wanted if file.path not in stood_for]
    connection = duckdb.connect()
    lake.register(connection)
    source = reading(EVENTS, lake.readable(others))
    for uri in copies:
        source += f" UNION ALL BY NAME SELECT * FROM read_parquet('{uri}', hive_partitioning = false)"
    rows = connection.execute(
        f"SELECT event_id FROM ({source}) WHERE event_time BETWEEN ? AND ? AND list_contains(?, account) ORDER BY ALL",
        [first, last, list(accounts)],
    ).fetchall()
    return [id_ for (id_,) in rows], len(others)


def expected(files: Sequence[DataFile], accounts: Collection[str], first: datetime, last: datetime) -> list[str]:
    rows = [
        event(f.account or "", f.min_time + n * MINUTE, n)  # type: ignore[operator]
        for f in near(files, accounts, first, last)
        for n in range(3)
    ]
    return sorted(row["event_id"] for row in rows if first <= row["event_time"] <= last)


def copies(lake: Lake) -> list[str]:
    return sorted(lake.storage.sizes("_gathered/events"))


def test_a_run_s_files_are_read_as_one(lake: Lake) -> None:
    files = [file for n in range(6) for file in run(lake, NOON + 5 * n * MINUTE, f"batch-{n}")]
    first, last = NOON - AGES, NOON + AGES

    assert asked(lake, files, ACCOUNTS, first, last) == (expected(files, ACCOUNTS, first, last), 0)
    assert asked(lake, files, ACCOUNTS[:1], first, last) == (expected(files, ACCOUNTS[:1], first, last), 0)
    assert asked(lake, files, ACCOUNTS, NOON + 6 * MINUTE, NOON + 11 * MINUTE)[1] == 0
    assert not lake.storage.sizes("_staging")


def test_a_copy_of_a_file_that_was_replaced_is_passed_over(lake: Lake) -> None:
    files = [*run(lake, NOON, "batch-1"), *run(lake, NOON + 5 * MINUTE, "batch-2")]
    replaced, _ = write(lake, ACCOUNTS[0], NOON, "compact-1")
    now = [replaced, *files[1:]]
    first, last = NOON - AGES, NOON + AGES

    assert asked(lake, now, ACCOUNTS, first, last) == (expected(now, ACCOUNTS, first, last), 3)
    # Of the others alone, the copy is as good as ever.
    assert asked(lake, now, ACCOUNTS[1:], first, last) == (expected(now, ACCOUNTS[1:], first, last), 0)


def test_a_run_that_is_run_again_counts_once(lake: Lake) -> None:
    files = run(lake, NOON, "batch-1")
    again = [write(lake, file.account or "", NOON, "batch-1")[1] for file in files]
    lake.keep_recent(files, pa.concat_tables(again))
    lake.keep_recent(files[:2], pa.concat_tables(again[:2]))

    assert len(copies(lake)) == 2
    assert asked(lake, files, ACCOUNTS, NOON, NOON + AGES)[0] == expected(files, ACCOUNTS, NOON, NOON + AGES)


def test_a_copy_is_never_written_over_while_somebody_may_read_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [write(lake, account, NOON, "batch-1") for account in ACCOUNTS]
    files = [file for file, _ in written]
    one, other = (pa.concat_tables(rows for _, rows in order) for order in (written, written[::-1]))
    lake.keep_recent(files, one)
    (path,) = copies(lake)
    filesystem, root = lake.storage.filesystem()

    def held(path: str) -> list[str]:
        return pq.read_table(f"{root}/{path}", filesystem=filesystem)["event_id"].to_pylist()  # type: ignore[no-any-return]

    lake.keep_recent(files, other)
    assert copies(lake) == [path]
    with monkeypatch.context() as patch:  # as for two runs at the same moment
        patch.setattr(lake.storage, "sizes", lambda _: {})
        lake.keep_recent(files, other)

    assert held(path) == one["event_id"].to_pylist()
    assert len(copies(lake)) == 2
    assert asked(lake, files, ACCOUNTS, NOON, NOON + AGES) == (expected(files, ACCOUNTS, NOON, NOON + AGES), 0)


def test_a_copy_that_lacks_some_or_holds_more_is_passed_over(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    files = run(lake, NOON, "batch-1")
    (path,) = (tmp_path / copy for copy in copies(lake))
    rows = pq.read_table(path)
    for others in (rows.slice(1), pa.concat_tables([rows, rows.slice(0, 1)])):
        pq.write_table(others, path, store_schema=True)

        assert asked(lake, files, ACCOUNTS, NOON, NOON + AGES) == (expected(files, ACCOUNTS, NOON, NOON + AGES), 3)


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_times_of_less_than_seconds_are_compared_as_times(lake: Lake, off: int) -> None:
    moment = timedelta(microseconds=1)
    files = run(lake, NOON + 500_000 * moment, "batch-1") + run(lake, NOON, "batch-2")
    begins, ends = files[0].min_time, files[0].max_time
    assert begins
    assert ends

    for first, last in ((begins - AGES, begins + off * moment), (ends + off * moment, ends + AGES)):
        assert asked(lake, files, ACCOUNTS, first, last) == (expected(files, ACCOUNTS, first, last), 0)


def test_copies_of_past_hours_go_and_a_backfill_leaves_none(lake: Lake) -> None:
    run(lake, NOON, "batch-1")
    run(lake, NOON + recent.KEPT, "batch-2")
    assert len(copies(lake)) == 2
    run(lake, NOON - timedelta(days=30), "history-1")
    assert len(copies(lake)) == 2

    run(lake, NOON + recent.KEPT + timedelta(minutes=3), "batch-3")

    assert len(copies(lake)) == 2
    assert [name.split("-")[1] for name in copies(lake)] == ["20260301T160200", "20260301T160500"]


def test_one_file_or_very_many_rows_are_not_kept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run(lake, NOON, "batch-1", ACCOUNTS[:1])
    monkeypatch.setattr(recent, "MOST", 8)
    run(lake, NOON, "batch-2")

    assert copies(lake) == []


def test_what_cannot_be_kept_is_read_where_it_lies(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [write(lake, account, NOON, "batch-1") for account in ACCOUNTS]
    files = [file for file, _ in written]

    def full(*_: object, **__: object) -> int:
        raise LakeError("Could not write: No space left.", "Free some.")

    monkeypatch.setattr(lake.storage, "write_parquet", full)
    lake.keep_recent(files, pa.concat_tables(rows for _, rows in written))

    assert asked(lake, files, ACCOUNTS, NOON, NOON + AGES) == (expected(files, ACCOUNTS, NOON, NOON + AGES), 3)


def test_a_copy_that_is_broken_or_of_another_version_is_passed_over(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    files = run(lake, NOON, "batch-1")
    whole = expected(files, ACCOUNTS, NOON, NOON + AGES)
    (path,) = (tmp_path / copy for copy in copies(lake))
    good, rows = path.read_bytes(), pq.read_table(path)
    (path.parent / "notes.txt").write_text("not ours")
    assert asked(lake, files, ACCOUNTS, NOON, NOON + AGES) == (whole, 0)
    pq.write_table(rows.drop_columns(["user_agent"]), path, store_schema=True)
    assert asked(lake, files, ACCOUNTS, NOON, NOON + AGES) == (whole, 3)
    for broken in (b"", b"PAR1 and nothing else", good[:-200]):
        path.write_bytes(broken)
        assert asked(lake, files, ACCOUNTS, NOON, NOON + AGES) == (whole, 3)


def test_what_retention_takes_away_is_not_left_in_a_copy(lake: Lake) -> None:
    run(lake, NOON, "batch-1")
    lake.forget_gathered({})
    lake.forget_gathered({ACCOUNTS[0]: NOON.date()})
    assert len(copies(lake)) == 1

    lake.forget_gathered({ACCOUNTS[0]: NOON.date() + timedelta(days=1)})

    assert copies(lake) == []


RUNS = st.lists(
    st.tuples(st.integers(-300, 300), st.sets(st.sampled_from(ACCOUNTS), min_size=1), st.booleans()), max_size=6
)


@settings(max_examples=25)
@given(
    runs=RUNS,
    asking=st.sets(st.sampled_from(ACCOUNTS), min_size=1),
    at=st.integers(-300, 300),
    wide=st.integers(0, 200),
)
def test_whatever_ran_before_the_events_are_those_of_the_files(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[tuple[int, set[str], bool]],
    asking: set[str],
    at: int,
    wide: int,
) -> None:
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    files: list[DataFile] = []
    for number, (minutes, accounts, replaced) in enumerate(runs):
        taken = run(lake, NOON + minutes * MINUTE, f"batch-{number}", sorted(accounts))
        if replaced:
            file = taken.pop()
            assert file.min_time
            taken.append(write(lake, file.account or "", file.min_time, f"compact-{number}")[0])
        files += taken
    first, last = NOON + (at - wide) * MINUTE, NOON + (at + wide) * MINUTE

    assert asked(lake, files, asking, first, last)[0] == expected(files, asking, first, last)
