"""Opening: new, again, by several at once, wrong in every way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from kyra_etl.errors import StateError
from kyra_etl.state import State, database, schema, tables
from tests.postgres import Server
from tests.state import racing
from tests.state.making import NOW, file, observed, sync


def test_a_new_database_is_made_once_and_keeps_its_id(empty_url: str) -> None:
    with State.open(empty_url) as first:
        id_ = first.id
        first.runs.start("sync", "acme", NOW)
    with State.open(empty_url) as again:
        assert again.id == id_
        assert len(again.runs.recent()) == 1
    assert len(id_) == 36


def test_migrations_lead_to_exactly_the_tables_the_code_knows(state: State) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    options = {"version_table": schema.VERSION_TABLE, "compare_server_default": True}
    with state._database._engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)

    assert difference == []


def test_the_code_knows_every_migration_and_their_order() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    steps = [step.revision for step in ScriptDirectory.from_config(config).walk_revisions()]

    assert tuple(reversed(steps)) == schema.REVISIONS


def test_a_database_of_a_newer_version_is_refused(empty_url: str) -> None:
    with State.open(empty_url) as state, state._database.write() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))

    with pytest.raises(
        StateError, match=r"made by a newer kyra-etl .schema 9999.*Bring this machine to the version of the others"
    ):
        State.open(empty_url)


def test_a_failed_migration_leaves_nothing_behind(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = schema._upgrade

    def fails(connection: Any) -> None:
        upgrade(connection)
        raise StateError("the machine went away")

    monkeypatch.setattr(schema, "_upgrade", fails)
    with pytest.raises(StateError, match="went away"):
        State.open(empty_url)
    monkeypatch.setattr(schema, "_upgrade", upgrade)

    with State.open(empty_url) as state:
        assert state.runs.recent() == []


def test_processes_that_open_a_new_database_at_once_agree_on_it(empty_url: str) -> None:
    with racing.processes(4) as pool:
        ids = pool.map(racing.open_once, [empty_url] * 8)

    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_it_may_live_beside_prefect_s_tables(postgres: Server) -> None:
    url = postgres.create()
    name = url.rsplit("/", 1)[1]
    postgres.execute("CREATE TABLE alembic_version (version_num text)", name)
    postgres.execute("INSERT INTO alembic_version VALUES ('7655f31c5157')", name)

    with State.open(url) as state:
        assert state.runs.recent() == []


def test_opening_again_asks_little_and_does_not_import_alembic(url: str) -> None:
    code = """
import sys
import sqlalchemy
import kyra_etl.state
assert "alembic" not in sys.modules
asked = []
sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
kyra_etl.state.State.open(sys.argv[1]).close()
print(len(asked))
assert "alembic" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    ran = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, env=environment)

    assert ran.stderr == ""
    assert 0 < int(ran.stdout) <= 8, "some 3 ms on SQLite"


def test_sqlite_is_set_up_for_many_processes(tmp_path: Path) -> None:
    with State.open(str(tmp_path / "state.db")) as state, state._database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys")
        }

    assert pragmas == {"journal_mode": "wal", "busy_timeout": 30_000, "foreign_keys": 1}


def test_a_commit_is_on_the_disk_before_anything_that_relies_on_it(tmp_path: Path) -> None:
    code = """
import sys
from kyra_etl.state import State
with State.open(sys.argv[1]) as state, state._database.read() as connection:
    print(connection.exec_driver_sql("PRAGMA synchronous").scalar())
"""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    ran = subprocess.run(  # in a process of its own: tests wait for no disk
        [sys.executable, "-c", code, str(tmp_path / "state.db")], capture_output=True, text=True, env=environment
    )

    assert (ran.stdout.strip(), ran.stderr) == ("2", ""), "FULL"


def test_the_file_is_private_because_it_holds_external_ids(tmp_path: Path) -> None:
    path = tmp_path / "home" / "state.db"
    with State.open(f"sqlite:///{path}") as state:
        state.runs.start("sync", "acme", NOW)
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}

    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_database_s_clock_is_utc_whatever_its_time_zone(state: State) -> None:
    apart = abs((state.now() - datetime.now(UTC).replace(tzinfo=None)).total_seconds())
    assert apart < 600, "no zone is nearer than a quarter of an hour, and no machine as slow"


