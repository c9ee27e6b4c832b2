"""`kyra search`, `sql` and `shell`: questions to the lake."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kyra_etl.cli.formats import Format
from kyra_etl.cli.options import Json, opened
from kyra_etl.cli.output import GrowingTable, count, emit, printable, say, short_name, show, table
from kyra_etl.errors import UsageError

if TYPE_CHECKING:
    from kyra_etl.search import Search

_COLUMNS = ("event_time", "account", "aws_region", "event_name", "principal", "source_ip_address", "error_code")
_ROWS = 100
_DOCUMENTS = 10_000
_BAR = 50


class Unit(StrEnum):
    hour = "hour"
    day = "day"


SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out files that are gone or not as long as they were written.")
]


def search(
    query: Annotated[list[str], typer.Argument(metavar="QUERY", help="Terms; all must hold.")],
    limit: Annotated[
        int | None, typer.Option(min=0, help=f"At most so many, 0 for all; {_ROWS}, {_DOCUMENTS} with --json.")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="PLACE", help="Go on behind the event a page ended with."),
    ] = None,
    histogram: Annotated[
        Unit | None, typer.Option("--histogram", help="Instead: how many there are in each hour or day.")
    ] = None,
    skip_damaged: SkipDamaged = False,
    json: Json = False,
) -> None:
    """Events that match, the latest first.

    Terms are field:value (event_name:CreateUser, account:111122223333, request_parameters.groupName:web), from: and
    to: (2026-01-31, 3d, 2h), comparisons (event_time:>=2026-01-31T10:30, request_parameters.maxResults:>100), ranges
    (event_time:2026-01-30..2026-01-31), or free text. * stands for anything, - or NOT excludes, OR and brackets work,
    "quotes" hold words together. Fields are the columns of events or AWS's names; case does not matter.
    """
    from kyra_etl import wiring

    most = (_DOCUMENTS if json else _ROWS) if limit is None else limit or None
    with opened() as parts:
        skipped = _say_skipped if skip_damaged else None
        found = wiring.search_of(parts, _text(" ".join(query)), limit=most, after=after, skipped=skipped)
        if histogram is not None:
            _show_histogram(found.histogram(histogram.value), json)
            return
        given = _emit_events(found) if json else _show_events(found)
    say(f"{count(given, 'event')}{f'; there are more: --after {found.place}' if found.more else ''}.")


def _emit_events(found: Search) -> int:
    rows = [row for portion in found for row in portion]
    emit(rows)
    return len(rows)


def _show_events(found: Search) -> int:
    """Rows as they are found: of the columns that tell most, those that are not empty throughout."""
    grown, given, columns = GrowingTable(keep=_COLUMNS[:4]), 0, set[str]()
    for rows in found:
        shown = [{**row, "principal": short_name(row["principal"])} for row in rows]
        columns |= {name for name in _COLUMNS if any(row[name] is not None for row in shown)}
        names = [name for name in _COLUMNS if name in columns]
        show(grown.more(names, [[row[name] for name in names] for row in shown]))
        sys.stdout.flush()
        given += len(rows)
    return given


def _show_histogram(counts: Sequence[tuple[datetime, int]], json: bool) -> None:
    if json:
        emit([{"time": at, "events": number} for at, number in counts])
    elif counts:
        most = max(number for _, number in counts)
        bars = [(at, number, "▇" * max(1, round(_BAR * number / most))) for at, number in counts]
        show(table(("time", "events", ""), bars))
    say(f"{count(sum(number for _, number in counts), 'event')}.")


def sql(
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="One SELECT (DuckDB); - reads it from standard input.")
    ] = None,
    format: Annotated[
        Format | None, typer.Option("--format", help="What to write rows as; the --output's name tells too.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Where to, if not here.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help=f"At most so many rows, 0 for all; {_ROWS} in a table.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="CSV for programs: no ' before what a spreadsheet would calculate.")
    ] = False,
    init: Annotated[
        bool,
        typer.Option("--init", help="Instead: the SQL with which another DuckDB opens the same views."),
    ] = False,
    skip_damaged: SkipDamaged = False,
    json: Json = False,
) -> None:
    """One SELECT over the lake and the records of our own; read-only.

    Views: events, activity, alerts, alert_events, log_files, sync_runs, status, trails, accounts. `DESCRIBE events`
    lists columns. Nothing else can be reached: no file, no setting, no network. `kyra shell` lists, by .macros, the
    questions that have a name: timeline_of('alice').
    """
    from kyra_etl import wiring
    from kyra_etl.cli import formats

    if init != (query is None):
        raise UsageError("Give a QUERY, or --init.", 'For example: kyra sql "SELECT count(*) FROM events"')
    if query is None:
        with opened() as parts:
            formats.write_text(wiring.init_script(parts), output, as_json=json)
        return
    chosen = formats.chosen(format, json, output)
    text = sys.stdin.read() if query == "-" else _text(query)
    with opened() as parts:
        analyst = wiring.analyst(parts, skipped=_say_skipped if skip_damaged else None)
        formats.write(analyst, text, chosen, output=output, limit=limit, raw=raw)


def shell() -> None:
    """Ask in SQL, one SELECT after another, each ended by a semicolon; .help tells more."""
    from kyra_etl import wiring
    from kyra_etl.cli.shell import Shell

    with opened() as parts:
        Shell(wiring.analyst(parts), parts.config.home / "history").run()


def _say_skipped(files: Sequence[str]) -> None:
    for file in files:
        say(printable(f"Left out {file}."))


def _text(argument: str) -> str:
    """An argument as UTF-8, whatever Python took the locale for."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
