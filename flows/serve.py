"""`kyra serve`: a Prefect server of our own and a runner for the deployments, kept running until told to stop.

Everything lives under KYRA_HOME (`prefect/`: server database, `logs/serve.log`) and listens on this machine only.
This process imports no Prefect: it starts two children, restarts what dies, and ends them when it ends.
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from kyra_etl import config
from kyra_etl.errors import ConfigError, KyraError
from kyra_etl.logs import JsonLines

HOST = "127.0.0.1"
HEALTHY_WITHIN = 240.0
"""Seconds the server may take to answer; the first start creates its database."""
STEADY_AFTER = 30.0
"""Seconds after which a child that dies counts as one that had worked: it is started again at once."""
STOPS_WITHIN = 15.0
"""Seconds a child may take to end before it is killed."""
LOG_BYTES = 20 * 2**20
"""A larger log is put aside as serve.log.1, in place of the one before."""
FOREIGN = ("PREFECT_PROFILE", "PREFECT_API_", "PREFECT_SERVER_DATABASE_")
"""Variables of a Prefect the user may have elsewhere; ours is another one."""

log = logging.getLogger("kyra.serve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; the exit code."""
    options = argparse.ArgumentParser(prog="kyra serve", description="Run Prefect with the scheduled deployments.")
    options.add_argument("--port", type=int, help="port of the Prefect server (setting serve_port, 4200)")
    port: int | None = options.parse_args(arguments).port
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        settings = config.load()
        serve(settings, port or settings.serve_port)
    except KyraError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


def serve(settings: config.Config, port: int) -> None:
    """Run server, runner and metrics below the home until a KeyboardInterrupt."""
    home, is_json = settings.home, settings.log_format == "json"
    if settings.metrics_port == port:
        raise ConfigError(f"Port {port} is serve_port and metrics_port.", "Choose another for one of them.")
    with _alone(home / "prefect"), _log_file(home / "logs" / "serve.log", is_json=is_json) as output:
        _require_free(port, "serve_port", "kyra serve --port N")
        env = _environment(home, port, is_json=is_json)
        server = Child(
            "Prefect server", ("prefect", "server", "start", "--host", HOST, "--port", str(port)), env, output
        )
        runner = Child("runner", ("flows.deployments",), env, output)
        helpers = [runner]
        if settings.metrics_port:
            _require_free(settings.metrics_port, "metrics_port", "another metrics_port, or 0 for none")
            answer = ("kyra_etl", "metrics", "--port", str(settings.metrics_port))
            helpers.append(Child("metrics", answer, env, output))
        try:
            log.info("Starting Prefect; the first start takes half a minute.")
            begun = Path(output.name).stat().st_size
            server.start()
            if not _is_healthy(server, port):
                raise _not_started(Path(output.name), begun)
            for helper in helpers:
                helper.start()
            log.info("Prefect is at http://%s:%d", HOST, port)
            log.info("Scheduled: sync every %s, check every hour, maintain every night.", _span(settings.sync_seconds))
            log.info("On demand: backfill, with a form for its dates, under Deployments.")
            if settings.metrics_port:
                log.info("Metrics are at http://%s:%d/metrics", HOST, settings.metrics_port)
            log.info("Log: %s. Ctrl-C stops everything.", output.name)
            _watch(server, helpers, port)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            log.info("Stopping.")
            for helper in helpers:
                helper.stop()
            server.stop()


def _watch(server: Child, helpers: Sequence[Child], port: int) -> NoReturn:
    """Start again what has died, and a server that has stopped answering; until a KeyboardInterrupt."""
    answered = time.monotonic()
    while True:
        time.sleep(1)
        _put_aside(Path(server.output.name))
        if server.revive():
            answered = time.monotonic()
        if _answers(port):
            answered = time.monotonic()
            for helper in helpers:  # they would die of a server that does not answer yet
                helper.revive()
        elif time.monotonic() - answered > HEALTHY_WITHIN:
            log.warning("The %s runs, but has not answered for %.0f s.", server.name, HEALTHY_WITHIN)
            server.stop()


