"""The house rules, held by tests: layers, cold starts, sizes, words, and documents that tell the truth."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path for part in ("kyra_etl", "flows", "benchmarks", "evaluation") for path in ROOT.glob(f"{part}/**/*.py")
)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def repository_files() -> Iterator[Path]:
    """Every file that is part of the project, whether or not git is there to say so."""
    try:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        parts = {".venv", ".git", "__pycache__"}
        paths = [path for path in ROOT.rglob("*") if not parts & set(path.relative_to(ROOT).parts)]
    return (path for path in paths if path.is_file())


# ── layers and cold starts ──


def test_imports_keep_to_the_layers() -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def loaded_by(arguments: list[str]) -> set[str]:
    """Top-level packages in memory after `kyra …` has run in a process of its own."""
    program = """
import json, sys
sys.argv = ["kyra", *json.loads(sys.argv[1])]
from kyra_etl.cli import main
try:
    main()
except SystemExit as end:
    if end.code not in (0, None):
        raise
finally:
    print("\\n" + json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, json.dumps(arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


HEAVY = {"prefect", "polars", "boto3", "botocore", "s3fs", "aiobotocore", "duckdb", "pyarrow", "msgspec", "fastapi"}


def test_help_loads_nothing_heavy(kyra_home: Path) -> None:
    assert not loaded_by(["--help"]) & (HEAVY | {"sqlalchemy", "alembic"})


def test_status_loads_the_state_and_nothing_else_heavy(kyra_home: Path) -> None:
    assert not loaded_by(["status"]) & HEAVY


def test_only_config_reads_the_environment() -> None:
    readers = {
        relative(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
        if isinstance(node.value, ast.Name) and node.value.id == "os"
    }

    # Two set what a library asks as it is loaded, Arrow's allocator, Prefect's telemetry; benchmarks pass KYRA_HOME on.
    setters = {"kyra_etl/__init__.py", "flows/__init__.py"}
    assert readers <= {
        "kyra_etl/config.py",
        *setters,
        *(f"benchmarks/{name}.py" for name in ("lake", "load", "spread")),
    }


def test_parquet_is_read_and_written_in_the_lake_only() -> None:
    strangers = {
        relative(path)
        for path in MODULES
        if not relative(path).startswith(("kyra_etl/lake/", "benchmarks/"))
        if re.search(r"pyarrow(\.| import )(parquet|dataset|fs)\b|(read|scan|write|sink)_parquet\b", path.read_text())
    }

    assert strangers == set()


# ── sizes, names and words ──


def test_modules_stay_small() -> None:
    long = {relative(path): len(path.read_text().splitlines()) for path in MODULES}

    assert {name: lines for name, lines in long.items() if lines > 400} == {}, "is a second noun hiding in it?"


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler"}

    assert [relative(path) for path in MODULES if path.stem in drawers] == []


FORBIDDEN = {
    # In two parts, so that this file passes its own test.
    "a package registry's host": r"pypi"
    r"\.org|python"
    r"hosted\.org|registry\.npm"
    r"js\.org|extensions\.duck"
    r"db\.org",
    "a path of one machine": r"(?<![\w.\-/:}])/(?:home|Users|root|work|farm)/(?!you\b)\w",
    "unfinished work": r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b",
    "a key that was never invented": r"-----BEGIN [A-Z ]*PRIVATE" r" KEY-----",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_in_the_repository_names(what: str) -> None:
    found = []
    for path in repository_files():
        if path.suffix in {".gz", ".png", ".parquet"} or relative(path) == "LICENSE":
            continue
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{relative(path)}: {match.group()}" for match in re.finditer(FORBIDDEN[what], text)]

    assert found == []


def test_locks_pin_every_package_by_hash_and_name_no_index() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        packages = re.split(r"\n(?=\S)", text.strip())
        assert [package for package in packages if "==" not in package or "--hash=sha256:" not in package] == []
        assert "://" not in text
    assert [path.name for path in ROOT.glob("*.lock") if path.name in ("uv.lock", "poetry.lock")] == []


def test_the_development_lock_adds_to_the_runtime_lock_and_changes_nothing_in_it() -> None:
    runtime, development = (
        set(re.findall(r"^(\S+==\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    )

    assert runtime <= development


FROM_AN_INDEX = re.compile(r"\b(pipx?|uvx?)\b.*\b(install|run)\b.*[ '\"]kyra-etl\b")


def test_nobody_is_sent_to_an_index_for_a_package_that_is_not_released_there() -> None:
    """Somebody else may publish under the name; a checkout or a wheel of ours is what there is."""
    told = []
    for path in [*MODULES, *DOCUMENTS, ROOT / "Makefile", *ROOT.glob("deploy/**/*.*")]:
        told += [
            f"{relative(path)}: {line.strip()}" for line in path.read_text().splitlines() if FROM_AN_INDEX.search(line)
        ]

    assert told == []


def test_remedies_that_name_packages_name_those_of_the_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        name: {re.split(r"[>=<]", each)[0] for each in project["optional-dependencies"][name]}
        for name in ("postgres", "dask")
    }
    said = "".join((ROOT / name).read_text() for name in ("kyra_etl/state/database.py", "flows/spread.py"))

    found = [set(each.replace("'", "").split()) for each in re.findall(r"Run: pip install ([^\"]+)\"", said)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, extras.values()))


# ── documents ──


def headings(markdown: str) -> set[str]:
    """Anchors of a document, as the forge makes them."""
    titles = re.findall(r"^#+ +(.+)$", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_inside_the_documents_lead_somewhere(document: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        if not file.exists() or (anchor and anchor not in headings(file.read_text())):
            dead.append(target)

    assert dead == []


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [relative(path) for path in ROOT.glob("docs/*.md")]

    assert [page for page in pages if f"]({page})" not in readme] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_paths_named_in_the_documents_exist(document: Path) -> None:
    named = re.findall(r"`((?:kyra_etl|flows|sql|data|tests|docs|benchmarks|deploy)/[\w./\-]*)`", document.read_text())

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_decision_says_what_was_chosen_why_and_what_holds_it() -> None:
    notes = sorted((ROOT / "docs/decisions").glob("0*.md"))
    index = (ROOT / "docs/decisions/README.md").read_text()

    assert [int(note.name[:4]) for note in notes] == list(range(1, len(notes) + 1))
    for note in notes:
        text = note.read_text()
        assert all(part in text for part in ("**Choice.**", "**Why.**", "**How enforced.**")), note.name
        assert note.name in index


def test_make_help_tells_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert [target for target in phony.group(1).split() if f"make {target} " not in told] == []


def test_generated_parts_of_the_documents_are_fresh() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", GENERATE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": "docs"},
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [], "run `make docs`"


GENERATE = """
import generate
for document in generate.documents():
    if generate.renewed(document.read_text()) != document.read_text():
        print(document.name)
for name, made in generate.FILES.items():
    if made() != (generate.ROOT / name).read_text():
        print(name)
"""
