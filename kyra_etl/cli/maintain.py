"""`kyra maintain …`: housekeeping of the lake."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kyra_etl.cli.options import From, Json, To, opened, window
from kyra_etl.cli.output import count, emit, say, show
from kyra_etl.cli.progress import progress

if TYPE_CHECKING:
    from kyra_etl.wiring import Parts

app = typer.Typer(help="Keep the lake fast, small and sound.", no_args_is_help=True)

Accounts = Annotated[
    list[str] | None, typer.Option("--account", metavar="ID", help="Only this account; may be repeated.")
]


@app.command()
def compact(
    start: From = None,
    end: To = None,
    account: Accounts = None,
    json: Json = False,
) -> None:
    """Make few large files, sorted for rare events, of the small ones that finished days are made of.

    Without --to, days that ended compact_after_days ago. Days that were compacted are left alone until late files
    come. Syncs and queries may go on meanwhile.
    """
    from kyra_etl.maintain.compact import compact as run

    with opened() as parts:
        first, last = _days(start, end, parts)
        with progress() as drawn:
            report = run(parts.for_maintenance(drawn), first=first, last=last, accounts=account or None)
    if json:
        emit(report.as_json())
    elif report.skipped:
        show(f"Nothing done: {report.skipped}.")
    else:
        show(
            f"{count(report.partitions, 'partition')} compacted: "
            f"{count(report.files_read, 'file')} became {count(report.files_written, 'file')}."
        )
        show(_totals("before", report.before))
        show(_totals("after", report.after))
    for each in report.failed:
        say(f"{each['account']} {each['date']}: {each['error']}")
    if report.failed:
        raise typer.Exit(1)


def _days(start: str | None, end: str | None, parts: Parts) -> tuple[date | None, date | None]:
    """The first and the last day meant, None where it is open."""
    if start is None and end is None:
        return None, None
    span = window(start or "1990-01-01", end, parts)
    last = (span.end - timedelta(microseconds=1)).date() if end is not None else None
    return (span.start.date() if start is not None else None), last


def _totals(when: str, known: Any) -> str:
    return (
        f"{when:<6}  {count(int(known['files']), 'file')}, {known['bytes'] / 2**20:,.1f} MB, "
        f"{count(int(known['events']), 'event')}, {known['bytes_per_event']:,.1f} bytes an event"
    )
