"""`kyra quarantine`: log files that could not be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from kyra_etl.cli.options import Json, opened
from kyra_etl.cli.output import count, emit, say, show, table
from kyra_etl.errors import UnknownName
from kyra_etl.model import LedgerEntry

_ROOM = 44

app = typer.Typer(help="Log files that could not be read: list them, try them again.", no_args_is_help=True)

Of = Annotated[
    str | None, typer.Option("--integration", metavar="NAME", help="Only this one's; `local` for loaded files.")
]


@app.command("list")
def list_(integration: Of = None, json: Json = False) -> None:
    """What is in quarantine, why, and when it is tried again."""
    with opened() as parts:
        entries = parts.state.ledger.quarantined(integration)
    if json:
        emit([_plain(entry) for entry in entries])
    elif entries:
        rows = [
            (
                entry.integration,
                _file_name(entry.file.key),
                entry.reason,
                entry.attempts,
                entry.next_retry_at and f"{entry.next_retry_at:%Y-%m-%d %H:%M}",
            )
            for entry in entries
        ]
        columns = ("integration", "log file", "reason", "tried", "next try")
        show(table(columns, rows, keep=columns))
        say("They are tried again by themselves; at once with: kyra quarantine retry. --json tells more of each.")
    else:
        say("Nothing is in quarantine.")


@app.command()
def retry(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY", help="Keys of log files, or their last parts; all without.")
    ] = None,
    integration: Of = None,
    json: Json = False,
) -> None:
    """Have log files tried again by the next sync (or load), whatever their next try would be."""
    with opened() as parts:
        held = {entry.file.key for entry in parts.state.ledger.quarantined(integration)}
        chosen = [key for named in keys or () for key in _matching(named, held)]
        number = parts.state.ledger.retry(integration, chosen if keys else None, now=parts.clock())
    if json:
        emit({"retried": number})
    else:
        show(f"{count(number, 'log file')} will be tried by the next `kyra sync` (loaded ones: `kyra load`).")


def _matching(named: str, held: Iterable[str]) -> list[str]:
    """The keys that are, or end in, what was named. Raises UnknownName."""
    found = sorted(key for key in held if key == named or key.endswith(f"/{named.lstrip('/')}"))
    if not found:
        raise UnknownName(f"{named} is not in quarantine.", "`kyra quarantine list` shows what is.")
    return found


def _file_name(key: str) -> str:
    """The last part of a key, or as much of its end as a table has room for."""
    name = key.rsplit("/", 1)[-1]
    return name if len(name) <= _ROOM else f"…{name[1 - _ROOM :]}"


def _plain(entry: LedgerEntry) -> dict[str, Any]:
    values = asdict(entry)
    return {**values.pop("file"), **values}
