"""`kyra` as a process: what it loads, how fast it starts, how it is interrupted, what a pipe gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kyra_etl import resources
from tests.cli.conftest import Kyra, asking

KYRA = [sys.executable, "-m", "kyra_etl"]


def loaded_by(command: list[str]) -> set[str]:
    """The packages that a command loads, beside those that Python has loaded before it."""
    program = (
        "import json, sys\nbefore = set(sys.modules)\nfrom kyra_etl import cli\n"
        f"cli.run({command!r})\nprint(json.dumps(sorted({{name.split('.')[0] for name in {{*sys.modules}} - before}})))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_help_is_there_at_once(kyra_home: Path) -> None:
    strangers = {name for name in loaded_by(["--help"]) - sys.stdlib_module_names if not name.startswith("_")}

    assert strangers == {"kyra_etl", "typer", "annotated_doc", "shellingham"}, "each costs time"


@pytest.mark.parametrize(
    "command", [["--help"], ["status"], ["alerts", "list"], ["quarantine", "list"], ["sync", "nope"]]
)
def test_what_needs_the_state_alone_loads_nothing_else(kyra_home: Path, command: list[str]) -> None:
    assert not loaded_by(command) & {
        "prefect",
        "polars",
        "boto3",
        "botocore",
        "s3fs",
        "duckdb",
        "pyarrow",
        "msgspec",
        "rich",
    }


def test_module_and_command_are_the_same_program(kyra_home: Path) -> None:
    ran = subprocess.run([*KYRA, "nonsense"], capture_output=True, text=True)

    assert ran.returncode == 2
    assert ran.stderr == "No such command 'nonsense'. `kyra --help` tells how it is used.\n"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc to know that the query runs")
def test_interrupt_ends_with_130_and_a_line(kyra_home: Path) -> None:
    slow = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0"
    process = subprocess.Popen([*KYRA, "sql", slow], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while asking(process.pid) < 0.5:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)

    assert (process.returncode, out) == (130, "")
    assert err == "Interrupted. What was committed stays; the next run goes on from there.\n"


def test_reader_that_has_heard_enough_ends_it_quietly(kyra_home: Path) -> None:
    command = f"{sys.executable} -m kyra_etl sql 'FROM range(200000)' --limit 0 | head -1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True)

    assert ran.stdout == "  range\n"
    assert "Traceback" not in ran.stderr
    assert "BrokenPipe" not in ran.stderr


def test_output_survives_a_terminal_that_knows_only_ascii(kyra_home: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    ran = subprocess.run([*KYRA, "sql", "SELECT 'café' AS x"], env=env, capture_output=True, text=True)

    assert ran.returncode == 0
    assert "caf\\xe9" in ran.stdout


def test_shell_answers_statement_by_statement(kyra: Kyra, kyra_home: Path, bucket: Path) -> None:
    kyra("load", bucket, "--no-detect")
    typed = (
        ".tables\nSELECT count(*) AS n\nFROM events;\nSELEC;\nCOPY (SELECT 1) TO 'x';\n.nonsense\n.help\n"
        "SELECT 'a;b' AS s;\n.quit\nSELECT 'unreached';\n"
    )
    ran = subprocess.run([*KYRA, "shell"], input=typed, capture_output=True, text=True)

    assert ran.returncode == 0
    assert "alert_events" in ran.stdout
    assert "n\n3\n" in ran.stdout
    assert "s\na;b\n" in ran.stdout
    assert "unreached" not in ran.stdout
    assert 'syntax error at or near "SELEC".' in ran.stderr
    assert "COPY is not a query" in ran.stderr
    assert "There is no .nonsense." in ran.stderr
    assert "Traceback" not in ran.stderr


def test_serve_becomes_the_flows_program(kyra_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flows = tmp_path / "root" / "flows"
    flows.mkdir(parents=True)
    (flows / "__init__.py").touch()
    (flows / "serve.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.environ['KYRA_HOME'], os.getcwd())\nsys.exit(7)\n"
    )
    program = f"from pathlib import Path\nfrom kyra_etl import cli, resources\nresources.flows_root = lambda: Path({str(flows.parent)!r})\ncli.run(['serve', '--port', '4300'])"  # noqa: E501
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)

    assert ran.returncode == 7
    assert ran.stdout == f"['--port', '4300'] {kyra_home} {tmp_path}\n"


def test_serve_without_flows_says_so(kyra: Kyra, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "root", lambda: tmp_path)
    ran = kyra("serve")

    assert ran.code == 1
    assert "flows is missing." in ran.error
