"""The command line. Data goes to standard output, talk to standard error; no traceback reaches a user.

Verbs import what they need when they run: `kyra --help` and `kyra status` must start at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import typer

from kyra_etl import config
from kyra_etl.cli.output import printable, say
from kyra_etl.cli.verbs import app
from kyra_etl.errors import KyraError

__all__ = ["app", "main"]

_Misuse: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

INTERRUPTED = 130


def main() -> NoReturn:
    """Run `kyra …` and exit: 0 done, 1 failed, 2 usage, 3 done with something quarantined."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """One command; its exit code. Whatever goes wrong is told in one line."""
    try:
        code = app(arguments, prog_name="kyra", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer's way of saying KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # Whoever read our output has heard enough; Python must not complain about it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        say("Interrupted. What was committed stays; the next run goes on from there.")
        return INTERRUPTED
    except KyraError as error:
        return _told(str(error), error.exit_code)
    except _Misuse as error:
        return _misused(error)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        return _told(f"kyra failed unexpectedly ({what}). Run it again with KYRA_DEBUG=1 and report what it shows.", 1)


def _told(message: str, code: int) -> int:
    if config.debug():
        traceback.print_exc()
    say(printable(" ".join(message.split())))
    return code


def _misused(error: BaseException) -> int:
    """What typer says about a wrong command, in one line."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "kyra"
    said = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        say(said)
        return 2
    said = said.strip().replace("Value error, ", "")
    return _told(f"{said.rstrip('.')}. `{where} --help` tells how it is used.", 2)
