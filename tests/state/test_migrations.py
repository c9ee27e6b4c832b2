"""A database of the first release comes to the newest schema with all it held."""

from __future__ import annotations

import signal
from datetime import date, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kyra_etl.state import State, schema, tables
from kyra_etl.state.database import Database
from tests.state.racing import die_while_opening

RELEASED = ("0001", "0002")
"""The last revisions of the versions people run."""

NOW = datetime(2026, 3, 4, 12)
NAMES = {
    "state": {"log_files": "loaded", "batches": "committed", "runs": "succeeded"},
    "status": {"alerts": "open"},
    "how": {"run_files": "listed"},
    "kind": {"data_files": "events", "checkpoints": "CloudTrail"},
    "severity": {"alerts": "high", "findings": "high"},
}


def upgrade(url: str, revision: str) -> None:
    """Bring an empty database to one revision, as the release that ended with it did."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    database = Database(url)
    with database.write() as connection:
        config.attributes.update(connection=connection, version_table=schema.VERSION_TABLE)
        command.upgrade(config, revision)
    database.close()


def value(table: str, column: sa.Column[Any]) -> Any:
    """Something that fits the column, and that other tables' rows agree with."""
    if table in NAMES.get(column.name, {}):
        return NAMES[column.name][table]
    if column.name in ("event_ids", "attack", "attack_legacy", "report"):
        return [] if column.name != "report" else {"loaded": 1}
    kind = column.type
    if isinstance(kind, sa.Boolean):
        return True
    if isinstance(kind, sa.DateTime):
        return NOW
    if isinstance(kind, sa.Date):
        return date(2026, 3, 4)
    if isinstance(kind, sa.Numeric | sa.Float):
        return 1.5
    if isinstance(kind, sa.Integer):
        return 1 if column.primary_key or column.name in ("log_file_id", "attempt", "version", "rows", "size") else 0
    return "acme" if column.name in ("integration", "name") else f"a {column.name}"


def fill(url: str) -> dict[str, dict[str, Any]]:
    """One row in every table of the database; the rows by table."""
    database = Database(url)
    rows: dict[str, dict[str, Any]] = {}
    with database.write() as connection:
        found = sa.MetaData()
        found.reflect(connection)
        for table in found.sorted_tables:
            if table.name in ("meta", schema.VERSION_TABLE):
                continue
            rows[table.name] = {column.name: value(table.name, column) for column in table.columns}
            connection.execute(table.insert().values(rows[table.name]))
    database.close()
    return rows


def held(url: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The revision of a database with a row in every table, and the rows."""
    database = Database(url)
    found = sa.MetaData()
    with database.read() as connection:
        found.reflect(connection)
        rows = {table.name: connection.execute(sa.select(table)).mappings().one() for table in found.sorted_tables}
    database.close()
    revision = rows.pop(schema.VERSION_TABLE)["version_num"]
    return revision, {name: dict(row) for name, row in rows.items() if name != "meta"}


@pytest.mark.parametrize("revision", RELEASED)
def test_every_released_schema_comes_forward_with_a_row_of_every_table(empty_url: str, revision: str) -> None:
    upgrade(empty_url, revision)
    before = fill(empty_url)

    with State.open(empty_url) as state:
        assert state.ledger.counts("acme")["loaded"] == 1
        assert [run["report"] for run in state.runs.recent()] == [{"loaded": 1}]
        assert [alert.severity for alert in state.alerts.list()] == ["high"]
        assert len(state.ledger.data_files("events")) == 1
        assert state.queue.depth() == 1
        with state._database.read() as connection:
            found = sa.MetaData()
            found.reflect(connection)
            for name, row in before.items():
                if name == "checkpoints":
                    continue  # made anew by 0002: losing them costs a listing, never data
                (after,) = connection.execute(sa.select(found.tables[name])).mappings()
                kept = {column: after[column] for column in row if column in after}
                assert {column: given for column, given in row.items() if column in kept} == kept, name
                assert len(kept) >= len(row) - 1, "a migration may drop a column, not a table's rows"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {schema.VERSION_TABLE} SET version_num='0004'",
        "INSERT INTO totals",
        "DROP INDEX ix_data_files_published",
        f"UPDATE {schema.VERSION_TABLE} SET version_num='0014'",
    ],
)
def test_a_migration_that_is_killed_changes_nothing_and_is_made_by_the_next_who_opens(
    empty_url: str, statement: str
) -> None:
    upgrade(empty_url, RELEASED[-1])
    before = fill(empty_url)

    dying = get_context("spawn").Process(target=die_while_opening, args=(empty_url, statement))
    dying.start()
    dying.join()

    assert dying.exitcode == -signal.SIGKILL
    assert held(empty_url) == (RELEASED[-1], before)
    with State.open(empty_url) as state:
        assert state.ledger.counts("acme")["loaded"] == 1
        assert len(state.ledger.data_files("events")) == 1
        with state._database.read() as connection:
            found = {index["name"] for index in sa.inspect(connection).get_indexes("data_files")}
    assert found == {index.name for index in tables.data_files.indexes}


def test_an_older_release_refuses_a_newer_database_and_changes_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    State.open(empty_url).close()
    monkeypatch.setattr(schema, "REVISIONS", schema.REVISIONS[:-1])

    with pytest.raises(schema.StateError, match=r"made by a newer kyra-etl.*Bring this machine to the version"):
        State.open(empty_url)
