"""docs/analysts.md: every search, query and program in it runs over the demo's lake, and finds something."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from kyra_etl import cli, config, resources, wiring
from kyra_etl.load import load

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs/analysts.md").read_text(), re.MULTILINE | re.DOTALL)
QUERIES = [text for kind, text in BLOCKS if kind == "sql"]
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]
pytestmark = pytest.mark.xdist_group("analysts")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KYRA_HOME with the demo's lake and alerts."""
    folder = tmp_path_factory.mktemp("analysts")
    with wiring.open(config.load({"KYRA_HOME": str(folder)})) as parts:
        load([resources.demo_bucket()], **{**parts.for_run(), "clock": lambda: datetime(2026, 4, 1)})
    return folder


@pytest.fixture(autouse=True)
def in_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KYRA_HOME", str(home))
    monkeypatch.chdir(home)


def test_there_are_twenty_queries() -> None:
    assert len(QUERIES) >= 20


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: re.sub(r"\W+", "_", query)[:40])
def test_query_runs_and_finds_something(query: str) -> None:
    with wiring.open(config.load()) as parts:
        assert wiring.analyst(parts).query(query).rows


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_and_finds_something(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(command)

    assert program == "kyra"
    assert cli.run(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out or "--output" in arguments
    assert "\n0 events" not in f"\n{shown.err}"


@pytest.mark.parametrize("program", PROGRAMS, ids=["duckdb", "polars"])
def test_program_runs(program: str) -> None:
    cli.run(["sql", "--init", "--output", "kyra.sql"])
    last = program.rstrip().rpartition("\n")[2]
    ran = subprocess.run(
        [sys.executable, "-c", program.replace(last, f"assert len({last})")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_every_macro_is_shown_at_work() -> None:
    with wiring.open(config.load()) as parts:
        names = [macro.name for macro in wiring.analyst(parts).macros()]

    assert [name for name in names if not any(f"{name}(" in query for query in QUERIES)] == []