@dataclass
class Child:
    """A module run as a program: restarted when it dies, ended when we end."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    output: IO[bytes]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.5
    """Seconds to wait before the next restart; doubles while it keeps dying early."""
    due: float | None = None
    """When it is started again, once it was seen to be dead."""

    def start(self) -> None:
        self.started, self.due = time.monotonic(), None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.child", *self.command],
            stdin=subprocess.PIPE,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env=dict(self.env),
            start_new_session=True,  # Ctrl-C is ours to pass on, in order
        )

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def revive(self) -> bool:
        """Start it again if it has died and its pause is over; whether it was started."""
        if self.alive():
            return False
        if self.due is None:
            code = self.process.returncode if self.process else None
            self.stop()
            self.pause = 1.0 if time.monotonic() - self.started > STEADY_AFTER else min(self.pause * 2, 60.0)
            self.due = time.monotonic() + self.pause
            log.warning(
                "The %s ended (exit code %s, see the log); starting it again in %.0f s.", self.name, code, self.pause
            )
        if time.monotonic() < self.due:
            return False
        self.start()
        return True

    def stop(self) -> None:
        """End it and all it started: politely, then not."""
        if self.process is None:
            return
        if self.alive():
            self.process.send_signal(signal.SIGINT)  # on SIGTERM Prefect's runner leaves its runs "Running"
            try:
                self.process.wait(STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                log.warning("The %s did not stop within %.0f s and is killed.", self.name, STOPS_WITHIN)
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of the dead
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _environment(home: Path, port: int, *, is_json: bool = False) -> dict[str, str]:
    """What the children see: kyra's settings as they are, and a Prefect of our own instead of one the user may have."""
    ours = {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # Else it is unpacked beside Prefect's code, where who serves may have no right to write: then there is no page.
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "prefect" / "ui"),
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 86_400),
        "PREFECT_RUNNER_POLL_FREQUENCY": "5",
        "PREFECT_LOGGING_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if is_json:
        ours["PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER"] = "json"
        ours["PREFECT_LOGGING_FORMATTERS_JSON_CLASS"] = "kyra_etl.logs.JsonLines"
    inherited = config.child_environment(home, Path(__file__).resolve().parent.parent)
    return {name: value for name, value in inherited.items() if not name.startswith(FOREIGN)} | ours


def _is_healthy(server: Child, port: int) -> bool:
    """Wait until the server answers for the first time; False when it does not."""
    until = time.monotonic() + HEALTHY_WITHIN
    while time.monotonic() < until and server.alive():
        if _answers(port):
            return True
        time.sleep(0.5)
    return False


def _not_started(path: Path, begun: int) -> KyraError:
    """What kept the server from starting, by what it wrote into the log from byte `begun` on."""
    said = path.read_bytes()[begun:].decode(errors="replace")
    errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)$", said, re.MULTILINE)
    what = f"The Prefect server did not start{f': {errors[-1]}' if errors else ''}".rstrip(".") + "."
    if "Can't locate revision" in said:
        return KyraError(
            f"{what} Its database is of another version of Prefect.",
            f"Upgrade Prefect, or move {path.parent.parent / 'prefect'} away: it holds only what Prefect's page shows.",
        )
    return KyraError(what, f"Its log says more: {path}")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/api/health", timeout=5):
            return True
    except (OSError, http.client.HTTPException):
        return False


def _require_free(port: int, setting: str, other: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {port} ({setting}) cannot be used ({error}).", f"Choose another: {other}."
            ) from None


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory for ourselves; the system lets go of the lock however we end."""
    with _opened(directory / "serve.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"Another kyra serve is running for {directory.parent}.", "Stop it first, or use another KYRA_HOME."
            ) from None
        yield


def _opened(path: Path) -> IO[bytes]:
    """A file to append to, made with its folder if it is not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab", buffering=0)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}.",
            "Make room, or set KYRA_HOME to a folder that this user may write.",
        ) from None


@contextmanager
def _log_file(path: Path, *, is_json: bool = False) -> Iterator[IO[bytes]]:
    """The one log file, for the children's output and our own lines, which also go to standard error."""
    _put_aside(path)
    with _opened(path) as output:
        stamped, plain = logging.FileHandler(path), logging.StreamHandler()
        lines = logging.Formatter("%(asctime)s | %(levelname)-7s | serve - %(message)s")
        stamped.setFormatter(JsonLines() if is_json else lines)
        logging.raiseExceptions = False  # on a full disk the terminal still tells
        log.setLevel(logging.INFO)
        log.propagate = False
        for handler in (stamped, plain):
            log.addHandler(handler)
        try:
            yield output
        finally:
            for handler in (stamped, plain):
                log.removeHandler(handler)
                with suppress(OSError):  # the disk is full
                    handler.close()


def _put_aside(path: Path) -> None:
    """Copy a log that has grown too large, and empty it: whoever writes goes on appending to the file that is open."""
    with suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            shutil.copyfile(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)


def _span(seconds: int) -> str:
    if seconds % 60:
        return f"{seconds} seconds"
    return "minute" if seconds == 60 else f"{seconds // 60} minutes"


if __name__ == "__main__":
    sys.exit(main())
