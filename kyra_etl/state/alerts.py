"""Alerts: computed from their findings, triaged by people.

What is computed (severity, times, counts, historical, who and what) follows from the findings alone, whatever order
they came in. What people decide (status, reasons) stays, but for one rule: a closed alert opens again when its
severity rises above what it was at closing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, insert, select, update

from kyra_etl.errors import UnknownName, UsageError
from kyra_etl.model import Alert, Finding, Severity
from kyra_etl.state import news, queue, tables
from kyra_etl.state.database import Database, chunks
from kyra_etl.state.evidence import RANK, fold, upsert

_alerts, _events, _findings, _moves = tables.alerts, tables.alert_events, tables.findings, tables.alert_moves

_WHO = ("account", "region", "actor", "source_ip", "target", "summary")
_COMPUTED = (
    "title",
    "severity",
    "attack",
    "attack_legacy",
    *_WHO,
    "first_seen",
    "last_seen",
    "event_count",
    "historical",
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The ids of the alerts that one recording made or changed."""

    new: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    """Alerts nobody had touched whose every finding now belongs to another one."""
    left: tuple[date, ...] = ()
    """Days on which alerts were first seen before, and are no more."""


class Alerts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self) -> int:
        """Begins a look at what there is, with a number greater than that of every look before.

        To be taken before anything is listed: so a later look has seen whatever was there when this one began.
        """
        looks = tables.meta.c.name == "looks"
        with self._database.write() as connection:
            number = int(connection.scalars(select(tables.meta.c.value).where(looks)).one()) + 1
            connection.execute(update(tables.meta).where(looks).values(value=str(number)))
        return number

    def record(
        self,
        detection: str,
        *,
        title: str,
        attack: Sequence[str],
        attack_legacy: Sequence[str],
        findings: Sequence[Finding],
        look: int,
        clear: Sequence[tuple[str, str]] = (),
        now: datetime,
    ) -> Recorded:
        """Takes in what a detection found and takes `clear`, (batch_id, detection), off the queue: all or nothing.

        A finding that a later `look` has recorded already is not replaced.
        """
        folded = fold(findings)
        about = {"title": title, "attack": list(attack), "attack_legacy": list(attack_legacy)}
        with self._database.write() as connection:
            touched = sorted(upsert(self._database, connection, detection, folded, look))
            recorded = _recompute(connection, detection, about, touched, now)
            queue.clear(connection, clear)
        return recorded

    def list(
        self,
        status: str | None = None,
        severity: str | None = None,
        detection: str | None = None,
        limit: int | None = None,
        changed_since: datetime | None = None,
    ) -> Sequence[Alert]:
        """The alerts that meet every given condition, historical ones too; newest last_seen first."""
        query = select(_alerts).order_by(_alerts.c.last_seen.desc(), _alerts.c.alert_id).limit(limit)
        given = {"status": status, "severity": severity, "detection": detection}
        for name, value in given.items():
            if value is not None:
                query = query.where(_alerts.c[name] == value)
        if changed_since is not None:
            query = query.where(_alerts.c.changed_at >= changed_since)
        with self._database.read() as connection:
            return _load(connection, connection.execute(query).all())

    def every(self) -> Iterator[Sequence[dict[str, Any]]]:
        """The rows of all alerts by id, with their event_ids, some thousands at a time."""
        for rows in self._database.pages(select(_alerts), _alerts.c.alert_id):
            with self._database.read() as connection:
                _add_ids(rows, _events_of(connection, [row["alert_id"] for row in rows]))
            yield rows

    def of_day(self, day: date) -> Sequence[Alert]:
        """The alerts that were first seen on that UTC day; newest last_seen first."""
        start = datetime.combine(day, time.min)
        query = select(_alerts).where(_alerts.c.first_seen >= start, _alerts.c.first_seen < start + timedelta(days=1))
        with self._database.read() as connection:
            found = _load(connection, connection.execute(query).all())
        return sorted(found, key=lambda alert: (-alert.last_seen.timestamp(), alert.alert_id))

    def around(self, first: datetime, last: datetime) -> tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
        """The rows of alerts with events between these times, and of all their events."""
        query = select(_alerts).where(_alerts.c.last_seen >= first, _alerts.c.first_seen <= last)
        with self._database.read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
            rows.sort(key=lambda row: str(row["alert_id"]))  # ORDER BY would lead SQLite through every alert there is
            events = _events_of(connection, [row["alert_id"] for row in rows])
        _add_ids(rows, events)
        return rows, [event for some in events.values() for event in some]

    def those(self, alert_ids: Sequence[str]) -> Sequence[Alert]:
        """The alerts of these ids that there are."""
        with self._database.read() as connection:
            rows = [
                row
                for ids in chunks(alert_ids)
                for row in connection.execute(select(_alerts).where(_alerts.c.alert_id.in_(ids)))
            ]
            return _load(connection, rows)

    def get(self, alert_id: str) -> Alert:
        """The alert of that id, or of the one id that begins so. Raises UnknownName."""
        with self._database.read() as connection:
            return _load(connection, [_find(connection, alert_id)])[0]

    def acknowledge(self, alert_id: str, note: str | None, now: datetime) -> Alert:
        """Somebody looks after it. Raises UsageError for a closed alert."""
        with self._database.write() as connection:
            row = _find(connection, alert_id)
            if row.status == "closed":
                raise UsageError(f"Alert {row.alert_id} is closed.", "It opens again only if its severity rises.")
            _set_status(connection, row, "acknowledged", note, now)
            return _load(connection, [_find(connection, row.alert_id)])[0]

    def close(self, alert_id: str, reason: str, now: datetime) -> Alert:
        """Done with, for this reason; a later closing replaces the reason."""
        with self._database.write() as connection:
            row = _find(connection, alert_id)
            _set_status(connection, row, "closed", reason, now)
            return _load(connection, [_find(connection, row.alert_id)])[0]

    def moves(self, alert_id: str) -> Sequence[dict[str, Any]]:
        """How it changed, oldest first: at, what ('severity' or 'status'), before, after, note."""
        with self._database.read() as connection:
            full = _find(connection, alert_id).alert_id
            query = select(_moves.c.at, _moves.c.what, _moves.c.before, _moves.c.after, _moves.c.note)
            rows = connection.execute(query.where(_moves.c.alert_id == full).order_by(_moves.c.id)).mappings()
            return [dict(row) for row in rows]

    def events(self, alert_ids: Sequence[str]) -> Sequence[dict[str, Any]]:
        """The events of these alerts: alert_id, event_id, event_time (None if never seen), historical."""
        with self._database.read() as connection:
            return [row for some in _events_of(connection, alert_ids).values() for row in some]

    def every_event(self) -> Iterator[Sequence[dict[str, Any]]]:
        """The events of all alerts as in `events`, by ids, some thousands at a time."""
        return self._database.pages(select(_events), _events.c.alert_id, _events.c.event_id)