def test_text_that_databases_cannot_hold_does_not_stop_anything(state: State) -> None:
    strange = file(1, key="a\x00b\udcff")
    batch = sync(state, [strange])
    run_id = observed(state, [strange])

    assert batch.entries[0].file.key == "a\ufffdb\\udcff"
    assert state.ledger.tally(run_id)["linked_listed"] == 0


def test_a_time_with_a_zone_is_refused(state: State) -> None:
    with pytest.raises(StateError, match="naive UTC"):
        state.runs.start("sync", "acme", NOW.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "has no address"),
        ("mysql://me:hush@host/db", "cannot be 'mysql'"),
        ("postgresql://me:hush@host:not-a-port/db", "URL cannot be read"),
        ("://me:hush@host", "URL cannot be read"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
    ],
)
def test_a_wrong_address_is_explained_without_its_password(url: str, says: str) -> None:
    with pytest.raises(StateError, match=says) as caught:
        State.open(url)

    assert "such as /srv/kyra/state.db, or postgresql://" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        # Nobody else can take it meanwhile, and nobody listens.
        with pytest.raises(StateError, match=rf"127.0.0.1:{port}/kyra cannot be reached") as caught:
            State.open(f"postgresql://me:hush@127.0.0.1:{port}/kyra")

    assert "hush" not in str(caught.value)


def test_a_database_that_does_not_exist_is_named(postgres: Server) -> None:
    with pytest.raises(StateError, match=r"/nowhere does not exist.*Create the database"):
        State.open(postgres.url("nowhere"))


def test_a_connection_the_server_ends_is_explained_and_replaced(postgres: Server) -> None:
    with State.open(postgres.create()) as state:

        def is_cut_off() -> None:
            with state._database.write() as connection:
                pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
                postgres.execute(f"SELECT pg_terminate_backend({pid})")
                connection.exec_driver_sql("SELECT 1")

        with pytest.raises(StateError, match="cannot be reached"):
            is_cut_off()
        assert state.runs.recent() == []


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be opened"):
        State.open(str(tmp_path))


def test_a_file_of_something_else_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("these are not the rows you are looking for" * 100)

    with pytest.raises(StateError, match="is not a database"):
        State.open(str(tmp_path / "state.db"))


def test_a_path_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StateError, match="cannot be made"):
        State.open(str(tmp_path / "file" / "state.db"))


def test_a_read_only_database_can_be_read_and_says_so_when_written(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with State.open(str(path)) as state:
        state.runs.start("sync", "acme", NOW)

    with State.open(f"sqlite:///file:{path}?mode=ro&uri=true") as state:
        assert len(state.runs.recent()) == 1
        with pytest.raises(StateError, match=r"is read-only.*writable"):
            state.runs.start("sync", "acme", NOW)


def test_a_writer_that_never_ends_is_waited_for_then_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    with State.open(url) as ours, State.open(url) as theirs, theirs._database.write():
        assert ours.runs.recent() == []  # readers never wait
        with pytest.raises(StateError, match=r"is locked by another process.*run the command again"):
            ours.runs.start("sync", "acme", NOW)


def test_an_exception_in_a_write_leaves_no_trace(state: State) -> None:
    def fails() -> None:
        with state._database.write() as connection:
            connection.execute(tables.partitions.insert().values(account="1", date=NOW.date(), version=1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert state.ledger.versions([("1", NOW.date())]) == {("1", NOW.date()): 0}


def test_reading_sees_one_snapshot_throughout(url: str) -> None:
    with State.open(url) as state, State.open(url) as other:
        count = text("SELECT count(*) FROM runs")
        with state._database.read() as connection:
            before = connection.scalar(count)
            other.runs.start("sync", "acme", NOW)
            assert connection.scalar(count) == before == 0


def test_threads_share_an_open_database(state: State) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda _: state.runs.start("sync", "acme", NOW), range(100)))

    assert {run["run_id"] for run in state.runs.recent(limit=None)} == set(ids)


def test_postgres_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StateError, match=r"pip install 'psycopg\[binary\]'"):
        State.open("postgresql://me:hush@host/db")
