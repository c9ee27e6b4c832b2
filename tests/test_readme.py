"""The README's transcripts are what the commands print: each is run here, in its order, over one demo.

What a machine or a moment decides (run ids, durations, the date, temporary folders) is put out of sight on both sides;
everything else must be equal, character by character.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
KYRA = [sys.executable, "-c", "from kyra_etl.cli import main; main()"]


@dataclass(frozen=True)
class Transcript:
    """A command and what the README says it prints."""

    command: str
    printed: str


def transcripts(markdown: str) -> list[Transcript]:
    """The `$ command` lines of ```console blocks, each with the lines below it."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            ends = next((number for number, line in enumerate(lines) if not line.endswith("\\")), 0)
            command = " ".join(line.removesuffix("\\").strip() for line in lines[: ends + 1])
            found.append(Transcript(command, "\n".join(lines[ends + 1 :])))
    return found


SHOWN = transcripts(README)


def as_run_here(command: str) -> list[str]:
    """The same command with this environment's Python, whether or not make has installed a `kyra`."""
    words = shlex.split(command)
    if words == ["make", "demo"]:
        return [*KYRA, "demo"]
    if words[0].endswith("kyra"):
        return [*KYRA, *words[1:]]
    if words[0].endswith("python"):
        return [sys.executable, *words[1:]]
    raise AssertionError(f"the README shows a command no test can run: {command}")


def settled(text: str) -> str:
    """`text` without what changes from run to run, and without blanks at line ends."""
    for pattern, word in (
        (r"\b\d{8}T\d{6}-[0-9a-f]{6,}\b", "<run>"),
        (r"\b\d+(\.\d+)? ?(s|ms|seconds|minutes)\b", "<time>"),
        (r"\b20(?!26-0)\d\d-\d\d-\d\d( \d\d:\d\d(:\d\d)?)?\b", "<now>"),
    ):
        text = re.sub(pattern, word, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize(
    "shown", [one for one in SHOWN if one.command != "make test"], ids=lambda one: one.command[:40]
)
def test_transcript_is_what_the_command_prints(shown: Transcript, home: Path) -> None:
    env = {**os.environ, "KYRA_HOME": str(home), "COLUMNS": "100", "NO_COLOR": "1"}
    ran = subprocess.run(as_run_here(shown.command), cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    printed = (ran.stdout + ran.stderr).replace(str(home), "~/.kyra")

    assert ran.returncode in (0, 3), ran.stderr
    assert settled(printed) == settled(shown.printed)


def test_the_two_commands_come_first_and_show_how_they_end() -> None:
    assert [one.command for one in SHOWN[:2]] == ["make demo", "make test"]
    assert re.search(r"^=+ \d+ passed.* in .+ =+$", SHOWN[1].printed, re.MULTILINE)


def test_transcripts_fit_a_page() -> None:
    assert [line for one in SHOWN for line in one.printed.splitlines() if len(line) > 100] == []


def known_verbs() -> dict[str, set[str]]:
    """Options of every verb of the command line, by its full name."""
    import typer.main

    from kyra_etl.cli import app

    def walk(group: object, path: str) -> dict[str, set[str]]:
        verbs: dict[str, set[str]] = {}
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                verbs |= walk(command, f"{path} {name}")
            else:
                verbs[f"{path} {name}"] = {option for one in command.params for option in one.opts + one.secondary_opts}
        return verbs

    return walk(typer.main.get_command(app), "kyra")


def test_commands_shown_anywhere_in_the_documents_exist() -> None:
    """Commands for a real account cannot be run here, but their verbs and options can be looked up."""
    verbs = known_verbs()
    unknown = []
    for document in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        text = document.read_text().replace("\\\n", " ")
        for line in re.findall(r"^\s*(?:\$ )?(?:\.venv/bin/)?(kyra [^\n]+)$|`(kyra [a-z][^`]*)`", text, re.MULTILINE):
            words = [word for word in shlex.split("".join(line), comments=True) if word]
            verb = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in verbs), None)
            groups = {name.rpartition(" ")[0] for name in verbs}
            if verb is None and " ".join(words[:2]) not in groups and words[1:] != ["--help"]:
                unknown.append(f"{document.name}: {' '.join(words)}")
            elif verb is not None:
                options = {word.partition("=")[0] for word in words if word.startswith("-")}
                unknown += [f"{document.name}: {verb} {option}" for option in options - verbs[verb] - {"--help"}]

    assert unknown == []
