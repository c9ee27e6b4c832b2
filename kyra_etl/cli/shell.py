"""The loop of `kyra shell`."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kyra_etl.cli.output import count, printable, say, show, table
from kyra_etl.errors import KyraError

if TYPE_CHECKING:
    from kyra_etl.lake.query import Analyst

_ROWS = 200
_HISTORY = 2_000
_HELP = """\
One SELECT, ended by ; over events, activity, alerts, alert_events, log_files, sync_runs, status, trails, accounts.
  DESCRIBE events;                     its columns
  SELECT event_name, count(*) FROM events GROUP BY ALL ORDER BY 2 DESC LIMIT 10;
  SELECT request_parameters->>'$.bucketName' FROM events WHERE event_name = 'PutBucketPolicy';
.tables  .help  .quit"""


class Shell:
    """Reads statements and shows their rows, until .quit or the end of input."""

    def __init__(self, analyst: Analyst, history: Path) -> None:
        self._analyst, self._history = analyst, history

    def run(self) -> None:
        """The loop. Ctrl-C drops the statement at hand, Ctrl-D ends."""
        talking = sys.stdin.isatty()
        if talking:
            self._remember()
            say("Read-only SQL over the lake. .help tells how, .quit ends.")
        pending = ""
        while True:
            try:
                prompt = ("kyra> " if not pending else "  ... ") if talking else ""
                line = input(prompt)
            except EOFError:
                break
            except KeyboardInterrupt:
                say("")
                pending = ""
                continue
            if not pending.strip() and line.strip().startswith("."):
                if not self._command(line.strip()):
                    return
                continue
            pending += line + "\n"
            if line.rstrip().endswith(";"):
                self._ask(pending)
                pending = ""
        if pending.strip():
            self._ask(pending)

    def _command(self, command: str) -> bool:
        """Do a dot command; False when it ends the loop."""
        if command in (".quit", ".exit", ".q"):
            return False
        if command == ".tables":
            self._ask("SHOW TABLES")
        elif command == ".help":
            show(_HELP)
        else:
            say(f"There is no {printable(command)}. There are .tables, .help and .quit.")
        return True

    def _ask(self, sql: str) -> None:
        try:
            answer = self._analyst.query(sql, limit=_ROWS)
        except KyraError as error:
            say(printable(str(error)))
            return
        except KeyboardInterrupt:
            say("Stopped.")
            return
        if answer.rows:
            show(table(answer.columns, answer.rows))
        say(f"{count(len(answer.rows), 'row')}{'; there are more: add a LIMIT' if answer.more else ''}.")

    def _remember(self) -> None:
        """Lines typed before, and those of this session for the next one."""
        try:
            import atexit
            import readline
        except ImportError:
            return
        with suppress(OSError):
            readline.read_history_file(self._history)
        readline.set_history_length(_HISTORY)

        def keep() -> None:
            with suppress(OSError):
                self._history.touch(mode=0o600)
                readline.write_history_file(self._history)

        atexit.register(keep)
