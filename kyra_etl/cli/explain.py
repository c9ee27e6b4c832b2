"""`kyra explain`: from an event back to its log file."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kyra_etl.cli.options import Json, opened
from kyra_etl.cli.output import cell, count, emit, printable, say, show
from kyra_etl.errors import UsageError

_NAMES = 15
"""Columns that names of lines take."""


def explain(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The whole id of an event.")],
    account: Annotated[str | None, typer.Option(help="Only this account's events; quicker.")] = None,
    date: Annotated[
        str | None, typer.Option(metavar="D", help="Only events of this day (UTC); much quicker in a large lake.")
    ] = None,
    json: Json = False,
) -> None:
    """Where an event came from: log file, etag and SHA-256, when it was delivered and loaded, batch, run, data file.

    Also the log files that brought the same event again: surely those of the same content, perhaps those in which
    duplicates of that time were found.
    """
    from kyra_etl.explain import explain as ask
    from kyra_etl.terms import moment

    if account is not None and not (len(account) == 12 and account.isascii() and account.isdigit()):
        raise UsageError(f"--account must be 12 digits, not {printable(account)!r}.", "For example 012345678901.")
    with opened() as parts:
        day = moment(date, now=parts.clock()).date() if date is not None else None
        found = ask(event_id, lake=parts.lake, state=parts.state, account=account, day=day)
    if json:
        emit({"event_id": event_id, "events": [each.as_json() for each in found]})
        return
    show("\n\n".join(_told(each.as_json()) for each in found))
    if len(found) > 1:
        say(f"{count(len(found), 'event')} of this id, each of other content or in an account of its own.")


def _told(lineage: dict[str, Any]) -> str:
    file, batch, run = (lineage[part] or {} for part in ("log_file", "batch", "run"))
    size = f"{count(file['size'], 'byte')}, {count(file['uncompressed'], 'byte')} unpacked" if file else None
    attempt = f", attempt {batch['attempt']}" if batch and batch["attempt"] > 1 else ""
    lines = [
        ("event", f"{lineage['event_name'] or ''} {lineage['event_time']:%Y-%m-%d %H:%M:%S}".strip()),
        ("account", lineage["account"]),
        ("integration", lineage["integration"]),
        ("log file", lineage["source_key"]),
        ("bucket", file.get("bucket")),
        ("etag", file.get("etag")),
        ("sha256", file.get("sha256")),
        ("size", size),
        ("delivered", lineage["delivered_at"]),
        ("loaded", file.get("loaded_at")),
        ("batch", f"{batch['batch_id']}{attempt}" if batch else None),
        ("run", f"{run['run_id']}, {_verb(run, batch)}" if run else None),
        ("data file", lineage["data_file"]),
        *(("also in" if other["certain"] else "perhaps also in", other["key"]) for other in lineage["also_in"]),
    ]
    told = [f"{name:<{_NAMES}}  {text}" for name, value in lines if (text := cell(value))]  # uncut: keys are copied
    return "\n".join(told if file else [*told, "The ledger no longer keeps its log file."])


def _verb(run: dict[str, Any], batch: dict[str, Any]) -> str:
    began = f" of {run['started_at']:%Y-%m-%d %H:%M:%S}" if run["started_at"] else ""
    return f"{run['verb'] or 'a run'}{began}{' (historical)' if batch['historical'] else ''}"
