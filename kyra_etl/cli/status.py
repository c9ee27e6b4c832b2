"""`kyra status`."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from kyra_etl import wiring
from kyra_etl.cli.options import Json, OptionalName, opened
from kyra_etl.cli.output import WIDTH, count, emit, printable, say, show, span, table
from kyra_etl.errors import UsageError

_CHECKPOINTS = 24
_SECONDS = 3.0
_CLEAR = "\x1b[2J\x1b[H"


def status(
    name: OptionalName = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every few seconds, until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """How every integration is: state, why, what to do next; last sync, lag, what waits.

    Also how far each account and region was listed, and which went silent against their own habit.

    Reads the state only; `kyra check NAME` asks AWS, and so does `kyra serve` every hour.
    """
    if watch and json:
        raise UsageError("--watch does not end, and --json is one document.", "Leave one of them out.")
    with opened() as parts:
        while True:
            report = wiring.status_of(parts, name)
            if json:
                emit(report)
                return
            if watch:
                show(_CLEAR + f"{parts.clock():%Y-%m-%d %H:%M:%S} UTC\n")
            show_status(report, whole=name is not None)
            if not watch:
                return
            sys.stdout.flush()
            try:
                time.sleep(_SECONDS)
            except KeyboardInterrupt:
                return


def show_status(report: Mapping[str, Any], *, whole: bool) -> None:
    """The report for a person; with `whole`, every checkpoint."""
    integrations = report["integrations"]
    if integrations:
        show(_overview(integrations))
        for one in integrations:
            if one["reason"]:
                show(_sentence(f"{one['name']}: ", one))
            for more in one["also"]:
                show(_sentence("  also: ", more))
        _show_checkpoints(integrations, whole)
        if whole:
            for one in integrations:
                for line in _details(one):
                    show(printable(line))
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


def _sentence(before: str, told: Mapping[str, Any]) -> str:
    """What is the matter, in lines of a page, and below it the next step in one piece, to be copied."""
    said = textwrap.fill(
        printable(before + told["reason"]),
        WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{said}\n  Next: {printable(told['next_step'])}"


def _details(one: Mapping[str, Any]) -> Iterator[str]:
    """What the table has no room for, a line each."""
    if any(one["lag"].values()):
        lag = ", ".join(f"{key} {span(one['lag'][key])}" for key in ("p50", "p95", "max"))
        yield f"Delivery lag: {lag}; a sync is due every {span(one['due_every'])}."
    for trail in one["trails"]:
        logging = "is logging" if trail["logging"] else "is not logging" if trail["logging"] is False else "was seen"
        yield f"Trail {trail['name']} {logging} ({trail['home_region']}, as of {trail['checked_at']:%Y-%m-%d %H:%M})."
    if any(one["history"].values()):
        yield f"History: {count(one['history']['loaded'], 'hour')} fetched, {one['history']['pending']:,} left."
    if one["learning"]:
        until: dict[Any, list[str]] = {}
        for detection, day in one["learning"]["by_detection"].items():
            until.setdefault(day, []).append(detection)
        told = (
            f"until {day}: {', '.join(names) if len(names) < 4 else count(len(names), 'detection')}"
            for day, names in sorted(until.items())
        )
        yield f"Learning {'; '.join(told)}."
    if not one["bucket"].startswith("file:"):
        yield _listing(one["listing"])


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
            "silent"
            if any((q["account"], q["region"]) == (row["account"], row["region"]) for q in one["silent"])
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
