"""Every claim about the state database holds on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from kyra_etl.state import State, tables
from tests.postgres import Server


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "migrated.db"
    State.open(str(path)).close()
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Server) -> str:
    """The name of a database at head that tests share, one after the other."""
    url = postgres.create()
    State.open(url).close()
    return url.rsplit("/", 1)[1]


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database nobody has opened yet."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'state.db'}"
    server: Server = request.getfixturevalue("postgres")
    return server.create()


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database at head, without a row."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "state.db")
        return f"sqlite:///{tmp_path / 'state.db'}"
    server: Server = request.getfixturevalue("postgres")
    database: str = request.getfixturevalue("migrated_postgres")
    emptied = [table.name for table in reversed(tables.metadata.sorted_tables) if table.name != "meta"]
    server.execute("; ".join(f"DELETE FROM {name}" for name in emptied), database)  # faster than TRUNCATE when small
    return server.url(database)


@pytest.fixture
def state(url: str) -> Iterator[State]:
    with State.open(url) as opened:
        yield opened


Statements = Callable[[], Sequence[str]]


@pytest.fixture
def statements(state: State) -> Iterator[Statements]:
    """Call it for the SQL that `state` sent since the last call."""
    from sqlalchemy import event

    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    def since() -> Sequence[str]:
        said = list(seen)
        seen.clear()
        return said

    event.listen(state._database._engine, "before_cursor_execute", note)
    yield since
    event.remove(state._database._engine, "before_cursor_execute", note)
