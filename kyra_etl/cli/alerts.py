"""`kyra alerts`: triage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kyra_etl.cli.options import Json, opened
from kyra_etl.cli.output import count, cut, emit, facts, printable, say, short_name, show, table
from kyra_etl.errors import KyraError
from kyra_etl.model import Alert

if TYPE_CHECKING:
    from kyra_etl.wiring import Parts

app = typer.Typer(help="What the detections found: list, look at, acknowledge, close.", no_args_is_help=True)

_ACTOR = 16
"""Columns for an actor: the title tells more."""

AlertId = Annotated[str, typer.Argument(metavar="ALERT", help="Id of the alert, or its beginning.")]


class Status(StrEnum):
    open = "open"
    acknowledged = "acknowledged"
    closed = "closed"


class Severity(StrEnum):
    info = "info"
    low = "low"
    medium = "medium"
    high = "high"
    critical = "critical"


@app.command("list")
def list_(
    status: Annotated[Status | None, typer.Option(help="Only alerts of this status.")] = None,
    severity: Annotated[Severity | None, typer.Option(help="Only alerts of this severity.")] = None,
    detection: Annotated[str | None, typer.Option(metavar="ID", help="Only alerts of this detection.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    json: Json = False,
) -> None:
    """All alerts, historical ones included; the latest first."""
    with opened() as parts:
        found = parts.state.alerts.list(
            status=status and status.value, severity=severity and severity.value, detection=detection, limit=limit
        )
    if json:
        emit([asdict(alert) for alert in found])
    elif found:
        show(alert_table(found))
    else:
        say("No alerts.")


@app.command("show")
def show_(alert_id: AlertId, json: Json = False) -> None:
    """One alert: who did what, its events, how it changed, and its runbook."""
    from kyra_etl import absence

    with opened() as parts:
        alert = parts.state.alerts.get(alert_id)
        events = parts.state.alerts.events([alert.alert_id])
        moves = parts.state.alerts.moves(alert.alert_id)
        try:
            runbook = parts.corpus.get(alert.detection).runbook
        except KyraError:
            # Something absent has no detection; or that is gone, or its file broken: the alert stands.
            runbook = absence.RUNBOOK if alert.detection in (absence.SILENT, absence.NOT_LOGGING) else ""
    if json:
        emit({**asdict(alert), "events": events, "moves": moves, "runbook": runbook})
        return
    show(facts(_facts(alert)))
    for move in moves:
        note = f" ({move['note']})" if move["note"] else ""
        show(f"{move['at']:%Y-%m-%d %H:%M:%S}  {move['what']}: {move['before']} → {move['after']}{note}")
    if events:
        show()
        show(table(("event_time", "event_id"), [(event["event_time"], event["event_id"]) for event in events[:20]]))
    if len(events) > 20:
        show(f"… and {count(len(events) - 20, 'event')} more")
    if runbook:
        show(f"\nRunbook\n{runbook.strip()}")
    if alert.event_ids:
        show(f"\nIts first event: kyra search event_id:{alert.event_ids[0]} --json")


@app.command()
def ack(
    alert_id: AlertId,
    note: Annotated[str | None, typer.Option(help="Why, or who looks after it.")] = None,
    json: Json = False,
) -> None:
    """Say that somebody looks after it."""
    with opened() as parts:
        _settled(parts, parts.state.alerts.acknowledge(alert_id, note, parts.clock()), json)


@app.command()
def close(
    alert_id: AlertId,
    reason: Annotated[str, typer.Option(help="Why it is done with.")],
    json: Json = False,
) -> None:
    """Say that it is done with. It opens again only if its severity rises."""
    with opened() as parts:
        _settled(parts, parts.state.alerts.close(alert_id, reason, parts.clock()), json)


def alert_table(alerts: Sequence[Alert]) -> str:
    """Alerts as a table, in the order given; their status where not all are open."""
    rows = [
        {
            "severity": alert.severity,
            "title": alert.title,
            "account": alert.account,
            "region": alert.region,
            "actor": cut(printable(short_name(alert.actor) or ""), _ACTOR),
            "last seen": f"{alert.last_seen:%Y-%m-%d %H:%M}",
            "status": alert.status,
            "alert": alert.alert_id[:8],
        }
        for alert in alerts
    ]
    hidden = {"status"} if all(alert.status == "open" for alert in alerts) else set()
    columns = [name for name in rows[0] if name not in hidden] if rows else []
    return table(columns, [[row[name] for name in columns] for row in rows], keep=set(columns) - {"title", "actor"})


def _settled(parts: Parts, alert: Alert, json: bool) -> None:
    from kyra_etl.publish import publish_alerts

    publish_alerts([alert], lake=parts.lake, state=parts.state)
    if json:
        emit(asdict(alert))
    else:
        show(f"{alert.alert_id[:8]} {alert.title} is {alert.status}.")


def _facts(alert: Alert) -> Sequence[tuple[str, Any]]:
    status = f"{alert.status} ({alert.closed_reason})" if alert.closed_reason else alert.status
    return [
        ("alert", alert.alert_id),
        ("detection", f"{alert.detection} ({alert.title})"),
        ("severity", alert.severity),
        ("status", status + (", historical" if alert.historical else "")),
        ("summary", alert.summary),
        ("account", alert.account),
        ("region", alert.region),
        ("actor", alert.actor),
        ("source ip", alert.source_ip),
        ("target", alert.target),
        ("first seen", alert.first_seen),
        ("last seen", alert.last_seen),
        ("events", alert.event_count),
        ("ATT&CK", ", ".join(alert.attack)),
        ("formerly", ", ".join(alert.attack_legacy)),
    ]
