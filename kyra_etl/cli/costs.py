"""`kyra costs`: what CloudTrail costs, and what could be left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kyra_etl.cli.options import Json, opened
from kyra_etl.cli.output import cell, emit, printable, show, table

if TYPE_CHECKING:
    from kyra_etl.wiring import Parts

_TOP = 8


def costs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the integration; local for loaded files.")],
    days: Annotated[int, typer.Option(help="Days to count, up to the newest event's.", min=1)] = 30,
    trail: Annotated[str | None, typer.Option(help="Trail the selectors are for; the one that delivers.")] = None,
    json: Json = False,
) -> None:
    """What AWS charges for the log files of a month, what they are made of, and how to record less.

    Each suggestion says what it saves, what is no longer seen (and by which detections), and carries the event
    selectors as a document for `aws cloudtrail put-event-selectors`. It replaces what the trail records now: read it
    first. Prices are those of one dated table; [prices] in kyra.toml corrects them.
    """
    with opened() as parts:
        report = _count(parts, name, days, trail)
    if json:
        emit(report)
    else:
        _show(report)


def _count(parts: Parts, name: str, days: int, trail: str | None) -> dict[str, Any]:
    from kyra_etl import wiring
    from kyra_etl.costs import Ours, costs, window_of
    from kyra_etl.state.integrations import LOCAL

    state = parts.state
    bucket = LOCAL if name == LOCAL else state.integrations.get(name).bucket
    counts = state.ledger.counts(name)
    window = window_of(counts["last_event_at"], days)
    trails = state.integrations.trails(name)
    listed = state.ledger.list_requests(name, window.start.date())
    last = (window.end - timedelta(days=1)).date()
    analyst = wiring.analyst(parts)
    return costs(
        name,
        window,
        ask=lambda sql, given: analyst.query(sql, given).as_dicts(),
        volume=state.ledger.volume(name, bucket, window),
        prices=parts.config.prices,
        ours=Ours(
            0 if bucket.startswith("file:") else sum(number for day, number in listed.items() if day <= last),
            any(one["kms_key_id"] for one in trails),
        ),
        since=counts["first_event_at"],
        trail=trail or next((one["arn"] or one["name"] for one in trails), None),
        watched={one.id: one.event_names for one in parts.corpus.detections},
    )


def _show(report: Mapping[str, Any]) -> None:
    window, prices = report["window"], report["prices"]
    show(
        f"{report['events']:,} events from {window['first']} to {window['last']}, {report['read_share']:.0%} of them"
        f" reading; they span {report['covered_days']:.2f} days."
    )
    own = f", {', '.join(prices['own'])} of kyra.toml" if prices["own"] else ""
    show(f"A month is taken as {report['month_factor']:,.2f} times that. Prices: us-east-1, {prices['as_of']}{own}.")
    if report["covered_days"] < 1:
        show("That is less than a day: take the shares for true, and the sums for a guess.")
    for column in ("category", "source", "name"):
        rows = report[f"by_{column}"]
        show()
        show(
            table(
                (column, "events", "share", "reading"),
                [
                    (row[column], row["events"], f"{row['share']:.1%}", f"{row['read_share']:.0%}")
                    for row in rows[:_TOP]
                ],
                keep=(column,),
            )
        )
        if len(rows) > _TOP:
            show(f"… and {len(rows) - _TOP:,} more: --json")
    show()
    show(
        table(
            ("in a month", "number", "US$"),
            [(line["what"], _number(line["number"]), f"{line['usd']:,.2f}") for line in report["month"]],
        )
    )
    show(f"Together about ${report['total']:,.2f} a month.")
    if report["second_copies"]:
        show(f"{report['second_copies']:,} records were second copies of events: two trails deliver here.")
    for number, one in enumerate(report["suggestions"], start=1):
        show()
        show(printable(f"{number}. {one['title']}"))
        show(f"   Saves about ${one['usd']:,.2f} a month, {one['share']:.1%} of the events.")
        show(printable(f"   No longer seen: {one['loses']}."))
        if one["blinds"]:
            show(f"   Blinds: {cell(one['blinds'])}.")
        show(printable(f"   {one['command']}"))


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:,.3g}"
