"""What `kyra sql` writes: tables, CSV, JSON and Parquet, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyra_etl import config, wiring
from kyra_etl.cli import formats
from kyra_etl.cli.formats import Format
from kyra_etl.errors import QueryError
from kyra_etl.lake.query import Analyst, Streamed
from tests.cli.conftest import Kyra

ROW = (
    "SELECT 7 AS n, 'x' AS a, 'y' AS a, true AS flag, NULL AS none, [1, 2] AS list, TIMESTAMP '2026-01-10 10:00' AS at"
)


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_csv_is_for_machines(kyra: Kyra) -> None:
    assert cells(kyra("sql", ROW, "--format", "csv").out) == [
        ["n", "a", "a_1", "flag", "none", "list", "at"],
        ["7", "x", "y", "true", "", "[1, 2]", "2026-01-10T10:00:00Z"],
    ]


def test_json_is_one_document_either_way(kyra: Kyra) -> None:
    by_name, by_switch = kyra("sql", ROW, "--format", "json"), kyra("sql", ROW, "--json")

    assert by_name.out == by_switch.out
    assert by_name.json == [
        {"n": 7, "a": "x", "a_1": "y", "flag": True, "none": None, "list": [1, 2], "at": "2026-01-10T10:00:00Z"}
    ]
    assert kyra("sql", "SELECT 1 WHERE false", "--json").json == []
    assert kyra("sql", "SELECT 1", "--json", "--format", "csv").code == 2


def test_parquet_keeps_types_and_makes_names_unique(kyra: Kyra, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    ran = kyra("sql", ROW, "--output", file)

    assert (ran.out, ran.err) == ("", f"1 row in {file}.\n")
    table = pq.read_table(file)
    assert table.column_names == ["n", "a", "a_1", "flag", "none", "list", "at"]
    assert table["list"].to_pylist() == [[1, 2]]
    assert str(table.schema.field("at").type) == "timestamp[us]"


def test_what_parquet_cannot_hold_is_told(kyra: Kyra, tmp_path: Path) -> None:
    ran = kyra("sql", "SELECT INTERVAL 1 DAY AS i", "--output", tmp_path / "x.parquet")

    assert ran.code == 2
    assert "Cast it to a text" in ran.error
    assert list(tmp_path.glob("x*")) == []


def test_file_name_says_the_format_and_everything_is_written(kyra: Kyra, tmp_path: Path) -> None:
    for name in ("all.csv", "all.json", "all.parquet"):
        assert kyra("sql", "FROM range(25000)", "--output", tmp_path / name).code == 0
    assert len(cells((tmp_path / "all.csv").read_text())) == 25_001
    assert len(json.loads((tmp_path / "all.json").read_text())) == 25_000
    assert pq.read_metadata(tmp_path / "all.parquet").num_rows == 25_000

    kyra("sql", "FROM range(150)", "--output", tmp_path / "some.txt")
    assert len((tmp_path / "some.txt").read_text().splitlines()) == 101


@pytest.mark.parametrize("format", Format)
def test_limit_holds_in_every_format(kyra: Kyra, tmp_path: Path, format: str) -> None:
    for limit in (0, 1, 99):
        ran = kyra("sql", "FROM range(99)", "--format", format, "--limit", limit, "--output", tmp_path / "x")
        assert ran.err.startswith(f"{limit or 99} row")
        assert ("there are more" in ran.err) == (limit == 1)


def test_failure_leaves_the_file_as_it_was(kyra: Kyra, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("old")
    query = "SELECT CASE WHEN range = 20000 THEN error('late') ELSE 1 END FROM range(30000)"

    assert "late" in kyra("sql", query, "--output", file).error
    assert "late" in kyra("sql", query, "--json").error
    assert (file.read_text(), list(tmp_path.glob("*.part"))) == ("old", [])
    assert kyra("sql", "SELECT 1", "--output", tmp_path / "no" / "x.csv").error
    assert kyra("sql", "SELECT 1", "--format", "csv", "--output", tmp_path).error


def test_parquet_is_kept_from_a_terminal(kyra: Kyra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    assert "--output" in kyra("sql", "SELECT 1", "--format", "parquet").error


FORMULAS = (
    *("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u3000=1", "＝1", "－1"),
    *("=cmd|'/C calc'!A0", '=HYPERLINK("http://example.com","x")', "-2+3+cmd|' /C calc'!A0"),
)


def test_csv_is_no_formula(kyra: Kyra) -> None:
    query = " UNION ALL ".join("SELECT '{}' AS \"=x\", -1 AS n".format(text.replace("'", "''")) for text in FORMULAS)
    guarded = cells(kyra("sql", query, "--format", "csv").out.replace("\r", "⏎"))
    raw = cells(kyra("sql", query, "--format", "csv", "--raw").out.replace("\r", "⏎"))

    harmless = [f"'{text[0]}'{text[1:]}" if text[0] in "\t\r\n" else f"'{text}" for text in FORMULAS]
    assert [line[0] for line in guarded[1:]] == [text.replace("\r", "⏎") for text in harmless]
    assert [line[0] for line in raw[1:]] == [text.replace("\r", "⏎") for text in FORMULAS]
    assert {line[1] for line in [*guarded[1:], *raw[1:]]} == {"-1"}
    assert (guarded[0][0], raw[0][0]) == ("'=x", "=x")


class Given:
    """An Analyst whose every answer is these rows, asked for twice: as after a compaction between."""

    def __init__(self, rows: list[list[Any]]) -> None:
        self._rows = rows

    def stream(self, sql: str, write: Any, *, limit: int | None = None) -> Streamed:
        write(["a"], self._rows[:1])
        write(["a"], self._rows)
        return Streamed(len(self._rows))


@given(st.lists(st.lists(st.text(), min_size=1, max_size=1)))
def test_any_text_survives_raw_csv_and_never_calculates(rows: list[list[str]]) -> None:
    def written(raw: bool) -> list[list[str]]:
        with pytest.MonkeyPatch.context() as patch:
            out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
            patch.setattr("sys.stdout", out)
            formats.write(Given(rows), "", Format.csv, output=None, limit=None, raw=raw)  # type: ignore[arg-type]
            return list(csv.reader(io.StringIO(out.buffer.getvalue().decode(), newline="")))  # type: ignore[attr-defined]

    assert written(raw=True)[1:] == rows
    for row in written(raw=False)[1:]:
        for part in re.split("[;\t\r\n]", row[0]):
            assert not part.lstrip().startswith(("=", "+", "-", "@"))


def test_cells_hold_together_where_semicolons_or_tabs_part_them(kyra: Kyra) -> None:
    query = (
        "SELECT 'x;=cmd|'' /C calc''!A0' AS a, 'x' || chr(9) || '-1' AS b, 'u;v' AS c, 'plain' AS d, NULL AS e, 1 AS f"
    )

    assert kyra("sql", query, "--format", "csv").out.splitlines()[1] == (
        """"x;'=cmd|' /C calc'!A0","x\t'-1","u;v",plain,,1"""
    )
    assert kyra("sql", query, "--format", "csv", "--raw").out.splitlines()[1] == (
        """"x;=cmd|' /C calc'!A0","x\t-1","u;v",plain,,1"""
    )
    assert kyra("sql", "SELECT NULL AS a", "--format", "csv").out == 'a\n""\n'


def test_escape_sequences_do_not_reach_a_terminal_in_csv(kyra: Kyra, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" in kyra("sql", "SELECT chr(27) || '[2J' AS a", "--format", "csv").out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\x1b" not in kyra("sql", "SELECT chr(27) || '[2J' AS a", "--format", "csv").out


def test_list_of_files_is_read_again_when_one_is_gone(kyra: Kyra, bucket: Path, kyra_home: Path) -> None:
    kyra("load", bucket, "--no-detect")
    (file,) = map(str, kyra_home.glob("lake/events/account=*/date=*/*.parquet"))
    lists = cycle([[file.replace("lake", "elsewhere")], [file], [file]])
    analyst = Analyst(lambda kind, within: next(lists), {}, seconds=10)
    seen: list[list[Any]] = []

    assert analyst.stream("SELECT event_id FROM events", lambda columns, rows: seen.append(list(rows))) == Streamed(3)
    assert analyst.parquet("SELECT event_id FROM events", io.BytesIO()) == Streamed(3)
    assert [len(rows) for rows in seen] == [3]


def test_streaming_refuses_what_a_query_refuses(kyra: Kyra) -> None:
    with wiring.open(config.load()) as parts:
        analyst = wiring.analyst(parts)
        for query in ("SELECT nothing", "COPY (SELECT 1) TO 'x'", "SELECT * FROM '/etc/passwd'"):
            with pytest.raises(QueryError):
                analyst.stream(query, lambda columns, rows: None)
            with pytest.raises(QueryError):
                analyst.parquet(query, io.BytesIO())
