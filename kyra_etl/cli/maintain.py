"""`kyra maintain …`: housekeeping of the lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kyra_etl.cli.options import From, Json, To, opened, window
from kyra_etl.cli.output import cell, count, emit, printable, say, show, table
from kyra_etl.cli.progress import progress

if TYPE_CHECKING:
    from kyra_etl.wiring import Parts

app = typer.Typer(help="Keep the lake fast, small and sound.", no_args_is_help=True)

_SHOWN = 10

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
    come. Syncs and queries may go on meanwhile. What runs published about themselves becomes one file a day, and
    reports of runs leave the state after 35 days.
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
        if report.gathered or report.runs:
            show(
                f"{count(report.gathered, 'published file')} of runs went into one a day, "
                f"{count(report.runs, 'old run')} left the state."
            )
        show(_totals("before", report.before))
        show(_totals("after", report.after))
    _tell_failed(report.failed)


@app.command()
def retain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    account: Accounts = None,
    json: Json = False,
) -> None:
    """Take days out of the lake that are older than retain_days, or than [retain] of kyra.toml says of their account.

    What arrives later and is older is counted as expired. The files are removed for good after replaced_hours. Log
    files of such days leave the ledger once they are listed no more, but for a fingerprint that keeps them known.
    """
    from kyra_etl.maintain.retain import retain as run

    with opened() as parts, progress() as drawn:
        report = run(parts.for_maintenance(drawn), accounts=account or None, dry_run=dry_run)
    if json:
        emit(report.as_json())
        return
    if report.skipped:
        show(f"Nothing done: {report.skipped}.")
        return
    if report.accounts:
        columns = ("account", "kept from", "days", "files", "MB", "events")
        rows = [
            (one.account, one.horizon, one.partitions, one.files, round(one.bytes / 2**20, 1), one.events)
            for one in report.accounts
        ]
        show(table(columns, rows))
    if not report.horizons:
        show("Events are kept for ever: neither retain_days nor [retain] is set for an account of this lake.")
        return
    what = f"{count(report.events, 'event')} in {count(report.partitions, 'day')}"
    show(f"{what} would go." if dry_run else f"{what} removed.")
    if report.log_files:
        files = count(report.log_files, "log file")
        show(f"{files} would leave the ledger." if dry_run else f"{files} left the ledger; they stay known as loaded.")


@app.command()
def check(
    start: From = None,
    end: To = None,
    account: Accounts = None,
    json: Json = False,
) -> None:
    """Compare the lake with the ledger and with itself; what is wrong, and what to do about it.

    Files that are missing, unknown, broken or of other rows; events that are there twice or misplaced; activity that
    differs from the events. With days or accounts, rows are read of those alone. Nothing is changed.
    """
    from kyra_etl import resources
    from kyra_etl.maintain.check import check as run

    with opened() as parts:
        first, last = _days(start, end, parts)
        with progress() as drawn:
            kit = parts.for_maintenance(drawn)
            report = run(kit, resources.checks_dir(), first=first, last=last, accounts=account or None)
    if json:
        emit(report.as_json())
    for one in report.faults:
        if one.count and not json:
            show(f"{one.check.title}: {one.count:,}")
            for row in one.rows[:_SHOWN]:
                show(f"  {'  '.join(cell(value) for value in row.values())}")
            if one.count > _SHOWN:
                show(f"  and {one.count - _SHOWN:,} more: --json")
            show(f"  {one.check.remedy}")
    looked_at = f"{count(report.files, 'file')} of {count(report.events, 'event')} looked at"
    (say if json else show)(f"{looked_at}{': all is well' if report.sound else ''}.")
    raise typer.Exit(0 if report.sound else 1)


@app.command()
def rebuild(
    start: From = None,
    end: To = None,
    account: Accounts = None,
    json: Json = False,
) -> None:
    """Make `activity` anew from the events: for days that `kyra maintain check` names."""
    from kyra_etl.maintain.rebuild import rebuild as run

    with opened() as parts:
        first, last = _days(start, end, parts)
        with progress() as drawn:
            report = run(parts.for_maintenance(drawn), first=first, last=last, accounts=account or None)
    if json:
        emit(report.as_json())
    elif report.skipped:
        show(f"Nothing done: {report.skipped}.")
    else:
        show(f"Activity of {count(report.partitions, 'partition')} rebuilt.")
    _tell_failed(report.failed)


@app.command()
def restore(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be moved.")] = False,
    json: Json = False,
) -> None:
    """After a backup was put back: fit the lake's files to what the state lists.

    Brings files back from _replaced/ that a compaction took away since, and moves files that the state does not know to
    _unknown/. Removes nothing. The next sync loads from the bucket what the state has not seen.
    """
    from kyra_etl.maintain.restore import restore as run

    with opened() as parts, progress() as drawn:
        report = run(parts.for_maintenance(drawn), dry_run=dry_run)
    if json:
        emit(report.as_json())
    elif report.skipped:
        show(f"Nothing done: {report.skipped}.")
    else:
        would = "would be " if dry_run else ""
        show(f"{count(len(report.brought_back), 'file')} {would}brought back from _replaced/.")
        show(f"{count(len(report.set_aside), 'unknown file')} {would}set aside in _unknown/.")
    if report.missing:
        say(f"{count(len(report.missing), 'file')} of the ledger cannot be found. `kyra maintain check` names them.")
        raise typer.Exit(1)


def _tell_failed(failed: Sequence[Mapping[str, str]]) -> None:
    for each in failed:
        say(printable(f"{each['account']} {each['date']}: {each['error']}"))
    if failed:
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
