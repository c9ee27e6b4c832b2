"""Secrets that tests plant, and where they must never come up again.

External ids, queue URLs and tokens of the suite carry a mark. Whatever a test prints, logs or leaves on disk is
searched for it, and for external ids of the form that kyra makes: every test's captured streams and log (also those a
test reads itself, and those of processes it starts), and at the end of each worker every file below its temporary
folder, SQLite databases table by table. The only places where they may stand: the output of `kyra integration policy`,
and the two columns of the state database that hold them.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

EXTERNAL_ID = "pl4nted-external-id/4711"
QUEUE_NAME = "pl4nted-queue"
QUEUE_URL = f"https://sqs.eu-west-1.amazonaws.com/999988887777/{QUEUE_NAME}"
TOKEN = "pl4nted-token"

_LEAK = re.compile(
    rb"pl4nted-external-id|pl4nted-token|/[0-9]{12}/pl4nted-queue"
    rb"|\bkyra-(?=[A-Za-z0-9_-]*[A-Z])(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{32}(?![A-Za-z0-9_-])"
)
_HELD = {"integrations": ("external_id", "queue_url")}
_POLICY_FILES = ("trust.json", "queue-attributes.json")
"""What the commands of `kyra integration policy` write."""


def leaks(text: str | bytes | None) -> list[str]:
    """Every planted secret in a text."""
    found = text.encode(errors="replace") if isinstance(text, str) else text or b""
    return sorted({match.decode() for match in _LEAK.findall(found)})


def is_policy(arguments: Any) -> bool:
    """Whether a command is the one that may show them."""
    words = [str(one) for one in arguments] if isinstance(arguments, list | tuple) else str(arguments).split()
    return any(pair == ("integration", "policy") for pair in pairwise(words))


class Watch:
    """Searches what tests print while they run. `seen` are the findings of the current test."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._excused = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at every stream that a test reads: of capsys and capfd, and of processes."""
        from kyra_etl import cli

        watch, run = self, cli.run
        communicate, readouterr = subprocess.Popen.communicate, pytest.CaptureFixture.readouterr

        def watched_run(arguments: list[str]) -> int:
            watch._excused = watch._excused or is_policy(arguments)
            return run(arguments)

        def watched_readouterr(self: Any) -> Any:
            read = readouterr(self)
            if not watch._excused:
                watch.look("a captured stream", *read)
            watch._excused = False
            return read

        def watched_communicate(self: Any, *arguments: Any, **named: Any) -> Any:
            streams = communicate(self, *arguments, **named)
            if not is_policy(self.args):
                watch.look(f"the output of {self.args}", *streams)
            return streams

        monkeypatch.setattr(cli, "run", watched_run)
        monkeypatch.setattr(pytest.CaptureFixture, "readouterr", watched_readouterr)
        monkeypatch.setattr(subprocess.Popen, "communicate", watched_communicate)

    def look(self, where: str, *texts: str | bytes | None) -> None:
        self.seen += [f"{secret} in {where}" for text in texts for secret in leaks(text)]


def in_folder(folder: Path) -> Iterator[str]:
    """Every planted secret in the files below a folder, with the place where it lies."""
    # Not rglob: it gives up where a folder goes that a server was about to leave.
    for path in sorted(Path(top, name) for top, _, names in os.walk(folder) for name in names):
        if not path.is_file() or path.is_symlink() or path.name in _POLICY_FILES:
            continue
        if path.suffix == ".parquet":
            continue  # events are evidence: a customer's records hold whatever their callers sent
        try:
            content = path.read_bytes()
        except OSError:
            continue  # a socket, or a file that has just gone
        if content.startswith(b"SQLite format 3\x00"):
            yield from _in_database(path)
        elif not path.name.endswith(("-wal", "-shm", "-journal")):
            for secret in leaks(content):
                yield f"{secret} in {path}"


def _in_database(path: Path) -> Iterator[str]:
    """Table by table, so that the columns that hold them can be left out; what is deleted is not looked at."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                cursor = database.execute(f'SELECT * FROM "{table}"')
                names = [column[0] for column in cursor.description]
                for row in cursor:
                    for name, value in zip(names, row, strict=True):
                        if isinstance(value, str | bytes) and name not in _HELD.get(table, ()):
                            for secret in leaks(value):
                                yield f"{secret} in {table}.{name} of {path}"
    except sqlite3.Error:
        return  # a database that a test broke on purpose
