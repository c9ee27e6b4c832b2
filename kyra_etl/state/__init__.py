"""The state database: what was collected, who works on it, what was found. Every SQL-database call is in here.

`State.open` is the door; its parts: integrations, runs, ledger, leases, queue, alerts, absences, news, swaps, figures.
"""

from __future__ import annotations

from datetime import datetime
from types import TracebackType

from sqlalchemy import false, select

from kyra_etl.state import tables
from kyra_etl.state.absences import Absence, Absences
from kyra_etl.state.alerts import Alerts, Recorded
from kyra_etl.state.columns import metadata
from kyra_etl.state.database import Database
from kyra_etl.state.figures import Figures
from kyra_etl.state.integrations import LOCAL, Integrations
from kyra_etl.state.leases import Lease, Leases
from kyra_etl.state.ledger import Ledger, Observed
from kyra_etl.state.news import News, Untold
from kyra_etl.state.owners import Owners
from kyra_etl.state.queue import Queue, QueueEntry
from kyra_etl.state.runs import Runs
from kyra_etl.state.schema import migrate
from kyra_etl.state.swaps import Swaps

__all__ = ["LOCAL", "Absence", "Lease", "Observed", "QueueEntry", "Recorded", "State", "Untold"]


class State:
    """An open state database at the schema of this version."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.read() as connection:
            self.id: str = connection.scalars(select(tables.meta.c.value).where(tables.meta.c.name == "id")).one()
            """A UUID made with the database: the lake it owns carries it."""
        self.integrations = Integrations(database)
        self.runs = Runs(database)
        self.ledger = Ledger(database)
        self.leases = Leases(database)
        self.owners = Owners(database)
        self.queue = Queue(database)
        self.alerts = Alerts(database)
        self.absences = Absences(database)
        self.news = News(database)
        self.swaps = Swaps(database)
        self.figures = Figures(database)

    @classmethod
    def open(cls, url: str) -> State:
        """Opens sqlite:///path (or a bare path) or postgresql://…, makes what is missing, migrates forward.

        Raises StateError when it cannot be reached or written, or was made by a newer version.
        """
        database = Database(url)
        try:
            migrate(database)
            return cls(database)
        except BaseException:
            database.close()
            raise

    def require_writable(self) -> None:
        """Raises StateError when this user may only read it, or nobody can write just now."""
        with self._database.write() as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete().where(false()))

    def now(self) -> datetime:
        """The database's clock, naive UTC."""
        with self._database.read() as connection:
            return self._database.clock(connection)

    def close(self) -> None:
        """Closes every connection."""
        self._database.close()

    def __enter__(self) -> State:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
