"""The customers' connections, with what their last check found."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from kyra_etl.errors import UnknownName, UsageError
from kyra_etl.model import Integration, Probe
from kyra_etl.state import tables
from kyra_etl.state.database import Database

LOCAL = "local"
"""The integration name under which `kyra load` keeps local files; nobody else may have it."""

_integrations, _probes, _trails = tables.integrations, tables.probes, tables.trails
_FIELDS = [field.name for field in fields(Integration)]
_COLUMNS = [_integrations.c[name] for name in _FIELDS]


class Integrations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, integration: Integration, now: datetime) -> None:
        """Keeps a new integration. Raises UsageError when the name is taken."""
        values = {name: getattr(integration, name) for name in _FIELDS} | {"created_at": integration.created_at or now}
        values |= {"told_state": "Pending", "told_at": now}  # what status calls it now: whatever it becomes is news
        with self._database.write() as connection:
            if integration.name == LOCAL or integration.name in _names(connection):
                raise UsageError(
                    f"The integration name {integration.name!r} is taken.",
                    "Choose another one; `kyra integration list` shows those in use.",
                )
            connection.execute(insert(_integrations).values(values))

    def get(self, name: str) -> Integration:
        """Raises UnknownName, naming the nearest one there is."""
        with self._database.read() as connection:
            row = connection.execute(select(*_COLUMNS).where(_integrations.c.name == name)).mappings().first()
            if row is None:
                raise _unknown(name, _names(connection))
        return _made(row)

    def list(self) -> list[Integration]:
        """All of them, paused ones too, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(*_COLUMNS).order_by(_integrations.c.name)).mappings().all()
        return [_made(row) for row in rows]

    def change(self, integration: Integration) -> None:
        """Replaces the integration of that name. Another bucket or prefix is listed from its beginning."""
        values = {name: getattr(integration, name) for name in _FIELDS if name not in ("name", "created_at", "paused")}
        with self._database.write() as connection:
            _require(connection, integration.name)
            mine = _integrations.c.name == integration.name
            where = select(_integrations.c.bucket, _integrations.c.prefix).where(mine)
            if tuple(connection.execute(where).one()) != (integration.bucket, integration.prefix):
                here = tables.checkpoints.c.integration == integration.name
                connection.execute(delete(tables.checkpoints).where(here))
            connection.execute(update(_integrations).where(mine).values(values))

    def remove(self, name: str) -> None:
        """Forgets the connection and its checkpoints; the ledger and the lake keep what was loaded through it."""
        with self._database.write() as connection:
            _require(connection, name)
            connection.execute(delete(_integrations).where(_integrations.c.name == name))
            for table in (tables.checkpoints, tables.list_requests):
                connection.execute(delete(table).where(table.c.integration == name))

    def pause(self, name: str, paused: bool) -> None:
        """Stops syncs from picking the integration up, or lets them again."""
        with self._database.write() as connection:
            _require(connection, name)
            connection.execute(update(_integrations).where(_integrations.c.name == name).values(paused=paused))

    def save_check(self, name: str, probes: Sequence[Probe], now: datetime) -> None:
        """Replaces the answers of the check before."""
        rows = [
            {"integration": name, "position": n, "name": p.name, "passed": p.passed, "detail": p.detail}
            | {"remedy": p.remedy, "permission": p.permission}
            for n, p in enumerate(probes)
        ]
        with self._database.write() as connection:
            _require(connection, name)
            connection.execute(update(_integrations).where(_integrations.c.name == name).values(checked_at=now))
            connection.execute(delete(_probes).where(_probes.c.integration == name))
            if rows:
                connection.execute(insert(_probes), rows)

    def last_check(self, name: str) -> tuple[datetime, Sequence[Probe]] | None:
        """When the integration was last checked, and the answers; None when it never was."""
        with self._database.read() as connection:
            at = connection.scalar(select(_integrations.c.checked_at).where(_integrations.c.name == name))
            columns = (_probes.c[name] for name in ("name", "passed", "detail", "remedy", "permission"))
            query = select(*columns)
            rows = connection.execute(query.where(_probes.c.integration == name).order_by(_probes.c.position)).all()
        return None if at is None else (at, [Probe(n, p, d, r, needs or "") for n, p, d, r, needs in rows])

    def save_trails(self, name: str, trails: Sequence[Mapping[str, Any]], now: datetime) -> None:
        """Replaces the snapshot of the trails that deliver to this integration; fields not given stay empty."""
        known = {column.name for column in _trails.c} - {"integration", "position", "checked_at"}
        rows = [
            {"integration": name, "position": n, "checked_at": now} | {field: trail.get(field) for field in known}
            for n, trail in enumerate(trails)
        ]
        with self._database.write() as connection:
            _require(connection, name)
            connection.execute(delete(_trails).where(_trails.c.integration == name))
            if rows:
                connection.execute(insert(_trails), rows)

    def trails(self, name: str | None = None) -> Sequence[dict[str, Any]]:
        """The rows of the relation `trails`, of one integration or of all."""
        query = select(*(column for column in _trails.c if column.name != "position"))
        if name is not None:
            query = query.where(_trails.c.integration == name)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_trails.c.integration, _trails.c.position)).mappings().all()
        return [dict(row) for row in rows]


def _made(row: RowMapping) -> Integration:
    return Integration(**{**row, "additions": tuple(row["additions"] or ())})


def _names(connection: Connection) -> Sequence[str]:
    return connection.scalars(select(_integrations.c.name).order_by(_integrations.c.name)).all()


def _require(connection: Connection, name: str) -> None:
    names = _names(connection)
    if name not in names:
        raise _unknown(name, names)


def _unknown(name: str, names: Sequence[str]) -> UnknownName:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if near:
        remedy = f"Did you mean {near[0]!r}?"
    elif names:
        remedy = f"There are: {', '.join(names)}."
    else:
        remedy = "There is none yet: add one with `kyra integration add`."
    return UnknownName(f"There is no integration {name!r}.", remedy)
