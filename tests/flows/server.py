"""A running `kyra serve`, for tests and soaks: its process, its API and its log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def processes_below(root: int) -> Iterator[tuple[int, str]]:
    """Every process that `root` started, and theirs, with its command."""
    try:
        children = [
            int(pid) for task in Path(f"/proc/{root}/task").glob("*/children") for pid in task.read_text().split()
        ]
    except OSError:  # it has just ended
        return
    for pid in children:
        yield pid, command_of(pid)
        yield from processes_below(pid)


def command_of(pid: int) -> str:
    """Its command line; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE = 120.0
"""Seconds that a busy machine may take to answer."""


class Server:
    """A running `kyra serve` and its API."""

    def __init__(self, home: Path, port: int, **settings: str) -> None:
        self.home, self.url = home, f"http://127.0.0.1:{port}/api"
        self.metrics = f"http://127.0.0.1:{(metrics := free_port())}/metrics"
        env = {**os.environ, "KYRA_HOME": str(home), "KYRA_SYNC_SECONDS": "10", "KYRA_LOG_FORMAT": "json"}
        env |= {"KYRA_METRICS_PORT": str(metrics), **settings}
        command = [sys.executable, "-m", "flows.serve", "--port", str(port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)

    def ask(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > until:  # "try again", while its SQLite is busy
                    raise
                time.sleep(1)

    def deployments(self) -> dict[str, dict[str, Any]]:
        try:
            return {found["name"]: found for found in self.ask("deployments/filter")}
        except (OSError, urllib.error.URLError):
            return {}

    def start(self, deployment: str, **parameters: Any) -> str:
        made = self.ask(f"deployments/{self.deployments()[deployment]['id']}/create_flow_run", parameters=parameters)
        return str(made["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        (found,) = self.ask("flow_runs/filter", flow_runs={"id": {"any_": [run_id]}})
        return dict(found)

    def ended(self, run_id: str, seconds: float = 400) -> dict[str, Any]:
        """The run, once it has come to its end."""
        self.wait(lambda: self.run(run_id)["state"]["type"] in ENDS, run_id, seconds)
        return self.run(run_id)

    def going_on(self) -> int:
        """How many runs have begun, or are about to, and have not come to their end."""
        types = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        return len(self.ask("flow_runs/filter", flow_runs=types))

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        return list(self.ask("artifacts/filter", artifacts={"key": {"any_": [key]}}))

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.process.poll() is None, f"kyra serve ended; {self.log()}"
            if met := condition():
                return met
            time.sleep(0.5)
        raise AssertionError(f"{what}: waited {seconds:.0f} s in vain; {self.log()}")

    def log(self) -> str:
        path = self.home / "logs" / "serve.log"
        return "the log ends with:\n" + (path.read_text()[-4000:] if path.exists() else "(nothing)")

    def kill(self) -> None:
        """End it and all it started, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()  # its children notice
        self.process.communicate()

    def stop(self) -> tuple[int, str]:
        """The exit code and what it told the terminal."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=PATIENCE)  # three children may take 15 seconds each
        return self.process.returncode, said
