"""A real PostgreSQL server for the tests, started from what is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

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


def tool(name: str) -> Path:
    """One of PostgreSQL's programs, of the newest version installed; skips without it."""
    found = sorted(INSTALLED.glob(f"*/bin/{name}"), key=lambda p: float(p.parts[-3]))
    if not found:
        pytest.skip(f"{name} is not installed")
    return found[-1]


@contextmanager
def server() -> Iterator[Server]:
    """A throw-away server of the installed PostgreSQL; skips without one, unless KYRA_REQUIRE_POSTGRES is set."""
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
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(home), "fsync": "off"}
    settings |= {"synchronous_commit": "off", "full_page_writes": "off", "timezone": "Asia/Tokyo"}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    port, running = _started([*become, binaries / "postgres", "-D", data, *arguments], home)
    try:
        yield Server(port)
    finally:
        pid = (data / "postmaster.pid").read_text().splitlines()[0]
        subprocess.run([*become, "kill", "-INT", pid], check=False)
        running.wait(timeout=60)
        shutil.rmtree(home, ignore_errors=True)


def _started(command: Sequence[str | Path], home: Path) -> tuple[int, subprocess.Popen[bytes]]:
    """The server and its port. A port that was free may be somebody else's a moment later: then another one."""
    for _ in range(5):
        port = free_port()
        with (home / "log").open("ab") as log:
            running = subprocess.Popen([*command, "-p", str(port)], stdout=log, stderr=log, cwd=home)
        if _answers(port, running, home):
            return port, running
    pytest.fail(f"PostgreSQL did not start: {(home / 'log').read_text()[-500:]}")


def _answers(port: int, server: subprocess.Popen[bytes], home: Path) -> bool:
    """Wait until it does. Asked by its own socket: on the port, somebody else's server might answer in its place."""
    import psycopg

    for _ in range(1_200):
        try:
            psycopg.connect(host=str(home), port=port, user="postgres", dbname="postgres").close()
            return True
        except psycopg.OperationalError:
            if server.poll() is not None:
                return False
            time.sleep(0.1)
    pytest.fail(f"PostgreSQL did not start in time: {(home / 'log').read_text()[-500:]}")
