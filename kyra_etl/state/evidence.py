"""Findings and the events behind them: written so that only what is known counts, never the order it came in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, case, delete, or_, select

from kyra_etl.detection.alerts import by_anchor
from kyra_etl.errors import StateError
from kyra_etl.model import SEVERITIES, Finding
from kyra_etl.state import tables
from kyra_etl.state.columns import clean
from kyra_etl.state.database import Database, chunks

_findings, _events = tables.findings, tables.alert_events
_COLUMNS = (
    "account",
    "event_id",
    "alert_id",
    "event_time",
    "severity",
    "region",
    "actor",
    "source_ip",
    "target",
    "summary",
)

RANK = {severity: rank for rank, severity in enumerate(SEVERITIES)}


def fold(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each (account, event_id), as the database will give it back. Raises StateError."""
    return list(by_anchor(map(_cleaned, findings)).values())


def upsert(
    database: Database, connection: Connection, detection: str, findings: Sequence[Finding], look: int
) -> set[str]:
    """Writes folded findings of one look and their events; returns the ids of all alerts that may look different now.

    Where a later look has found something already, it saw more, and stays; but an event that came live did so.
    """
    before = _before(connection, detection, findings)
    current: list[Finding] = []
    late: list[Finding] = []
    shrunk: set[str] = set()
    for finding in findings:
        known = before.get((finding.account, finding.event_id))
        if known is None or known.look <= look:
            current.append(finding)
            if known and (known.alert_id != finding.alert_id or known.event_ids - set(finding.event_ids)):
                shrunk.add(known.alert_id)
        elif known.alert_id == finding.alert_id:
            late.append(replace(finding, event_ids=tuple(known.event_ids.intersection(finding.event_ids))))
    if current:
        rows = [
            {name: getattr(f, name) for name in _COLUMNS}
            | {"detection": detection, "event_ids": list(f.event_ids), "look": look}
            for f in current
        ]
        writing = database.insert(_findings)
        kept = [*_COLUMNS[2:], "event_ids", "look"]
        key = [_findings.c.detection, _findings.c.account, _findings.c.event_id]
        connection.execute(
            writing.on_conflict_do_update(index_elements=key, set_={name: writing.excluded[name] for name in kept}),
            rows,
        )
    if current or late:
        _upsert_events(database, connection, [*current, *late])
    _prune(connection, shrunk)
    return {finding.alert_id for finding in (*current, *late)} | shrunk


def _upsert_events(database: Database, connection: Connection, findings: Sequence[Finding]) -> None:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for finding in findings:
        times = {**finding.event_times, finding.event_id: finding.event_time}
        for event_id in finding.event_ids:
            new: dict[str, Any] = {
                "alert_id": finding.alert_id,
                "event_id": event_id,
                "event_time": times.get(event_id),
            }
            new["historical"] = event_id in finding.historical_ids
            known = rows.setdefault((finding.alert_id, event_id), new)
            if known is new:
                continue
            known["historical"] = known["historical"] and new["historical"]
            known["event_time"] = min((t for t in (known["event_time"], new["event_time"]) if t), default=None)
    writing = database.insert(_events)
    ours, theirs = _events.c.event_time, writing.excluded.event_time
    connection.execute(
        writing.on_conflict_do_update(
            index_elements=[_events.c.alert_id, _events.c.event_id],
            set_={
                # an event delivered live once is live for good; of two times for one id, the earlier
                "historical": and_(_events.c.historical, writing.excluded.historical),
                "event_time": case((or_(ours.is_(None), theirs < ours), theirs), else_=ours),
            },
        ),
        list(rows.values()),
    )


class _Known(NamedTuple):
    """A finding as it was recorded before."""

    alert_id: str
    event_ids: set[str]
    look: int


def _before(connection: Connection, detection: str, findings: Sequence[Finding]) -> dict[tuple[str, str], _Known]:
    """What is known of the findings about to be replaced."""
    c = _findings.c
    query = select(c.account, c.event_id, c.alert_id, c.event_ids, c.look).where(c.detection == detection)
    before: dict[tuple[str, str], _Known] = {}
    for ids in chunks(sorted({finding.event_id for finding in findings})):
        for account, event_id, alert_id, event_ids, look in connection.execute(query.where(c.event_id.in_(ids))):
            before[account, event_id] = _Known(alert_id, set(event_ids), look)
    return before


def _prune(connection: Connection, alert_ids: set[str]) -> None:
    """Takes from these alerts the events that none of their findings rests on any more."""
    held: dict[str, set[str]] = {alert_id: set() for alert_id in alert_ids}
    stale: list[dict[str, str]] = []
    for ids in chunks(sorted(alert_ids)):
        query = select(_findings.c.alert_id, _findings.c.event_ids).where(_findings.c.alert_id.in_(ids))
        for alert_id, event_ids in connection.execute(query):
            held[alert_id].update(event_ids)
        have = select(_events.c.alert_id, _events.c.event_id).where(_events.c.alert_id.in_(ids))
        stale += [{"a": a, "e": e} for a, e in connection.execute(have) if e not in held[a]]
    if stale:
        taking = delete(_events).where(_events.c.alert_id == bindparam("a"), _events.c.event_id == bindparam("e"))
        connection.execute(taking, stale)


def _cleaned(finding: Finding) -> Finding:
    """Its ids as the database will give them back, so that they compare."""
    if not finding.alert_id:
        raise StateError(f"A finding of {finding.detection} names no alert.", "Set alert_id before recording it.")
    events = (finding.event_id, *finding.event_ids, *finding.historical_ids, *finding.event_times)
    together = "".join((finding.account, *events))
    if clean(together) == together:  # nearly always, and there may be thousands
        return finding
    return replace(
        finding,
        account=clean(finding.account),
        event_id=clean(finding.event_id),
        event_ids=tuple(map(clean, finding.event_ids)),
        historical_ids=frozenset(map(clean, finding.historical_ids)),
        event_times={clean(event_id): time for event_id, time in finding.event_times.items()},
    )
