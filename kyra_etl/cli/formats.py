"""Rows of an SQL query as a table, CSV, JSON or Parquet, to standard output or into a file.

Nothing is shown before the query has ended, so that one that fails leaves no half a document behind; rows wait in a
temporary file, not in memory.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from kyra_etl.cli.output import count, jsonable, printable, say, table
from kyra_etl.errors import KyraError, UsageError

if TYPE_CHECKING:
    from kyra_etl.lake.query import Analyst, Write

ROOMY = 12
"""Width that every column of a table should have; rows with too many columns for that are shown one below the other."""
_TABLE_ROWS = 100
_IN_MEMORY = 64 * 2**20
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")
"""What a spreadsheet would calculate; the wide characters too, which Excel reads as their narrow ones."""
_INNER = re.compile(r"(?<=[;\t\r\n])(?=[^\S\t\r\n]*[=+\-@＝＋－＠])")
"""Where such a thing stands behind what other spreadsheets take for the end of a cell, quoted or not."""
_SEPARATING = re.compile(r'[,;\t\r\n"]')


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def chosen(format: Format | None, json: bool, output: Path | None) -> Format:
    """The format asked for, by name or by the file's. Raises UsageError when they contradict."""
    if json and format not in (None, Format.json):
        raise UsageError("--json is --format json.", "Give one of them.")
    named = output.suffix[1:].lower() if output else ""
    by_name = Format(named) if named in Format.__members__ else None
    return format or (Format.json if json else by_name or Format.table)


def write(
    analyst: Analyst, sql: str, format: Format, *, output: Path | None, limit: int | None, raw: bool = False
) -> None:
    """Ask, and write the rows. A `limit` of 0 is none; without one, a table has the first of its rows."""
    if format is Format.table and limit is None:
        limit = _TABLE_ROWS
    if format is Format.parquet and output is None and sys.stdout.isatty():
        raise UsageError("A Parquet file is nothing for a terminal.", "Name a file: --output events.parquet")
    most = limit or None
    with _sink(output) as sink:
        if format is Format.parquet:
            told = analyst.parquet(sql, sink, limit=most)
        else:
            told = analyst.stream(sql, _writer(format, sink, raw=raw, shown=output is None), limit=most)
    where = f" in {output}" if output else ""
    say(f"{count(told.rows, 'row')}{where}{'; there are more: --limit 0' if told.more else ''}.")


def write_text(text: str, output: Path | None, *, as_json: bool = False) -> None:
    """Write a text, or the JSON document that holds it as `script`."""
    with _sink(output) as sink:
        sink.write((json.dumps({"script": text}) + "\n" if as_json else text).encode())


def _writer(format: Format, sink: BinaryIO, *, raw: bool, shown: bool) -> Write:
    """What writes rows to an emptied `sink`, from the start each time it is called."""
    body: Callable[[io.TextIOWrapper, Sequence[str], Iterable[Sequence[Any]]], None]
    # Documents are UTF-8; a table that is shown is in what the terminal knows.
    encoding = sys.stdout.encoding if shown and format is Format.table else "utf-8"
    if format is Format.json:
        body = _json
    elif format is Format.csv:
        on_terminal = shown and sys.stdout.isatty()

        def body(text: io.TextIOWrapper, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
            _csv(text, columns, rows, guard=not raw, on_terminal=on_terminal)
    else:
        body = _table

    def write(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        sink.seek(0)
        sink.truncate()
        text = io.TextIOWrapper(sink, encoding, "backslashreplace", newline="", write_through=True)
        try:
            body(text, columns, rows)
        finally:
            text.detach()

    return write


def _table(text: io.TextIOWrapper, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    if all_rows := list(rows):
        text.write(table(columns, all_rows, roomy=ROOMY) + "\n")


def _json(text: io.TextIOWrapper, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """An array of objects, one a line."""
    before = "[\n"
    for row in rows:
        text.write(before + json.dumps(jsonable(dict(zip(columns, row, strict=True))), allow_nan=False))
        before = ",\n"
    text.write("[]\n" if before == "[\n" else "\n]\n")


def _csv(
    text: io.TextIOWrapper, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, guard: bool, on_terminal: bool
) -> None:
    def cell(value: Any) -> str:
        plain = jsonable(value)
        if isinstance(plain, bool):
            plain = "true" if plain else "false"
        elif isinstance(plain, list | dict):
            plain = json.dumps(plain)
        elif guard and isinstance(plain, str) and isinstance(value, str | bytes):
            plain = _INNER.sub("'", f"'{plain}" if _FORMULA.match(plain) else plain)
        shown = "" if plain is None else printable(plain) if on_terminal and isinstance(plain, str) else str(plain)
        # Also what csv.writer leaves bare: some programs take a semicolon or a tab for the end of a cell.
        return '"' + shown.replace('"', '""') + '"' if _SEPARATING.search(shown) else shown

    for row in chain([columns], rows):
        text.write((",".join(map(cell, row)) or '""') + "\n")


@contextmanager
def _sink(output: Path | None) -> Iterator[BinaryIO]:
    """A file to write to and to empty; when all went well, it is shown, or takes the place of `output`."""
    if output is None:
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            yield cast(BinaryIO, spool)
            spool.seek(0)
            _show(cast(BinaryIO, spool))
        return
    draft = output.with_name(f"{output.name}.part")
    try:
        if output.exists() and not output.is_file():
            raise UsageError(f"{output} is not a file.", "Name another --output.")
        with draft.open("w+b") as file:
            yield file
        draft.replace(output)
    except OSError as error:
        raise KyraError(
            f"Could not write {output}: {error.strerror}.", "Mend that, or name another --output."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _show(file: BinaryIO) -> None:
    sys.stdout.flush()
    shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
