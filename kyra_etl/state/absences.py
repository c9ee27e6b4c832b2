"""Alerts that rest on no event: something does not happen. Each lasts from its start until it comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from kyra_etl.model import Severity
from kyra_etl.state import tables
from kyra_etl.state.alerts import Recorded, has_risen, move, reopen
from kyra_etl.state.database import Database
from kyra_etl.state.news import note

_absences, _alerts = tables.absences, tables.alerts

_KEY = ("kind", "account", "target")


@dataclass(frozen=True, slots=True)
class Absence:
    """Something that should happen and does not: an alert without events, keyed (kind, account, target, since)."""

    kind: str
    """What stands as the alert's detection."""
    title: str
    severity: Severity
    account: str
    target: str
    since: datetime
    summary: str
    alert_id: str
    region: str | None = None
    attack: tuple[str, ...] = ()
    attack_legacy: tuple[str, ...] = ()


class Absences:
    def __init__(self, database: Database) -> None:
        self._database = database

    def observe(self, integration: str, absences: Sequence[Absence], now: datetime) -> Recorded:
        """Take in all that is absent now: a new one raises an alert, one that ended lowers its alert to low.

        One that goes on changes its alert only where its words or severity do, whatever people made of it meanwhile.
        """
        given = {(one.kind, one.account, one.target): one for one in absences}
        new: list[str] = []
        updated: list[str] = []
        with self._database.write() as connection:
            going_on = {
                tuple(row[name] for name in _KEY): row["alert_id"]
                for row in connection.execute(
                    select(_absences).where(_absences.c.integration == integration, _absences.c.ended_at.is_(None))
                ).mappings()
            }
            for key, absence in given.items():
                alert_id = going_on.get(key) or _again(connection, integration, absence)
                if alert_id is None:
                    _begin(connection, integration, absence, now)
                    new.append(absence.alert_id)
                elif _change(connection, alert_id, absence.severity, absence.summary, absence.since, now):
                    updated.append(alert_id)
            for key, alert_id in going_on.items():
                if key not in given:
                    ended = _absences.c.integration == integration, _absences.c.alert_id == alert_id
                    connection.execute(update(_absences).where(*ended).values(ended_at=now))
                    summary = connection.scalar(select(_alerts.c.summary).where(_alerts.c.alert_id == alert_id))
                    after = f"{summary} Back at {now:%Y-%m-%d %H:%M}."
                    if _change(connection, alert_id, "low", after, now, now):
                        updated.append(alert_id)
            note(connection, new, updated, now)
        return Recorded(tuple(new), tuple(updated))


def _again(connection: Connection, integration: str, absence: Absence) -> str | None:
    """The alert of the same start, which goes on: what was absent never really came back. None when there is none."""
    known: str | None = connection.scalar(select(_alerts.c.alert_id).where(_alerts.c.alert_id == absence.alert_id))
    if known is not None:
        going_on = _absences.c.integration == integration, _absences.c.alert_id == known
        connection.execute(update(_absences).where(*going_on).values(ended_at=None))
    return known


def _begin(connection: Connection, integration: str, absence: Absence, now: datetime) -> None:
    row = {name: getattr(absence, name) for name in (*_KEY, "since", "alert_id")}
    connection.execute(insert(_absences).values(row | {"integration": integration}))
    alert: dict[str, Any] = {
        "alert_id": absence.alert_id,
        "detection": absence.kind,
        **{name: getattr(absence, name) for name in ("title", "severity", "account", "region", "target", "summary")},
        "attack": list(absence.attack),
        "attack_legacy": list(absence.attack_legacy),
        "first_seen": absence.since,
        "last_seen": absence.since,
        "event_count": 0,
        "historical": False,
        "status": "open",
        "created_at": now,
        "changed_at": now,
    }
    connection.execute(insert(_alerts).values(alert))


def _change(
    connection: Connection, alert_id: str, severity: Severity, summary: str, last_seen: datetime, now: datetime
) -> bool:
    """Give the alert this severity and these words, and open it again if that is more than it was closed at.

    False when nothing changes.
    """
    before = connection.execute(select(_alerts).where(_alerts.c.alert_id == alert_id)).one()
    rose = has_risen(before, severity)
    if not rose and (before.severity, before.summary) == (severity, summary):
        return False
    values = {"severity": severity, "summary": summary, "changed_at": now}
    values["last_seen"] = max(before.last_seen, last_seen)
    connection.execute(update(_alerts).where(_alerts.c.alert_id == alert_id).values(values))
    if before.severity != severity:
        move(connection, alert_id, "severity", before.severity, severity, None, now)
    if rose:
        reopen(connection, before, now)
    return True
