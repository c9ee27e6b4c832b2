"""`prefect.yaml` as its first lines say: deployed to a Prefect server of one's own, and worked off by a worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.flows.test_end_to_end import ACCOUNT, TODAY, events_in, put
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


class Own:
    """A Prefect server that is not ours: its command line and its API."""

    def __init__(self, home: Path) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}/api"
        self.env = {**os.environ, "PREFECT_HOME": str(home / "prefect"), "PREFECT_API_URL": self.url}
        self.log = (home / "prefect.log").open("wb")
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        self.process = subprocess.Popen(command, env=self.env, stdout=self.log, stderr=self.log)

    def answers(self) -> bool:
        try:
            return bool(self.ask("health"))
        except OSError:
            return False

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or "null")

    def prefect(self, folder: Path, *arguments: str) -> None:
        """`prefect …` in a folder, as whoever runs the server does it."""
        command = [sys.executable, "-m", "prefect", *arguments]
        env = {**self.env, "PWD": str(folder)}
        ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=400)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def own(tmp_path: Path, kyra_home: Path) -> Iterator[Own]:
    server = Own(tmp_path)
    try:
        waited(server.answers)
        yield server
    finally:
        server.end()


def waited(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_prefect_yaml_deploys_to_a_server_of_ones_own_and_a_worker_syncs(
    own: Own, kyra_home: Path, tmp_path: Path
) -> None:
    put(tmp_path / "bucket", TODAY, "one", {}, {})
    with State.open(str(kyra_home / "state.db")) as state:
        state.integrations.add(Integration("acme", (tmp_path / "bucket").as_uri(), account_id=ACCOUNT), state.now())
    theirs = tmp_path / "theirs"  # whoever deploys has a checkout the worker's machine does not
    shutil.copytree(ROOT / "flows", theirs / "flows")
    shutil.copy(ROOT / "prefect.yaml", theirs)

    own.prefect(theirs, "work-pool", "create", "kyra", "--type", "process")
    own.prefect(theirs, "--no-prompt", "deploy", "--all")

    assert (theirs / "prefect.yaml").read_bytes() == (ROOT / "prefect.yaml").read_bytes()
    shutil.rmtree(theirs)
    found = {one["name"]: one for one in own.ask("deployments/filter", {})}
    assert {name: [each["schedule"]["cron"] for each in one["schedules"]] for name, one in found.items()} == {
        "sync": ["*/5 * * * *"],
        "check": ["17 * * * *"],
        "maintain": ["30 2 * * *"],
        "backfill": [],
    }
    assert {one["work_pool_name"] for one in found.values()} == {"kyra"}

    own.ask(f"deployments/{found['sync']['id']}/pause_deployment", {})  # or one that is due might do the work
    run = own.ask(f"deployments/{found['sync']['id']}/create_flow_run", {"parameters": {"integration": "acme"}})["id"]
    own.prefect(tmp_path, "worker", "start", "--pool", "kyra", "--run-once", "--install-policy", "never")

    state = own.ask(f"flow_runs/{run}")["state"]
    assert (state["type"], state["message"]) == (
        "COMPLETED",
        "acme: 1 log file loaded, 2 new events, 0 new alerts",
    )
    assert events_in(kyra_home) == (2, 2)
