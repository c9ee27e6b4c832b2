"""The supervisor's own parts: ports, locks, children, and its words when it cannot serve."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from flows import deployments, serve
from kyra_etl.errors import ConfigError
from kyra_etl.lake import open_lake
from kyra_etl.state import State, schema
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> bool:
    until = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return met


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:  # it has just gone, or the system has no such files
        return False


@pytest.fixture
def child(tmp_path: Path) -> Iterator[serve.Child]:
    """A child that writes the process id of a child of its own to the file `said`."""
    (tmp_path / "program.py").write_text(LIVES)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    with (tmp_path / "log").open("ab") as log:
        started = serve.Child("program", ("program", str(tmp_path / "said")), env, log)
        started.start()
        assert wait_for((tmp_path / "said").exists)
        yield started
        started.stop()


LIVES = """
import pathlib, subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
said = pathlib.Path(sys.argv[1])
said.with_suffix(".new").write_text(str(below.pid))
said.with_suffix(".new").replace(said)
time.sleep(300)
"""


def kyra_serve(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`kyra serve` where something stands in its way."""
    command = [sys.executable, "-m", "kyra_etl", "serve", *options]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=400)


def test_a_port_in_use_is_named_with_what_to_do(kyra_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((serve.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        ran = kyra_serve("--port", str(port))

    assert ran.returncode == 2
    assert ran.stderr.startswith(f"Port {port} (serve_port) cannot be used")
    assert "--port" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


PORTS = {"STATE_URL": "{home}/its.db", "SERVE_PORT": "4977", "METRICS_PORT": "4977"}


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({"STATE_URL": "mysql://db/kyra"}, 1, "The state database cannot be 'mysql'. Use the path of a file"),
        ({"STATE_URL": "postgresql://kyra:word@127.0.0.1:9/kyra"}, 1, "127.0.0.1:9/kyra cannot be reached"),
        ({"STATE_URL": "{home}/newer.db"}, 1, "newer.db was made by a newer kyra-etl (schema 9999"),
        ({"STATE_URL": "{home}/kyra.toml"}, 1, "kyra.toml is not a database, or is damaged. Check the path"),
        ({"STATE_URL": "{home}/other.db"}, 1, "lake belongs to another state database. Point `state_url` at"),
        (PORTS, 2, "Port 4977 is serve_port and metrics_port. Choose another"),
        ({"SYNC_SECOND": "10"}, 2, "There is no setting KYRA_SYNC_SECOND (in the environment). Did you mean"),
        ({"SYNC_SECONDS": "5"}, 2, "KYRA_SYNC_SECONDS in the environment must be a whole number from 10"),
        ({"HOME": "{home}/kyra.toml", "STATE_URL": "{home}/state.db"}, 2, "cannot be"),
    ],
    ids=[
        "mysql",
        "no server",
        "newer",
        "no database",
        "another lake",
        "one port",
        "no setting",
        "too often",
        "no folder",
    ],
)
def test_what_is_wrong_shows_before_anything_is_started(
    kyra_home: Path, settings: dict[str, str], code: int, says: str
) -> None:
    (kyra_home / "kyra.toml").write_text("# a file that is no database, and no folder\n" * 50)
    State.open(str(kyra_home / "newer.db")).close()
    with State.open(str(kyra_home / "its.db")) as state:
        open_lake(str(kyra_home / "lake")).claim(state.id)
    with sqlite3.connect(kyra_home / "newer.db") as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    connection.close()
    env = {f"KYRA_{name}": value.format(home=kyra_home) for name, value in settings.items()}

    ran = kyra_serve(**env)

    assert (ran.returncode, len(ran.stderr.splitlines())) == (code, 1), ran.stderr
    assert says in ran.stderr
    assert "kyra:word" not in ran.stderr
    assert not (kyra_home / "prefect").exists()


class Answers(BaseHTTPRequestHandler):
    """Answers as a Prefect server of version `says` would, or as something else."""

    says: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        self.send_response(200 if self.says else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(self.says or b'{"detail": "Not Found"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b'"2.20.9"', r"is of version 2\.20\.9; the Prefect here is 3\.\S+\. Bring the server to 3\."),
        (b'"3.1.15"', r"is of version 3\.1\.15; the Prefect here is 3\.\S+\. Bring the server to 3\."),
        (b'"4.0.0"', r"is of version 4\.0\.0; the Prefect here is 3\.\S+\. Bring the server to 3\."),
        (b'{"hello": "world"}', r"is of version \{'hello': 'world'\}; the Prefect here"),
        (b"", r"^No Prefect server answers at http://127\.0\.0\.1:\d+/api \(.*\)\. Start it, or mend PREFECT_API_URL"),
    ],
    ids=["older major", "older", "newer major", "no version", "no Prefect"],
)
def test_a_prefect_server_of_another_version_is_named_before_anything_is_registered(
    answer: bytes, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(Answers, "says", answer)
    monkeypatch.setattr(deployments, "aserve", pytest.fail)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever).start()
        with temporary_settings({PREFECT_API_URL: f"http://u:word@127.0.0.1:{server.server_port}/api"}):
            code = deployments.main()
        server.shutdown()

    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (2 if answer else 1, 1), told
    assert re.search(says, told)
    assert "word" not in told


def test_a_prefect_server_that_is_down_is_named_and_so_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(deployments, "aserve", pytest.fail)
    with socket.socket() as taken:  # and nobody listens
        taken.bind((serve.HOST, 0))
        port = taken.getsockname()[1]
        for url, code, says in (
            (f"http://127.0.0.1:{port}/api", 1, f"No Prefect server answers at http://127.0.0.1:{port}/api (Connect"),
            (None, 2, "PREFECT_API_URL is not set. Set it to your Prefect server, or run `kyra serve`"),
        ):
            with temporary_settings({PREFECT_API_URL: url}):
                assert deployments.main() == code
            assert capsys.readouterr().err.startswith(says)


def test_versions_compare_by_release() -> None:
    assert deployments._release("3.10.0rc1+7.g1234") > deployments._release("3.8.8") > deployments._release("nonsense")


def test_a_server_that_does_not_start_is_told_with_its_reason(kyra_home: Path) -> None:
    """A database of a newer Prefect, which was taken back."""
    (kyra_home / "prefect").mkdir()
    with sqlite3.connect(kyra_home / "prefect" / "prefect.db") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    connection.close()

    ran = kyra_serve("--port", str(free_port()), KYRA_METRICS_PORT="0")

    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    told = ran.stderr.splitlines()[-1]
    assert told.startswith("The Prefect server did not start: Can't locate revision identified by 'ffffffffffff'.")
    assert told.endswith(f"move {kyra_home / 'prefect'} away: it holds only what Prefect's page shows.")


def test_what_a_log_said_before_is_not_the_reason(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "serve.log"
    path.write_text("old.OldError: long ago\n")
    begun = path.stat().st_size

    assert str(serve._not_started(path, begun)) == f"The Prefect server did not start. Its log says more: {path}"
    with path.open("a") as log:
        log.write("sqlite3.OperationalError: database or disk is full\n")
    assert str(serve._not_started(path, begun)).startswith(
        "The Prefect server did not start: database or disk is full."
    )


def test_a_full_disk_leaves_the_terminal_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "serve.log").symlink_to("/dev/full")

    with serve._log_file(tmp_path / "serve.log"):
        serve.log.info("Starting.")

    assert capsys.readouterr().err == "Starting.\n"


def test_a_log_does_not_grow_without_end_while_children_write_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "LOG_BYTES", 1000)
    path, aside = tmp_path / "serve.log", tmp_path / "serve.log.1"
    with serve._log_file(path) as output:
        writing = ["sh", "-c", "while read line; do echo $line; done"]
        with subprocess.Popen(writing, stdin=subprocess.PIPE, stdout=output, text=True, bufsize=1) as child:
            assert child.stdin is not None
            for turn in range(3):
                child.stdin.write(f"{turn} {'x' * 1200}\n")
                assert wait_for(lambda: path.stat().st_size > 1000)
                serve._put_aside(path)
                assert (path.stat().st_size, aside.read_text()[:2]) == (0, f"{turn} ")
            child.stdin.write("and on\n")
            assert wait_for(lambda: path.stat().st_size > 0)
        serve.log.info("Stopping.")

    assert [line.rpartition(" - ")[2] for line in path.read_text().splitlines()] == ["and on", "Stopping."]


