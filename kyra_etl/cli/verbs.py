"""Every verb of `kyra`, in the order of the road."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import typer.core

from kyra_etl import __version__
from kyra_etl.cli import (
    alerts,
    ask,
    costs,
    demo,
    detections,
    explain,
    integrations,
    journeys,
    maintain,
    metrics,
    quarantine,
    serve,
    status,
)
from kyra_etl.cli.output import show

_ORDER = (
    *("demo", "integration", "check", "load", "sync", "backfill", "detect", "alerts", "detections"),
    *("status", "costs", "search", "sql", "shell", "explain", "quarantine", "maintain", "metrics", "serve"),
)


class _Verbs(typer.core.TyperGroup):
    """Verbs in the order of the road, where typer would put the ones with further verbs last."""

    def __init__(self, *, commands: Any = None, **attributes: Any) -> None:
        super().__init__(commands={name: commands[name] for name in _ORDER}, **attributes)


class _Statement(typer.core.TyperCommand):
    """A statement may begin with a comment of SQL: no name of an option has white space in it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next((each for each in args if each == "--" or _is_comment(each)), "--")
        if first != "--":
            args = [*(each for each in args if each is not first), "--", first]
        return super().parse_args(ctx, args)


def _is_comment(argument: str) -> bool:
    return argument.startswith("--") and any(map(str.isspace, argument.partition("=")[0]))


app = typer.Typer(
    cls=_Verbs,
    help="AWS CloudTrail into a lake that loses nothing, with detections that fire.",
    epilog="KYRA_HOME (default ~/.kyra) holds the lake, the state and kyra.toml. Help: kyra VERB --help",
    context_settings={"terminal_width": 100},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        show(f"kyra-etl {__version__}")
        raise typer.Exit


@app.callback()
def kyra(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """AWS CloudTrail into a lake that loses nothing, with detections that fire."""


app.command()(demo.demo)
app.add_typer(integrations.app, name="integration")
app.command()(integrations.check)
app.command()(journeys.load)
app.command()(journeys.sync)
app.command()(journeys.backfill)
app.command()(journeys.detect)
app.add_typer(alerts.app, name="alerts")
app.add_typer(detections.app, name="detections")
app.command()(status.status)
app.command()(costs.costs)
app.command()(metrics.metrics)
app.command(context_settings={"ignore_unknown_options": True})(ask.search)
app.command(cls=_Statement)(ask.sql)
app.command()(ask.shell)
app.command()(explain.explain)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(maintain.app, name="maintain")
app.command()(serve.serve)
