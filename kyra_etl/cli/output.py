"""What a verb prints: data on standard output, talk on standard error.

Everything shown to a person passes `printable`: log files come from outside, and a user agent may hold the escape
sequences of a terminal.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from unicodedata import combining, east_asian_width

WIDTH = 100
"""Columns of a table at least, and exactly where nobody looks: the same when piped."""

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_NARROWEST = 4


def emit(document: Any) -> None:
    """The one JSON document of a verb."""
    sys.stdout.write(json.dumps(jsonable(document), indent=2, allow_nan=False) + "\n")


def show(text: str = "") -> None:
    """A line (or several) of what was asked for."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """A line beside it."""
    sys.stderr.write(text + "\n")


def jsonable(value: Any) -> Any:
    """A value as JSON knows it: times in ISO 8601 with a Z, bytes and others as text, no NaN."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return (value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value).isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Sequence | set | frozenset):
        return [jsonable(item) for item in value]
    return str(value)


def printable(text: str) -> str:
    """The text on one line, without anything a terminal would obey."""
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


def cell(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple):
        return printable(", ".join(map(cell, value)))
    return printable(str(jsonable(value)))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, keep: Collection[str] = (), roomy: int = 0) -> str:
    """Rows under their headings, as wide as there is room: the widest columns give way first, those in `keep` last.

    Rows with more columns than fit are shown one below the other, without the empty values. With `roomy` they do not
    fit either when long values would be cut to less than that.
    """
    cells = [[cell(value) for value in row] for row in rows]
    heads = [printable(name) for name in columns]
    wide = _natural([heads, *cells])
    least = [max(_NARROWEST, min(_wide(head), 10), min(each, roomy)) for head, each in zip(heads, wide, strict=True)]
    if sum(least) + 2 * (len(least) - 1) > room():
        return _records(heads, cells)
    widths = _fitted(wide, [name in keep for name in columns])
    right = [bool(rows) and all(_is_number(row[n]) for row in rows) for n in range(len(columns))]
    return "\n".join(_line(line, widths, right) for line in [heads, *cells])


class GrowingTable:
    """A table whose rows come in portions; the headings come again when later rows would not fit below the first."""

    def __init__(self, keep: Collection[str] = ()) -> None:
        self._keep = keep
        self._columns: Sequence[str] = ()
        self._widths: Sequence[int] = ()

    def more(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
        """The lines to show for further rows, of texts and times."""
        cells = [[cell(value) for value in row] for row in rows]
        widths = _fitted(_natural([list(columns), *cells]), [name in self._keep for name in columns])
        fits = columns == self._columns and all(new <= old for new, old in zip(widths, self._widths, strict=True))
        lines = cells if fits else [columns, *cells]
        if not fits:
            self._columns, self._widths = columns, widths
        return "\n".join(_line(line, self._widths, [False] * len(columns)) for line in lines)


def facts(pairs: Sequence[tuple[str, Any]]) -> str:
    """Names and values, a line each; empty values are left out."""
    shown = [(cut(name, WIDTH // 2), text) for name, value in pairs if (text := cell(value).strip())]
    wide = max((_wide(name) for name, _ in shown), default=0)
    return "\n".join(
        f"{_padded(name, wide, right=False)}  {cut(text, WIDTH - wide - 2)}".rstrip() for name, text in shown
    )


def short_name(arn: str | None) -> str | None:
    """The part of an ARN that tells one from another: arn:aws:iam::111122223333:role/x/reader → reader."""
    return arn.rsplit(":", 1)[-1].rsplit("/", 1)[-1] if arn and arn.startswith("arn:") else arn


def count(number: int, noun: str) -> str:
    """`1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(seconds: float | None) -> str:
    """A length of time in the unit a person would choose."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{timedelta(seconds=seconds).days} days"


def room() -> int:
    """How wide a table may be."""
    return max(WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDTH


def _records(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Each row as names and values, whole, a line or more each."""
    blocks = []
    for row in cells:
        shown = [(cut(head, room() // 2), text) for head, text in zip(heads, row, strict=True) if text.strip()]
        indent = max((_wide(head) for head, _ in shown), default=0) + 2
        lines = []
        for head, text in shown:
            for line in _wrapped(text, room() - indent):
                lines.append((_padded(head, indent, right=False) + line).rstrip())
                head = ""
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _wrapped(text: str, width: int) -> Iterator[str]:
    """The text in lines of at most `width`, broken at blanks where there are some."""
    while text:
        end = min(len(text), width)
        while _wide(text[:end]) > width:
            end -= 1
        blank = text.rfind(" ", width // 2, end) if end < len(text) else -1
        end = blank + 1 if blank > 0 else end
        yield text[:end]
        text = text[end:]


def _fitted(wide: Sequence[int], kept: Sequence[bool]) -> list[int]:
    widths = list(wide)
    free = room() - 2 * (len(widths) - 1)
    while sum(widths) > free:
        order = [(not keep, width) for keep, width in zip(kept, widths, strict=True)]
        usable = [rank if rank[1] > _NARROWEST else (False, 0) for rank in order]
        widest = usable.index(max(usable))
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))


def _natural(lines: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column would like to be."""
    return [max(map(_wide, column)) for column in zip(*lines, strict=True)]


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    return "  ".join(
        _padded(text, width, right=r) for text, width, r in zip(cells, widths, right, strict=True)
    ).rstrip()


def _padded(text: str, width: int, *, right: bool) -> str:
    text = cut(text, width)
    space = " " * (width - _wide(text))
    return space + text if right else text + space


def cut(text: str, width: int) -> str:
    """The text, or as much of it as `width` columns hold."""
    if _wide(text) <= width:
        return text
    while text and _wide(text) > width - 1:
        text = text[: min(len(text) - 1, width - 1)]
    return text + "…"


def _wide(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
