"""What nobody was told of yet: noted with the change itself, taken off when it is told.

So that an alert is told however the run ended that raised it, and whichever run that was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from kyra_etl.state import tables
from kyra_etl.state.database import Database, chunks

_untold, _integrations = tables.untold, tables.integrations


@dataclass(frozen=True, slots=True)
class Untold:
    """An alert that was made, or changed, and when it last did."""

    alert_id: str
    opened: bool
    """Whether nobody was told of it before."""
    at: datetime


class LastTold(NamedTuple):
    """The state of an integration that was told last, and when; None of one older than telling."""

    state: str | None
    at: datetime | None


class News:
    def __init__(self, database: Database) -> None:
        self._database = database

    def untold(self, since: datetime) -> Sequence[Untold]:
        """The alerts that were made or changed since then and not told, oldest first."""
        query = select(_untold.c.alert_id, _untold.c.opened, _untold.c.at).where(_untold.c.at >= since)
        with self._database.read() as connection:
            return [Untold(*row) for row in connection.execute(query.order_by(_untold.c.at, _untold.c.alert_id))]

    def told(self, told: Collection[Untold], since: datetime) -> None:
        """These were told; what is older than `since` never will be. One that changed meanwhile is told again."""
        opened_at = {one.alert_id: one.at for one in told}
        with self._database.write() as connection:
            connection.execute(delete(_untold).where(_untold.c.at < since))
            for ids in chunks(sorted(opened_at)):
                rows = connection.execute(select(_untold).where(_untold.c.alert_id.in_(ids))).all()
                done = [row.alert_id for row in rows if row.at == opened_at[row.alert_id]]
                connection.execute(delete(_untold).where(_untold.c.alert_id.in_(done)))
                connection.execute(update(_untold).where(_untold.c.alert_id.in_(ids)).values(opened=False))

    def last_told(self) -> Mapping[str, LastTold]:
        """What was told last of each integration's state, by name."""
        columns = (_integrations.c[name] for name in ("name", "told_state", "told_at"))
        with self._database.read() as connection:
            return {name: LastTold(state, at) for name, state, at in connection.execute(select(*columns))}

    def told_state(self, name: str, state: str, now: datetime) -> None:
        """It was told that the integration's state is this one."""
        values = {"told_state": state, "told_at": now}
        with self._database.write() as connection:
            connection.execute(update(_integrations).where(_integrations.c.name == name).values(values))


def note(connection: Connection, new: Collection[str], updated: Collection[str], now: datetime) -> None:
    """Remember that these alerts were made, and those changed, in the transaction that did it."""
    for ids in chunks(sorted({*new, *updated})):
        known = set(connection.scalars(select(_untold.c.alert_id).where(_untold.c.alert_id.in_(ids))))
        connection.execute(update(_untold).where(_untold.c.alert_id.in_(sorted(known))).values(at=now))
        rows = [{"alert_id": id_, "opened": id_ in new, "at": now} for id_ in ids if id_ not in known]
        if rows:
            connection.execute(insert(_untold), rows)
