"""The loop of `kyra shell`."""

from __future__ import annotations

import difflib
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kyra_etl.cli.formats import ROOMY
from kyra_etl.cli.output import count, printable, say, show, table
from kyra_etl.errors import KyraError

if TYPE_CHECKING:
    from kyra_etl.lake.query import Analyst

_ROWS = 200
_HISTORY = 2_000
_HELP = """\
One SELECT, on as many lines as you like, ended by a ; over events, activity, alerts, alert_events, log_files,
sync_runs, status, trails, accounts.

  SELECT event_name, count(*) FROM events GROUP BY ALL ORDER BY 2 DESC LIMIT 10;
  SELECT request_parameters->>'$.bucketName' FROM events WHERE event_name = 'PutBucketPolicy';
  FROM timeline_of('alice', since := '2026-03-01');

.tables           what there is to ask
.columns events   its columns
.macros           questions that have a name, such as timeline_of
.quit             ends; so does Ctrl-D. Ctrl-C stops a query. Tab completes. The arrow keys bring back earlier lines."""
_COMMANDS = (".columns", ".help", ".macros", ".quit", ".tables")
_KEYWORDS = (
    *("SELECT", "FROM", "WHERE", "GROUP BY ALL", "ORDER BY", "LIMIT", "JOIN", "USING", "DISTINCT", "DESCRIBE"),
    *("count(*)", "BETWEEN", "ILIKE", "IS NOT NULL", "DESC", "WITH", "UNION ALL"),
)


class Shell:
    """Reads statements and shows their rows, until .quit or the end of input."""

    def __init__(self, analyst: Analyst, history: Path) -> None:
        self._analyst, self._history = analyst, history

    def run(self) -> None:
        """The loop. Ctrl-C drops the statement at hand or stops the query, Ctrl-D ends."""
        talking = sys.stdin.isatty()
        if talking:
            self._prepare_line()
            say("Read-only SQL over the lake. .help tells how, .quit ends.")
        pending: str | None = ""
        while pending is not None:
            try:
                pending = self._turn(pending, ("kyra> " if not pending else "  ... ") if talking else "")
            except KeyboardInterrupt:
                say("")
                pending = ""

    def _turn(self, pending: str, prompt: str) -> str | None:
        """Read a line and do what it completes; the statement so far, None at the end."""
        from kyra_etl.lake.guard import ended

        try:
            line = input(prompt)
        except EOFError:
            if pending.strip():
                self._ask(pending)
            return None
        if not pending.strip() and line.strip().startswith("."):
            return "" if self._command(*line.split()) else None
        pending += line + "\n"
        if not ended(pending):
            return pending
        self._ask(pending)
        return ""

    def _command(self, command: str, *names: str) -> bool:
        """Do a dot command; False when it ends the loop."""
        if command in (".quit", ".exit", ".q"):
            return False
        try:
            if command == ".help":
                show(_HELP)
            elif command == ".tables":
                show("\n".join(self._columns))
            elif command == ".columns":
                self._show_columns(names[0] if names else "events")
            elif command == ".macros":
                shown = [(f"{macro.name}({', '.join(macro.params)})", macro.about) for macro in self._analyst.macros()]
                show(table(("macro", "what it tells"), shown, keep=("macro",)))
            else:
                say(f"There is no {printable(command)}. There are {', '.join(_COMMANDS)}.")
        except KyraError as error:
            say(printable(str(error)))
        return True

    def _show_columns(self, name: str) -> None:
        columns = self._columns.get(name.lower())
        if columns is None:
            near = difflib.get_close_matches(name.lower(), self._columns, n=1)
            next_step = f"Did you mean {near[0]}?" if near else ".tables lists what there is."
            say(f"There is no {printable(name)}. {next_step}")
        else:
            show(table(("column", "type"), columns))

    def _ask(self, sql: str) -> None:
        try:
            answer = self._analyst.query(sql, limit=_ROWS)
            if answer.rows:
                show(table(answer.columns, answer.rows, roomy=ROOMY))
            say(f"{count(len(answer.rows), 'row')}{'; there are more: add a LIMIT' if answer.more else ''}.")
        except KyraError as error:
            say(printable(str(error)))
        except KeyboardInterrupt:
            say("Stopped.")

    @cached_property
    def _columns(self) -> dict[str, list[tuple[str, str]]]:
        return self._analyst.columns()

    @cached_property
    def _words(self) -> list[str]:
        """What a line may be completed with."""
        columns = {column for columns in self._columns.values() for column, _ in columns}
        macros = [f"{macro.name}(" for macro in self._analyst.macros()]
        return sorted({*self._columns, *columns, *macros, *_KEYWORDS})

    def complete(self, text: str, state: int) -> str | None:
        """The `state`-th completion of a word, as readline asks for it."""
        words = _COMMANDS if text.startswith(".") else self._words
        found = [word for word in words if text and word.lower().startswith(text.lower())]
        return found[state] if state < len(found) else None

    def _prepare_line(self) -> None:
        """Completion, lines typed before, and those of this session for the next one."""
        try:
            import atexit
            import readline
        except ImportError:
            return
        readline.set_completer(self.complete)
        readline.set_completer_delims(" \t\n,;()'\"=<>+-*/|")
        editline = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if editline else "tab: complete")
        with suppress(OSError):
            readline.read_history_file(self._history)
        readline.set_history_length(_HISTORY)

        def keep() -> None:
            with suppress(OSError):
                self._history.touch(mode=0o600)
                readline.write_history_file(self._history)

        atexit.register(keep)
