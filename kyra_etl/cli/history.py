"""`kyra backfill NAME --from-history`: what LookupEvents still knows."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import NoReturn

import typer

from kyra_etl.cli.journeys import QUARANTINED, tell_problems
from kyra_etl.cli.options import opened
from kyra_etl.cli.output import count, emit, printable, say, show
from kyra_etl.cli.progress import progress
from kyra_etl.cli.report import report_lines, totals
from kyra_etl.errors import UsageError


def fetch(name: str, days: int, regions: str | None, minutes: int, *, json: bool) -> NoReturn:
    """Run it, tell its report, and end with its exit code."""
    from kyra_etl import wiring
    from kyra_etl.history import Span, history

    given = _names(regions)
    with opened() as parts:
        integration = parts.state.integrations.get(name)
        if integration.paused:
            raise UsageError(f"{name} is paused.", f"Go on with: kyra integration resume {name}.")
        source = wiring.history_of(parts, integration)
        with progress() as drawn:
            account = source.identity.account
            drawn.stage("Looking for regions")
            asked = given or source.regions(account, wiring.bucket_of(parts, integration), integration.prefix)
            found = source.survey(asked)
            there = [region for region, refusal in found.items() if not refusal]
            say(f"Asking {', '.join(there)} of account {account}.")
            for region, refusal in found.items():
                if refusal:
                    say(printable(f"Left out: {region}. {refusal}"))
            span = Span(account, there, days, timedelta(minutes=minutes))
            report = history(integration, span, bucket=source, **parts.for_run(), progress=drawn)
        wiring.publish_status(parts)
        tell_problems(parts, report.detect)
        by_day = parts.state.ledger.by_day(report.run_id)
    if json:
        emit({**totals([report]), "account": account, "regions": there, "days": by_day})
    else:
        for line in report_lines(report, noun="hour"):
            show(line)
    if report.pending:
        say(f"Time is up, {count(report.pending, 'hour')} are left. Go on with: kyra backfill {name} --from-history")
    raise typer.Exit(QUARANTINED if report.quarantined else 0)


def _names(regions: str | None) -> list[str]:
    """("eu-west-1, us-east-1") → both, once each."""
    names = list(dict.fromkeys(filter(None, re.split(r"[,\s]+", regions or ""))))
    for name in names:
        if not re.fullmatch(r"[a-z]{2,4}(-[a-z]+)+-[0-9]", name):
            raise UsageError(f"{name!r} is not an AWS region.", "For example --regions eu-west-1,us-east-1.")
    return names