def _recompute(
    connection: Connection, detection: str, about: Mapping[str, Any], alert_ids: Sequence[str], now: datetime
) -> Recorded:
    new: list[str] = []
    updated: list[str] = []
    removed: list[str] = []
    left: list[date] = []
    for ids in chunks(alert_ids):
        known = {r.alert_id: r for r in connection.execute(select(_alerts).where(_alerts.c.alert_id.in_(ids)))}
        leading = {row.alert_id: row for row in connection.execute(_leading(ids))}
        seen = {row.alert_id: row for row in connection.execute(_seen(ids))}
        for alert_id in ids:
            before = known.get(alert_id)
            if alert_id not in leading:
                if before is not None and _outlived(connection, before, now):
                    removed.append(alert_id)
                    left.append(before.first_seen.date())
                continue
            first, evidence = leading[alert_id], seen[alert_id]
            after = dict(about) | {name: getattr(first, name) for name in ("severity", *_WHO)}
            after |= {"first_seen": evidence.first_seen, "last_seen": evidence.last_seen}
            after |= {"event_count": evidence.event_count, "historical": not evidence.live}
            if before is None:
                made: dict[str, Any] = {"alert_id": alert_id, "detection": detection, "status": "open"}
                made |= {"created_at": now, "changed_at": now}
                connection.execute(insert(_alerts).values(after | made))
                new.append(alert_id)
                continue
            rose = has_risen(before, after["severity"])
            if rose or any(getattr(before, name) != after[name] for name in _COMPUTED):
                this = update(_alerts).where(_alerts.c.alert_id == alert_id)
                connection.execute(this.values(after | {"changed_at": now}))
                if before.severity != after["severity"]:
                    move(connection, alert_id, "severity", before.severity, after["severity"], None, now)
                if rose:
                    reopen(connection, before, now)
                updated.append(alert_id)
                if before.first_seen.date() != evidence.first_seen.date():
                    left.append(before.first_seen.date())
    news.note(connection, new, updated, now)
    return Recorded(tuple(new), tuple(updated), tuple(removed), tuple(left))


def _leading(alert_ids: Sequence[str]) -> Any:
    """The finding that speaks for each alert: the most severe, then the earliest."""
    c = _findings.c
    rank = case(RANK, value=c.severity)
    place = func.row_number().over(partition_by=c.alert_id, order_by=[rank.desc(), c.event_time, c.event_id, c.account])
    placed = select(c.alert_id, c.severity, *(c[name] for name in _WHO), place.label("place"))
    ranked = placed.where(c.alert_id.in_(alert_ids)).subquery()
    return select(ranked).where(ranked.c.place == 1)


