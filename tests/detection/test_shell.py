"""A detection's SELECT runs unchanged in any DuckDB shell that has read `sql/views/shell.sql`."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from kyra_etl import resources
from kyra_etl.detect import detect_window
from kyra_etl.detection.rule import Corpus
from kyra_etl.lake import open_lake
from kyra_etl.lake.layout import HIVE_TYPES
from kyra_etl.lake.views import ACCOUNTS, TRAILS
from kyra_etl.load import load
from kyra_etl.model import Limits, Window
from kyra_etl.state import State

ROOT = resources.root()
CORPUS = Corpus.load([resources.detections_dir()])
SPAN = Window(datetime(2026, 3, 9), datetime(2026, 3, 14))


def _read(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """As the shell's `.read`."""
    text = path.read_text()
    for nested in re.findall(r"^\.read (.+)$", text, re.MULTILINE):
        _read(connection, ROOT / nested)
    connection.execute(re.sub(r"^\.read .+$", "", text, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The story's lake, and how many findings a back-test of each detection has over it."""
    folder = tmp_path_factory.mktemp("shell")
    with State.open(str(folder / "state.db")) as state:
        lake = open_lake(str(folder / "lake"))
        lake.claim(state.id)
        parts = {"lake": lake, "state": state, "corpus": CORPUS}
        load(
            [resources.demo_bucket()], limits=Limits(), clock=lambda: datetime(2026, 4, 1), **{**parts, "corpus": None}
        )
        report = detect_window(SPAN, now=datetime(2026, 4, 1), dry_run=True, **parts)
    found: dict[str, int] = {}
    for day in report.days.values():
        for id_, counts in day.items():
            found[id_] = found.get(id_, 0) + counts["findings"]
    return folder / "lake", found


def test_the_shell_finds_what_the_engine_finds(lake: tuple[Path, dict[str, int]]) -> None:
    folder, found = lake
    with duckdb.connect(":memory:") as shell:
        shell.execute(f"SET VARIABLE lake = '{folder}'")
        _read(shell, ROOT / "sql/views/shell.sql")
        rows = {each.id: len(shell.execute(each.sql).fetchall()) for each in CORPUS.detections}

    assert {id_: count for id_, count in rows.items() if count} == found
    assert len(found) >= 8


def test_the_shell_has_the_same_relations() -> None:
    text = (ROOT / "sql/views/relations.sql").read_text()

    assert text.count(HIVE_TYPES) == 2
    for name, columns in (("trails", TRAILS), ("accounts", ACCOUNTS)):
        said = re.search(rf"TABLE {name} \((.*?)\);", text, re.DOTALL)
        assert said is not None
        assert dict(re.findall(r"(\w+) (\w+)", said[1])) == columns


def test_what_the_shell_reads_is_fresh() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import generate
    finally:
        sys.path.pop(0)

    stale = [path for path, made in generate.FILES.items() if (ROOT / path).read_text() != made()]
    assert stale == [], "run `make docs`"
