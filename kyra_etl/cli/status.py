"""`kyra status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kyra_etl.cli.options import Json, OptionalName, opened
from kyra_etl.cli.output import count, emit, printable, say, show, span, table

_CHECKPOINTS = 24


def status(name: OptionalName = None, json: Json = False) -> None:
    """How every integration is: state, last sync, lag, what waits.

    Also how far each account and region was listed, and which are quiet.

    Reads the state only; `kyra check NAME` asks AWS.
    """
    from kyra_etl.status import status as ask

    with opened() as parts:
        report = ask(parts.state, parts.clock(), name)
    if json:
        emit(report)
    else:
        show_status(report, whole=name is not None)


def show_status(report: Mapping[str, Any], *, whole: bool) -> None:
    """The report for a person; with `whole`, every checkpoint."""
    integrations = report["integrations"]
    if integrations:
        show(_overview(integrations))
        for one in integrations:
            if one["reason"]:
                show(printable(f"{one['name']}: {one['reason']} Next: {one['next_step']}"))
        _show_checkpoints(integrations, whole)
        if whole:
            for one in integrations:
                if not one["bucket"].startswith("file:"):
                    show(_listing(one["listing"]))
    local = report["local"]
    if local is not None:
        held = f", {count(local['quarantined'], 'file')} in quarantine" if local["quarantined"] else ""
        show(f"Local files: {count(local['loaded'], 'file')} loaded, {count(local['events'], 'event')}{held}.")
    elif not integrations:
        say("There is no integration yet. Add one: kyra integration add NAME --bucket BUCKET")
    for row in report["queue"]["failing"]:
        batches = f"{row['batches']:,} batch{'es' if row['batches'] != 1 else ''}"
        say(printable(f"Detection {row['detection']} fails on {batches}: {row['last_error']}"))


def _overview(integrations: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            one["name"],
            one["state"],
            one["last_sync_at"],
            f"{span(one['last_sync_age'])} ago" if one["last_sync_age"] is not None else "never",
            one["events_processed"],
            one["ledger"]["loaded"],
            one["ledger"]["pending"] + one["ledger"]["planned"],
            one["ledger"]["quarantined"],
            span(one["lag"]["p50"]),
        )
        for one in integrations
    ]
    columns = ("integration", "state", "last sync", "", "events", "log files", "pending", "quarantined", "lag")
    return table(columns, rows, keep=("state", "last sync"))


def _listing(listing: Mapping[str, Any]) -> str:
    """LIST requests of today and yesterday, and how many folders are listed how often."""
    days = " and ".join(
        f"{count(listing[f'requests_{day}'], 'LIST request')} {day} (about ${listing[f'cost_{day}']:.2f})"
        for day in ("today", "yesterday")
    )
    folders = ", ".join(f"{number:,} {tier}" for tier, number in listing["folders"].items() if number)
    return f"Listing: {days}" + (f"; folders: {folders}." if folders else ".")


def _show_checkpoints(integrations: Sequence[Mapping[str, Any]], whole: bool) -> None:
    several = len(integrations) > 1
    rows = [
        ((one["name"],) if several else ())
        + (row["account"], row["region"], row["day"], row["last_delivered_at"], row["listed_at"])
        + (
            "quiet"
            if any((q["account"], q["region"]) == (row["account"], row["region"]) for q in one["quiet"])
            else "",
        )
        for one in integrations
        for row in one["checkpoints"]
    ]
    if not rows:
        return
    columns = ("account", "region", "newest day", "last delivered", "listed", "")
    show()
    show(table((("integration",) if several else ()) + columns, rows if whole else rows[:_CHECKPOINTS]))
    if not whole and len(rows) > _CHECKPOINTS:
        show(f"… and {count(len(rows) - _CHECKPOINTS, 'checkpoint')} more: kyra status NAME")