def _seen(alert_ids: Sequence[str]) -> Any:
    c = _events.c
    return (
        select(
            c.alert_id,
            func.min(c.event_time).label("first_seen"),
            func.max(c.event_time).label("last_seen"),
            func.count().label("event_count"),
            func.sum(case((c.historical, 0), else_=1)).label("live"),
        )
        .where(c.alert_id.in_(alert_ids))
        .group_by(c.alert_id)
    )


def _outlived(connection: Connection, row: Row[Any], now: datetime) -> bool:
    """An alert without findings: removed if nobody touched it (True), else closed, so that no work is lost."""
    if row.status != "open" or connection.scalar(
        select(func.count()).where(_moves.c.alert_id == row.alert_id, _moves.c.what == "status")
    ):
        if row.status != "closed":
            _set_status(connection, row, "closed", "its evidence belongs to another alert now", now)
        # whatever evidence comes to it again is news
        connection.execute(update(_alerts).where(_alerts.c.alert_id == row.alert_id).values(closed_severity=None))
        return False
    for table in (_alerts, _events, _moves, tables.untold):
        connection.execute(delete(table).where(table.c.alert_id == row.alert_id))
    return True


def has_risen(before: Row[Any], severity: Severity) -> bool:
    """Whether a closed alert opens again at this severity: one above what it had at closing."""
    return before.status == "closed" and RANK[severity] > RANK.get(before.closed_severity, -1)


def reopen(connection: Connection, row: Row[Any], now: datetime) -> None:
    """Open a closed alert whose severity rose."""
    _set_status(connection, row, "open", "severity rose", now)


def _set_status(connection: Connection, row: Row[Any], status: str, note: str | None, now: datetime) -> None:
    closed = {"closed_reason": note, "closed_severity": row.severity} if status == "closed" else {}
    values = {"status": status, "changed_at": now, "closed_reason": None, "closed_severity": None} | closed
    connection.execute(update(_alerts).where(_alerts.c.alert_id == row.alert_id).values(values))
    if row.status != status or note:
        move(connection, row.alert_id, "status", row.status, status, note, now)


def move(
    connection: Connection, alert_id: str, what: str, before: str, after: str, note: str | None, now: datetime
) -> None:
    """Keep how an alert changed."""
    values = {"alert_id": alert_id, "at": now, "what": what, "before": before, "after": after, "note": note}
    connection.execute(insert(_moves).values(values))


def _find(connection: Connection, alert_id: str) -> Row[Any]:
    remedy = "`kyra alerts list` shows the ids; the first few characters are enough."
    exact = connection.execute(select(_alerts).where(_alerts.c.alert_id == alert_id)).first()
    if exact is not None:
        return exact
    query = select(_alerts).where(_alerts.c.alert_id.startswith(alert_id, autoescape=True)).limit(2)
    rows = connection.execute(query).all() if alert_id else []
    if len(rows) != 1:
        what = "Several alerts begin with" if rows else "There is no alert"
        raise UnknownName(f"{what} {alert_id!r}.", remedy)
    return rows[0]


def _events_of(connection: Connection, alert_ids: Sequence[str]) -> dict[str, Any]:
    """By alert, in the order of event_time, then event_id; events of unknown time last."""
    found: dict[str, Any] = {alert_id: [] for alert_id in alert_ids}
    for ids in chunks(sorted(found)):
        for row in connection.execute(select(_events).where(_events.c.alert_id.in_(ids))).mappings():
            found[row["alert_id"]].append(dict(row))
    for rows in found.values():
        rows.sort(key=lambda row: (row["event_time"] or datetime.max, row["event_id"]))
    return found


def _add_ids(rows: Sequence[dict[str, Any]], events: Mapping[str, Any]) -> None:
    for row in rows:
        row["event_ids"] = [event["event_id"] for event in events[row["alert_id"]]]


def _load(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[Alert]:
    events = _events_of(connection, [row.alert_id for row in rows])
    same = (
        "alert_id",
        "detection",
        "title",
        "severity",
        "first_seen",
        "last_seen",
        "event_count",
        "status",
        "historical",
    )
    return [
        Alert(
            **{name: getattr(row, name) for name in (*same, *_WHO, "closed_reason")},
            event_ids=tuple(event["event_id"] for event in events[row.alert_id]),
            attack=tuple(row.attack),
            attack_legacy=tuple(row.attack_legacy),
        )
        for row in rows
    ]
