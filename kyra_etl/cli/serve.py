"""`kyra serve`: Prefect, which this program becomes; nothing else of it ever imports Prefect."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from kyra_etl import config, resources, wiring


def serve(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of Prefect's page (setting serve_port).")
    ] = None,
) -> None:
    """Run a Prefect server and the schedules: sync every five minutes, check, maintain.

    Prefect's page also starts backfills, with a form for their dates. Ctrl-C ends everything.
    """
    settings = config.load()
    env = config.child_environment(settings.home, resources.flows_root())
    with wiring.open(settings) as parts:  # here, because what it imports is gone once this program is another one
        parts.require_usable()
    command = [sys.executable, "-m", "flows.serve", *(["--port", str(port)] if port else [])]
    sys.stdout.flush()
    os.execve(sys.executable, command, env)
