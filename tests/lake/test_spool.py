"""Rows in temporary files are the same rows as in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyra_etl.cloudtrail.decode import GROUPED
from kyra_etl.errors import LakeError
from kyra_etl.lake import Rows
from kyra_etl.lake.spool import KEYS, spill


def table(first: int, count: int) -> pa.Table:
    rows = [
        {
            "account": f"{first + n:012d}",
            "event_id": f"e{first + n}",
            "event_name": "CreateUser",
            "event_time": datetime(2026, 3, 4),
            "date": datetime(2026, 3, 4).date(),
            "request_parameters": "x" * (n % 50),
            "_file": first,
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, GROUPED)


def test_rows_are_read_while_the_file_is_lent_to_somebody_who_writes() -> None:
    rows = Rows()
    with rows.lend() as file:
        earlier = spill(file, [table(0, 500)])

    def adopting() -> Iterator[pa.Table]:
        yield table(500, 500)
        rows.adopt(file, earlier)
        yield table(1_000, 500)

    with rows.lend() as again:
        assert again is file, "one file serves many groups of log files, one after the other"
        later = spill(again, adopting())
    rows.adopt(file, later)

    assert pa.concat_tables(rows.segments())["event_id"].to_pylist() == [f"e{n}" for n in range(1_500)]


STEPS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["append", "adopt", "fail"])), max_size=12)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([1, 5_000, 20_000]), st.data())
def test_rows_beyond_the_budget_are_what_they_were(
    steps: list[tuple[int, str]], budget: int, data: st.DataObject
) -> None:
    """A step appends so many rows, adopts them from a file, or fails after it has written them."""
    spooled, held = Rows(budget=budget), Rows(budget=10**9)
    for count, how in steps:
        more = table(held.num_rows, count)
        if how == "fail":
            with spooled.lend() as file, pytest.raises(ZeroDivisionError):
                spill(file, (more if again else 1 / 0 for again in (True, False)))
            continue
        held.append(more)
        if how == "append":
            spooled.append(more)
        else:
            with spooled.lend() as file:
                spooled.adopt(file, spill(file, [more]))

    whole = pa.concat_tables([GROUPED.empty_table(), *held.segments()])
    keep = pa.array(data.draw(st.lists(st.booleans(), min_size=whole.num_rows, max_size=whole.num_rows)), pa.bool_())
    numbers = data.draw(st.sets(st.integers(0, max(0, whole.num_rows - 1)), max_size=whole.num_rows))
    chosen = pa.array(sorted(numbers), pa.int64())

    assert spooled.num_rows == held.num_rows == whole.num_rows
    assert spooled.keys().equals(whole.select(KEYS))
    assert pa.concat_tables([GROUPED.empty_table(), *spooled.segments()]).equals(whole)
    assert pa.concat_tables([GROUPED.empty_table(), *spooled.segments(keep)]).equals(whole.filter(keep))
    if whole.num_rows:
        assert spooled.take(chosen).equals(whole.take(chosen))
    spooled.close()


def test_no_room_for_temporary_files_is_said_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
    rows = Rows(budget=1)

    with pytest.raises(LakeError, match="No space left") as error:
        rows.append(table(0, 50))

    assert "TMPDIR" in error.value.remedy
