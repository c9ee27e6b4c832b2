"""Runs what the README shows, so that `make docs` can renew it and a test can hold it true.

A transcript is a ```console block: `$ command`, then what it prints. A ```python block followed by a ```text block is
a program and what it prints. All run in their order over one demo, in a home of their own.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KYRA = [sys.executable, "-c", "from kyra_etl.cli import main; main()"]
NOT_RUN = "make test"
"""Cannot be run by a test, so nothing may be shown below it."""


@dataclass(frozen=True)
class Shown:
    """A command (or a program) and what the document says it prints."""

    command: str
    printed: str
    program: bool = False


_BLOCKS = re.compile(
    r"^```console\n(?P<console>.*?)^```$|^```python\n(?P<program>.*?)^```\n+```text\n(?P<text>.*?)^```$", re.M | re.S
)


def transcripts(markdown: str) -> list[Shown]:
    """Everything a document shows as run."""
    found = []
    for block in _BLOCKS.finditer(markdown):
        if block["program"] is not None:
            found.append(Shown(block["program"], block["text"], program=True))
        else:
            found += [Shown(command, printed) for command, printed in _commands(block["console"])]
    return found


def renewed(markdown: str, run: Callable[[Shown], str]) -> str:
    """The document with what `run` returns wherever it differs in more than what changes from run to run."""

    def now(shown: Shown) -> str:
        printed = shown.printed if shown.command == NOT_RUN else run(shown)
        return shown.printed if settled(printed) == settled(shown.printed) else printed.strip("\n") + "\n"

    def block(match: re.Match[str]) -> str:
        if match["program"] is not None:
            printed = now(Shown(match["program"], match["text"], program=True))
            return f"```python\n{match['program']}```\n\n```text\n{printed}```"
        parts = [f"$ {command}\n{now(Shown(command, printed))}" for command, printed in _commands(match["console"])]
        return f"```console\n{''.join(parts)}```"

    return _BLOCKS.sub(block, markdown)


def _commands(block: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


class Session:
    """A person's shell in the checkout: `export` is remembered, ~ is an empty folder."""

    def __init__(self, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KYRA_")}
        self.home = home
        self.environment = {**kept, "HOME": str(home), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}

    def run(self, shown: Shown) -> str:
        """What it prints, both streams as a terminal shows them. Raises ValueError when it fails."""
        if shown.program:
            command = [sys.executable, "-c", shown.command]
        else:
            words = shlex.split(shown.command)
            if words[0] == "export":
                exports = (word.partition("=") for word in words[1:])
                self.environment |= {name: value.replace("~", str(self.home), 1) for name, _, value in exports}
                return ""
            command = self._here(words)
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        if ran.returncode not in (0, 3):
            raise ValueError(f"{shown.command} ended with {ran.returncode}: {ran.stdout}")
        return ran.stdout

    def _here(self, words: list[str]) -> list[str]:
        """The same command with this Python, whether or not make has installed a `kyra`."""
        if words == ["make", "demo"]:
            return [*KYRA, "demo"]
        if words[0].endswith("kyra"):
            return [*KYRA, *words[1:]]
        raise ValueError(f"a transcript shows a command that is not kyra's: {' '.join(words)}")


def settled(printed: str) -> str:
    """What was printed without what a machine or a moment decides, and without blanks at the ends of lines."""
    for pattern, word in (
        (r"(?:\.venv/bin/)?\bkyra (?=[a-z])", "kyra "),
        (r"\b\d{8}T\d{6}-[0-9a-f]{6,}\b", "<run>"),
        (r"\b20(?!26-0)\d\d-\d\d-\d\d( \d\d:\d\d(:\d\d)?)?(?:  \d+ (s|min|h) ago *)?", "<now>"),
        (r"\b\d+(\.\d+)? ?(s|ms|seconds)\b", "<time>"),
    ):
        printed = re.sub(pattern, word, printed)
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())
