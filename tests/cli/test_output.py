"""Tables fit 100 columns, nothing a log file holds can steer a terminal, and JSON is JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kyra_etl.cli.output import WIDTH, _wide, cell, facts, jsonable, printable, short_name, span, table

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=300),
    st.lists(st.text(max_size=40), max_size=5),
)


def tables(columns: int) -> st.SearchStrategy[tuple[list[str], list[list[Any]]]]:
    names = st.lists(st.text(max_size=60), min_size=columns, max_size=columns)
    return st.tuples(names, st.lists(st.lists(ANYTHING, min_size=columns, max_size=columns), max_size=3))


@settings(max_examples=50)
@given(st.integers(1, 30).flatmap(tables))
def test_table_fits_whatever_it_holds(given: tuple[list[str], list[list[Any]]]) -> None:
    names, rows = given
    for line in table(names, rows, keep=names[:2]).split("\n"):
        assert _wide(line) <= WIDTH
        assert line == line.rstrip()
        assert "\x1b" not in line


def test_widest_columns_give_way_first() -> None:
    shown = table(("id", "text", "number"), [("abcdef", "x" * 200, 12345), ("b", "y", None)], keep=("id",))

    assert shown.splitlines()[1] == "abcdef  " + "x" * 83 + "…  12,345"
    assert shown.splitlines()[2] == "b       y"


def test_rows_of_many_columns_are_shown_one_below_the_other() -> None:
    names = [f"column_{n}" for n in range(30)]
    shown = table(names, [[None] * 29 + ["last"], ["first"] + [None] * 29])

    assert shown == "column_29  last\n\ncolumn_0  first"


def test_same_table_whatever_the_terminal() -> None:
    assert table(("a", "b"), [(1, "x")]) == "a  b\n1  x"


def test_escape_sequences_are_shown_not_obeyed() -> None:
    hostile = "aws-cli\x1b[2J\x1b]0;owned\x07\r\nnew line\u202eevil\x9b31m\ud800"

    assert printable(hostile) == "aws-cli\\x1b[2J\\x1b]0;owned\\x07\\r\\nnew line\\u202eevil\\x9b31m\\ud800"
    assert "\x1b" not in table(("agent",), [(hostile,)])
    assert "\x1b" not in facts([("agent", hostile)])


def test_wide_characters_count_double() -> None:
    (_, line) = table(("name", "other"), [("漢字" * 60, "x")]).splitlines()

    assert _wide(line) <= WIDTH
    assert line.endswith("…  x")


@given(ANYTHING)
def test_everything_becomes_strict_json(value: Any) -> None:
    json.dumps(jsonable({"x": value}), allow_nan=False)


def test_json_keeps_what_matters() -> None:
    assert jsonable(datetime(2026, 1, 2, 3, 4, 5)) == "2026-01-02T03:04:05Z"
    assert jsonable(datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=UTC)) == "2026-01-02T03:04:05.000060Z"
    assert jsonable((date(2026, 1, 2), 10**20, Decimal("5"), Decimal("0.10"))) == ["2026-01-02", 10**20, 5, "0.10"]
    assert jsonable({1: b"\xff", "set": frozenset("a")}) == {"1": "\\xff", "set": ["a"]}


def test_cells_read_well() -> None:
    assert [cell(v) for v in (None, True, 1234567, datetime(2026, 1, 2), ["a", 1])] == [
        "", "yes", "1,234,567", "2026-01-02 00:00:00", "a, 1",
    ]  # fmt: skip
    assert [span(v) for v in (None, 5, 600, 7_200, 200_000)] == ["", "5 s", "10 min", "2 h", "2 days"]
    assert short_name("arn:aws:iam::111122223333:role/x/reader") == "reader"
    assert short_name("arn:aws:iam::111122223333:root") == "root"
    assert short_name(None) is None
