"""The README's transcripts are what the commands print: each is run here, in its order, over one demo."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from docs.transcripts import NOT_RUN, Session, Shown, settled, transcripts

ROOT = Path(__file__).resolve().parent.parent
SHOWN = transcripts((ROOT / "README.md").read_text())
pytestmark = pytest.mark.xdist_group("readme")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of the README prints here and now."""
    session = Session(tmp_path_factory.mktemp("readme"))
    return {shown.command: session.run(shown) for shown in SHOWN if shown.command != NOT_RUN}


@pytest.mark.parametrize("shown", [one for one in SHOWN if one.command != NOT_RUN], ids=lambda one: one.command[:40])
def test_transcript_is_what_the_command_prints(shown: Shown, printed: dict[str, str]) -> None:
    assert settled(printed[shown.command]) == settled(shown.printed)  # renew it with `make docs`


def test_the_two_commands_come_first() -> None:
    assert [one.command for one in SHOWN[:2]] == ["make demo", NOT_RUN]


def test_nothing_is_shown_below_a_command_that_no_test_runs() -> None:
    assert [one.printed for one in SHOWN if one.command == NOT_RUN] == [""]


def test_transcripts_fit_a_page() -> None:
    lines = [line for one in SHOWN for line in one.printed.splitlines() if not line.startswith("  KYRA_HOME=")]

    assert [line for line in lines if len(line) > 100] == []


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


def test_every_verb_that_ends_takes_json() -> None:
    assert {verb for verb, options in known_verbs().items() if "--json" not in options} == {"kyra shell", "kyra serve"}


def test_commands_shown_anywhere_in_the_documents_exist() -> None:
    """Commands for a real account cannot be run here, but their verbs and options can be looked up."""
    verbs = known_verbs()
    unknown = []
    for document in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        shown = re.sub(r"^```text\n.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)  # was printed
        text = shown.replace("\\\n", " ")
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
