"""What the documents show to run is run: here, or by the test of its document. The rest says above it what it needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kyra_etl import config, prices, resources
from kyra_etl.cases import load_cases, run_cases
from kyra_etl.detection.rule import Corpus
from kyra_etl.lake import layout, tables
from tests.cli.conftest import put, record

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {
    "README.md": ("tests/test_readme.py", {"console", "python"}),
    "docs/analysts.md": ("tests/test_analysts.py", {"sh", "sql", "python"}),
}
"""Documents that have a test of their own, and the languages of which it runs every block."""
TOLD = {"CONTRIBUTING.md": "make test\n"}
"""What no test can run, being what runs them."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where, in which language (`text` was printed), what it needs besides a test, and its text."""

    document: str
    line: int
    language: str
    needs: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks() -> Iterator[Block]:
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        text, document = path.read_text(), str(path.relative_to(ROOT))
        for found in re.finditer(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
            above = text[: found.start()].rstrip("\n").rpartition("\n")[2].strip()
            needs = re.fullmatch(r"<!-- needs (.+) -->", above)
            line = text[: found.start()].count("\n") + 1
            yield Block(document, line, found[2], needs and needs[1], textwrap.dedent(found[3]))


OURS = [
    block
    for block in blocks()
    if not block.needs and TOLD.get(block.document) not in block.text.split("$ ")
    if block.language not in ELSEWHERE.get(block.document, ("", set()))[1]
]


def of(*languages: str) -> list[Block]:
    return [block for block in OURS if block.language in languages]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home directory of a user with one integration, synced once."""
    home = tmp_path_factory.mktemp("user")
    put(home / "bucket", "first", record("e1"))
    run(home, f"kyra integration add prod --bucket {(home / 'bucket').as_uri()}; kyra sync")
    return home


def run(home: Path, script: str) -> None:
    """A user's lines in a shell, in the folder `there`; fails with what they said."""
    kyra = f"kyra() {{ {sys.executable} -c 'from kyra_etl.cli import main; main()' \"$@\"; }}\n"
    env = {name: value for name, value in os.environ.items() if not name.startswith("KYRA_")}
    (home / "there").mkdir(exist_ok=True)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", kyra + script],
        cwd=home / "there",
        env={**env, "HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, f"{script}\n{ran.stdout}{ran.stderr}"


def test_every_block_is_run_or_says_what_it_needs() -> None:
    run_here = {"console", "sh", "json", "toml", "yaml", "sql", "text"}
    others = [str(block) for block in OURS if block.language not in run_here]

    assert others == [], "give it a test, or put <!-- needs … --> above it"
    for document, (test, _) in ELSEWHERE.items():
        assert document in (ROOT / test).read_text()


def test_blocks_without_a_language_are_drawings_and_hold_no_command() -> None:
    commands = []
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        inside: str | None = None
        for line in path.read_text().splitlines():
            if fence := re.fullmatch(r"\s*```(\w*)", line):
                inside = fence[1] if inside is None else None
            elif inside == "" and re.match(r"\s*(\$ |kyra |make |aws |\.venv/)", line):
                commands.append(f"{path.name}: {line}")

    assert commands == []


def test_what_blocks_need_is_nothing_a_test_could_have() -> None:
    assert {block.needs for block in blocks() if block.needs} <= {
        "AWS",
        "Docker",
        "DuckDB's shell",
        "Kubernetes",
        "root",
        "half an hour",
        "minutes",
    }


@pytest.mark.slow
@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("block", of("console", "sh"), ids=str)
def test_commands_run(block: Block, user: Path) -> None:
    lines = re.sub(r"^\$ ", "", block.text, flags=re.MULTILINE)
    for tool in ("sqlite3",):
        if tool in lines and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    # `make` would look after the whole environment first.
    lines = re.sub(r'^make soak ARGS="(.+)"$', rf"{sys.executable} -m tests.simulation \1", lines, flags=re.MULTILINE)

    run(user, lines)


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_settings_are_settings(block: Block, tmp_path: Path) -> None:
    (tmp_path / "kyra.toml").write_text(block.text)

    settings = config.load({"KYRA_HOME": str(tmp_path)})

    known = Corpus.load((resources.detections_dir(),), settings.detections.params, settings.detections.disable)
    assert known.problems == ()


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    assert json.loads(block.text)


@pytest.mark.parametrize("block", of("sql"), ids=str)
def test_detections_are_detections(block: Block, tmp_path: Path) -> None:
    (tmp_path / "logging").mkdir()
    (tmp_path / "logging" / "cloudtrail_disabled.sql").write_text(block.text)

    corpus = Corpus.load((tmp_path,))

    assert corpus.problems == ()
    assert [detection.id for detection in corpus.detections] == ["cloudtrail_disabled"]


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_cases_hold(block: Block, tmp_path: Path) -> None:
    (tmp_path / "logging").mkdir()
    (tmp_path / "logging" / "cloudtrail_disabled.yaml").write_text(block.text)
    cases = load_cases([tmp_path])

    results = list(run_cases(cases, Corpus.load((resources.detections_dir(),))))

    assert len(results) == len(cases) == 2
    assert [result for result in results if result.failures] == []


def test_suites_that_run_on_both_lakes_take_the_fixture() -> None:
    said = (ROOT / "CONTRIBUTING.md").read_text().partition("These suites do: ")[2].partition(";")[0]
    suites = [ROOT / name for name in re.findall(r"`(tests/[^`]+)`", said)]

    assert len(suites) == 5
    for suite in suites:
        modules = [suite] if suite.is_file() else sorted(suite.glob("*.py"))
        assert any(re.search(r"^def \w+\([^)]*\blake: Lake\b", each.read_text(), re.MULTILINE) for each in modules), (
            suite
        )


def test_every_folder_of_the_lake_is_described() -> None:
    page = (ROOT / "docs/lake.md").read_text()
    drawn = set(re.findall(r"^<lake>/(\w+)", page, re.MULTILINE))

    folders = {value for name, value in vars(layout).items() if name.endswith("_DIR")}
    assert drawn == {*folders, *tables.TABLES, Path(layout.MARKER).stem}
    used = {f"{table}.{column}" for table, schema in tables.TABLES.items() for column in schema.names}
    assert {name for name in tables.MEANINGS if "." in name} <= used
    assert {name for name in tables.MEANINGS if "." not in name} <= {name.partition(".")[2] for name in used}


def test_the_bill_of_a_large_day_adds_up_at_the_prices_of_the_table() -> None:
    page = (ROOT / "docs/scaling.md").read_text()
    usd = prices.table().usd
    rows = re.findall(r"^\| .+ \| ([\d,]+) \| `(\w+)` \| ([\d.]+) \|$", page, re.MULTILINE)
    kept = re.search(r"([\d,]+) GB × \$([\d.]+) a month ÷ 30 \| \| \| ([\d.]+) \|", page)
    products = re.findall(r"^\|.*\| ([\d,]+)[a-z ]* × (\d+)(?: files × (\d+))? \| ([\d,]+) \|", page, re.MULTILINE)

    def number(text: str) -> int:
        return int(text.replace(",", "") or 1)

    assert len(rows) == 7
    for requests, price, dollars in rows:
        assert round(number(requests) * usd[price], 2) == float(dollars), price
    assert len(products) == 4
    for first, second, third, requests in products:
        assert number(first) * number(second) * number(third) == number(requests)
    assert kept is not None
    assert float(kept[2]) == usd["s3_gb_month"]
    assert round(number(kept[1]) * float(kept[2]) / 30, 2) == float(kept[3])
    total = sum(float(dollars) for *_, dollars in rows) + float(kept[3])
    assert f"${total:.0f} a day" in page
    lake = sum(float(dollars) for *_, dollars in rows[3:])
    assert f"${lake / 12:.0f} in place of ${lake:.0f}" in page