def test_one_home_is_served_once(tmp_path: Path) -> None:
    again = serve._alone(tmp_path / "prefect")
    with serve._alone(tmp_path / "prefect"), pytest.raises(ConfigError, match="Another kyra serve"):
        again.__enter__()
    with serve._alone(tmp_path / "prefect"):
        pass


def test_a_child_is_stopped_with_all_it_started(child: serve.Child, tmp_path: Path) -> None:
    below = int((tmp_path / "said").read_text())

    child.stop()

    assert not child.alive()
    assert wait_for(lambda: gone(below))


def test_a_child_that_died_is_started_again(child: serve.Child) -> None:
    first = child.process
    assert not child.revive()
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    child.started, child.pause = time.monotonic(), 300

    assert not child.revive(), "after a pause, in which others are looked after"
    assert child.due is not None
    child.due -= 300
    assert child.revive()

    assert child.alive()
    assert child.process is not first


def test_a_child_that_keeps_dying_is_started_ever_more_rarely(child: serve.Child) -> None:
    pauses = []
    for _ in range(3):
        child.stop()
        child.started = time.monotonic()
        child.revive()
        pauses.append(child.pause)
        child.due = None  # it was started, and died at once

    assert pauses == [1, 2, 4]

    child.started -= serve.STEADY_AFTER
    child.revive()

    assert child.pause == 1, "one that had worked is started again soon"


