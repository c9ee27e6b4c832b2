"""Leases and planned batches by their owner, so that those of a dead process need not be waited for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, union, update

from kyra_etl.state import tables
from kyra_etl.state.database import Database

_leases, _batches = tables.leases, tables.batches
_LONG_AGO = datetime(1970, 1, 1)


class Owners:
    def __init__(self, database: Database) -> None:
        self._database = database

    def holding(self) -> list[str]:
        """Every owner of a lease or a planned batch that has not expired."""
        with self._database.read() as connection:
            now = self._database.clock(connection)
            leases = select(_leases.c.owner).where(_leases.c.expires_at > now)
            batches = select(_batches.c.owner).where(_batches.c.state == "planned", _batches.c.lease_expires_at > now)
            return sorted(connection.scalars(union(leases, batches)))

    def expire(self, owners: Iterable[str]) -> None:
        """End what these owners hold, as if its time had run out."""
        names = sorted(set(owners))
        if not names:
            return
        with self._database.write() as connection:
            connection.execute(update(_leases).where(_leases.c.owner.in_(names)).values(expires_at=_LONG_AGO))
            planned = update(_batches).where(_batches.c.owner.in_(names), _batches.c.state == "planned")
            connection.execute(planned.values(lease_expires_at=_LONG_AGO))
