"""Every claim about the state database holds on SQLite and on a real PostgreSQL server, started here."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from kyra_etl.state import State, tables

REQUIRED = bool(os.environ.get("KYRA_REQUIRE_POSTGRES"))  # read here: tests see an environment without KYRA_*
INSTALLED = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL."""

    port: int

    def url(self, database: str) -> str:
        return f"postgresql://postgres:a-secret-word@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def create(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A throw-away server of the installed PostgreSQL; skipped without one, unless KYRA_REQUIRE_POSTGRES is set."""
    found = sorted(INSTALLED.glob("*/bin/postgres"), key=lambda p: float(p.parts[-3]))
    on_path = shutil.which("postgres")
    if not found and not on_path:
        reason = "PostgreSQL's server is not installed (apt-get install postgresql)"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    binaries = found[-1].parent if found else Path(str(on_path)).parent
    home = Path(tempfile.mkdtemp(prefix="kyra-postgres-"))
    become: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(home, owner.pw_uid, owner.pw_gid)
        become = [shutil.which("runuser") or "/usr/sbin/runuser", "-u", "postgres", "--"]
    data = home / "data"
    initdb = [*become, binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([*initdb, "--locale=C.UTF-8"], check=True, capture_output=True, cwd=home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(home), "fsync": "off"}
    settings |= {"synchronous_commit": "off", "full_page_writes": "off", "timezone": "Asia/Tokyo"}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (home / "log").open("wb") as log:
        command = [*become, binaries / "postgres", "-D", data, "-p", str(port), *arguments]
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=home)
    try:
        _wait(port, server, home / "log")
        yield Server(port)
    finally:
        pid = (data / "postmaster.pid").read_text().splitlines()[0]
        subprocess.run([*become, "kill", "-INT", pid], check=False)
        server.wait(timeout=20)
        shutil.rmtree(home, ignore_errors=True)


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    for _ in range(200):
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    pytest.fail(f"PostgreSQL did not start: {log.read_text()[-500:]}")


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
