"""Brings a database forward to the schema this version of the code knows.

Alembic is imported only when there is something to do: importing it takes a second.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from kyra_etl.errors import StateError
from kyra_etl.state.database import Database

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
)
"""Every step, oldest first; the last is where the code wants the database to be."""

VERSION_TABLE = "kyra_schema"
"""Not alembic's own name: a database shared with Prefect has that one already."""


def migrate(database: Database) -> None:
    """Takes the missing steps, all or none. Processes that open a new database at once take turns.

    Raises StateError for a database made by a newer version.
    """
    with database.read() as connection:
        if _revision(connection, database) == REVISIONS[-1]:
            return
    with database.write() as connection:
        if _revision(connection, database) != REVISIONS[-1]:
            _upgrade(connection)


def _revision(connection: Connection, database: Database) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if revision is not None and revision not in REVISIONS:
        raise StateError(
            f"The state database {database.where} was made by a newer kyra-etl "
            f"(schema {revision}; this version knows up to {REVISIONS[-1]}).",
            "Bring this machine to the version of the others, as it was installed: docs/operations.md, Upgrades.",
        )
    return revision


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    command.upgrade(config, "head")
