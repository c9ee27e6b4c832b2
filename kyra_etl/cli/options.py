"""Options and arguments that several verbs share, and the moments people write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kyra_etl import config, logs, wiring
from kyra_etl.errors import UsageError
from kyra_etl.model import Window

if TYPE_CHECKING:
    from kyra_etl.wiring import Parts

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the integration.")]
OptionalName = Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the integration; all without it.")]
From = Annotated[
    str | None, typer.Option("--from", metavar="D", help="First day (UTC), or a time, or 3d for 3 days ago.")
]
To = Annotated[str | None, typer.Option("--to", metavar="D", help="Last day (UTC), included; today without it.")]


def opened() -> Parts:
    """The live parts, by the settings in force; a context manager."""
    settings = config.load()
    if settings.log_format == "json":
        logs.to_json()
    return wiring.open(settings)


def window(start: str, end: str | None, parts: Parts) -> Window:
    """From the start of one day to the end of the other. Raises UsageError."""
    from kyra_etl.terms import moment

    now = parts.clock()
    span = Window(moment(start, now=now), moment(end or "today", now=now, end=True))
    if span.start >= span.end:
        raise UsageError(f"The range from {start} to {end or 'today'} is empty.", "Give the earlier day as --from.")
    return span