def test_a_server_that_stopped_answering_is_started_again(child: serve.Child, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = child.process
    assert hung is not None
    monkeypatch.setattr(serve, "HEALTHY_WITHIN", 0.5)
    monkeypatch.setattr(serve, "STOPS_WITHIN", 0.5)
    asked: list[int] = []

    def answers(port: int) -> bool:
        asked.append(port)
        if child.process is not hung or len(asked) == 20:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(serve, "_answers", answers)
    with pytest.raises(KeyboardInterrupt):
        serve._watch(child, [], 1)

    assert child.process is not hung
    assert gone(hung.pid)


def test_a_child_ends_when_its_parent_does(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, sys, time
from flows import serve
env = dict(os.environ, PYTHONPATH=os.pathsep.join([{str(ROOT)!r}, {str(tmp_path)!r}]))
child = serve.Child("program", ("program", {str(tmp_path / "said")!r}), env, open(os.devnull, "wb"))
child.start()
print(child.process.pid, flush=True)
time.sleep(60)
"""
    (tmp_path / "program.py").write_text(LIVES)
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert wait_for((tmp_path / "said").exists)
        parent.kill()

    assert wait_for(lambda: gone(pid))
    os.kill(int((tmp_path / "said").read_text()), signal.SIGKILL)


def test_a_foreign_prefect_does_not_reach_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example/api")
    monkeypatch.setenv("PREFECT_API_KEY", "key")
    monkeypatch.setenv("PREFECT_PROFILE", "cloud")
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")

    env = serve._environment(tmp_path, 4242)

    assert env["PREFECT_API_URL"] == "http://127.0.0.1:4242/api"
    assert env["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert "PREFECT_API_KEY" not in env
    assert "PREFECT_PROFILE" not in env
    assert env["PREFECT_LOGGING_LEVEL"] == "DEBUG", "a matter of taste stays the user's"
    assert env["DO_NOT_TRACK"] == "1"


@pytest.mark.parametrize(
    ("seconds", "said"), [(300, "5 minutes"), (60, "minute"), (15, "15 seconds"), (90, "90 seconds")]
)
def test_the_schedule_is_told_in_words(seconds: int, said: str) -> None:
    assert serve._span(seconds) == said
