"""Leases: who may do a piece of work now, by the database's clock. They save work; the commit decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType

from sqlalchemy import Update, func, or_, select, update

from kyra_etl.state import tables
from kyra_etl.state.database import Database

_leases = tables.leases
_LONG_AGO = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Lease:
    """A right with an end. As a context it is released on leaving."""

    name: str
    owner: str
    attempt: int
    """How often the lease of this name was taken, this time included."""
    seconds: float
    """How long it lasts, from taking it and from each renewal."""
    _database: Database = field(repr=False, compare=False)

    def renew(self, seconds: float | None = None) -> bool:
        """Lets it last another `seconds` from now (None: as long as before). False when somebody else has it by now."""
        with self._database.write() as connection:
            until = self._database.clock(connection) + timedelta(seconds=self.seconds if seconds is None else seconds)
            return connection.execute(self._mine().values(expires_at=until)).rowcount == 1

    def release(self) -> None:
        """Ends the lease, if it is still ours."""
        with self._database.write() as connection:
            connection.execute(self._mine().values(expires_at=_LONG_AGO))

    def _mine(self) -> Update:
        c = _leases.c
        mine = update(_leases).where(c.name == self.name, c.owner == self.owner, c.attempt == self.attempt)
        return mine.where(c.expires_at > _LONG_AGO)  # not one that was released

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Leases:
    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, name: str, owner: str, seconds: float) -> Lease | None:
        """The lease, when it is free or expired; None while anybody holds it, the same owner included."""
        with self._database.write() as connection:
            now = self._database.clock(connection)
            until = now + timedelta(seconds=seconds)
            statement = self._database.insert(_leases).values(name=name, owner=owner, attempt=1, expires_at=until)
            statement = statement.on_conflict_do_update(
                index_elements=[_leases.c.name],
                set_={"owner": owner, "attempt": _leases.c.attempt + 1, "expires_at": until},
                where=_leases.c.expires_at <= now,
            )
            attempt = connection.scalar(statement.returning(_leases.c.attempt))
        return None if attempt is None else Lease(name, owner, attempt, seconds, self._database)

    def are_held(self, *prefixes: str) -> bool:
        """Whether anybody holds a lease whose name begins with any of these."""
        c = _leases.c
        named = or_(*(c.name.startswith(prefix, autoescape=True) for prefix in prefixes))
        held = select(func.count()).where(named)
        with self._database.read() as connection:
            now = self._database.clock(connection)
            return bool(connection.scalar(held.where(c.expires_at > now)))
