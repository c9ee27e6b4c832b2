"""`kyra shell` in a real terminal: lines, completion, history, and Ctrl-C."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kyra_etl import config, wiring
from kyra_etl.cli.shell import Shell
from kyra_etl.lake import guard
from tests.cli.conftest import Kyra, asking
from tests.conftest import ROOT

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


# The first terminal that a process without one opens becomes its own, and so Ctrl-C reaches it.
PROGRAM = """
import os, sys
os.close(os.open(sys.argv.pop(), os.O_RDWR))
from kyra_etl.cli import main
main()
"""


class Terminal:
    """A person at `kyra shell`."""

    def __init__(self, home: Path) -> None:
        self._fd, theirs = pty.openpty()
        command = [sys.executable, "-c", PROGRAM, "shell", os.ttyname(theirs)]
        environment = {**os.environ, "KYRA_HOME": str(home), "TERM": "xterm", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self._unread = ""
        self.wait_for("kyra> ")

    def type(self, text: str, until: str) -> str:
        """Type, and wait for what is to come; returns all that was shown up to it."""
        os.write(self._fd, text.encode())
        return self.wait_for(until)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """All that is shown up to this text; what comes behind it is for the next call."""
        end = time.monotonic() + seconds
        while text not in self._unread:
            assert time.monotonic() < end, f"{text!r} did not come: {self._unread!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                self._unread += os.read(self._fd, 65536).decode(errors="replace")
        shown, found, self._unread = self._unread.partition(text)
        return shown + found

    def wait_for_work(self) -> None:
        """Until a query has run for a while."""
        while asking(self._process.pid) < 0.5:
            assert self._process.poll() is None
            time.sleep(0.1)

    def interrupt(self, until: str) -> str:
        """Ctrl-C, as often as a person would: one that comes between two prompts is lost."""
        for _ in range(20):
            os.write(self._fd, CTRL_C.encode())
            with suppress(AssertionError):
                return self.wait_for(until, seconds=3)
        raise AssertionError(f"{until!r} did not come: {self._unread!r}")

    def leave(self) -> int:
        """Ctrl-D, until it is noticed; the exit code."""
        for _ in range(20):
            os.write(self._fd, CTRL_D.encode())
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(3)
        raise AssertionError("it did not end")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)


@pytest.fixture
def terminal(kyra_home: Path) -> Iterator[Terminal]:
    opened = Terminal(kyra_home)
    yield opened
    opened.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc to know that the query runs")
def test_a_sitting_at_the_shell(terminal: Terminal, kyra_home: Path) -> None:
    terminal.type("SELECT 'one;\n", until="... ")
    assert "one;\\ntwo" in terminal.type("two'\n;\n", until="1 row.")

    endless = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range < 0;"
    terminal.wait_for("kyra> ")
    terminal.type(f"{endless}\n", until="< 0;")
    terminal.wait_for_work()  # Ctrl-C also drops what is typed and not read yet
    terminal.interrupt(until="Stopped.")
    terminal.type("SELECT 'dropped'\n", until="... ")
    terminal.interrupt(until="kyra> ")
    assert "dropped" not in terminal.type("FROM timel\t'alice');\n", until="0 rows.")
    terminal.type(".col\t activity\n", until="is_write")
    assert terminal.leave() == 0

    again = Terminal(kyra_home)
    try:
        again.type(UP, until=".columns activity")
        again.type("\n", until="is_write")
        assert again.leave() == 0
    finally:
        again.close()
    assert (kyra_home / "history").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def shell(kyra: Kyra, kyra_home: Path) -> Iterator[Shell]:
    with wiring.open(config.load()) as parts:
        yield Shell(wiring.analyst(parts), kyra_home / "history")


def completions(shell: Shell, text: str) -> list[str]:
    found = (shell.complete(text, n) for n in range(1000))
    return [word for word in found if word is not None]


def test_tab_knows_commands_relations_columns_and_macros(shell: Shell) -> None:
    assert completions(shell, ".ta") == [".tables"]
    assert completions(shell, "alert_e") == ["alert_events"]
    assert "source_ip_address" in completions(shell, "SOURCE_IP")
    assert completions(shell, "timeline") == ["timeline_of("]
    assert completions(shell, "sele") == ["SELECT"]
    assert completions(shell, "zzz") == completions(shell, "") == []


def test_statements_may_span_lines_and_share_a_file(kyra: Kyra, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(
        ["SELECT 1", "AS one;", "SELECT ';' AS two; -- done;", ".columns alertz", ".nothing", "SELECT 3 AS three"]
    )

    def line(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", line)
    ran = kyra("shell")

    assert ran.code == 0
    assert ran.out.splitlines() == ["one", "  1", "two", ";", "three", "    3"]
    assert "Did you mean alerts?" in ran.err
    assert "There is no .nothing." in ran.err


def test_an_interrupt_between_a_line_and_its_query_drops_the_statement_and_ends_nothing(
    kyra: Kyra, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["SELECT 'dropped';", "SELECT 'answered' AS it;", ".quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    ended = guard.ended

    def interrupted(sql: str) -> bool:
        if "dropped" in sql:
            raise KeyboardInterrupt
        return ended(sql)

    monkeypatch.setattr(guard, "ended", interrupted)
    ran = kyra("shell")

    assert (ran.code, ran.out.splitlines()) == (0, ["it", "answered"])


def test_dot_commands_answer(kyra: Kyra, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter([".tables", ".columns events", ".macros", ".help", ".quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    shown = kyra("shell").out

    assert shown.splitlines()[0] == "events"
    assert "request_parameters" in shown
    assert "timeline_of(who, since, until)" in shown
    assert "Ctrl-C stops a query" in shown
