"""The verbs of kyra_etl for the tasks: each opens the live parts, does one thing and closes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from kyra_etl import config, resources, wiring
from kyra_etl.backfill import Plan
from kyra_etl.backfill import backfill as _backfill
from kyra_etl.backfill import plan as _plan
from kyra_etl.examine import examine
from kyra_etl.maintain.check import CheckReport
from kyra_etl.maintain.check import check as _check_lake
from kyra_etl.maintain.compact import CompactReport
from kyra_etl.maintain.compact import compact as _compact
from kyra_etl.maintain.retain import RetainReport
from kyra_etl.maintain.retain import retain as _retain
from kyra_etl.model import Alert, Probe, RunReport, Window
from kyra_etl.news import News
from kyra_etl.news import news as _news
from kyra_etl.news import told as _told
from kyra_etl.ports import Progress, Silent, Spread
from kyra_etl.run import load_handed_out
from kyra_etl.status import status
from kyra_etl.sync import sync as _sync

log = logging.getLogger("kyra_etl.flows")


def integration_names() -> list[str]:
    """The integrations that are not paused."""
    with wiring.open(config.load()) as parts:
        return [integration.name for integration in parts.state.integrations.list() if not integration.paused]


def sync(name: str, spread: Spread | None = None) -> RunReport:
    """What `kyra sync NAME` does."""
    with wiring.open(config.load()) as parts:
        _tell_problems(parts)
        integration = parts.state.integrations.get(name)
        return _sync(
            integration,
            bucket=wiring.bucket_of(parts, integration),
            queue=wiring.queue_of(parts, integration),
            spread=spread,
            **parts.for_run(),
        )


def plan(name: str, window: Window, accounts: Sequence[str] | None) -> Plan:
    """What `kyra backfill NAME --plan` does."""
    with wiring.open(config.load()) as parts:
        integration = parts.state.integrations.get(name)
        return _plan(
            integration,
            window,
            bucket=wiring.bucket_of(parts, integration),
            state=parts.state,
            limits=parts.config.limits,
            clock=parts.clock,
            accounts=accounts,
        )


def backfill(
    name: str,
    window: Window,
    accounts: Sequence[str] | None,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> Iterator[RunReport]:
    """What `kyra backfill NAME` does: a report a day."""
    with wiring.open(config.load()) as parts:
        _tell_problems(parts)
        integration = parts.state.integrations.get(name)
        yield from _backfill(
            integration,
            window,
            bucket=wiring.bucket_of(parts, integration),
            accounts=accounts,
            progress=progress,
            spread=spread,
            **parts.for_run(),
        )


def news() -> News:
    """The alerts that changed since they were told last, and the integrations that `kyra status` calls otherwise."""
    with wiring.open(config.load()) as parts:
        every, now = timedelta(seconds=parts.config.sync_seconds), parts.clock()
        states = {one["name"]: one["state"] for one in status(parts.state, now, every=every)["integrations"]}
        return _news(states, state=parts.state, now=now)


def told(news: News) -> None:
    """All of this was told."""
    with wiring.open(config.load()) as parts:
        _told(news, state=parts.state, now=parts.clock())


def publish_status() -> None:
    """How every integration is, into the lake, after the runs of any number of them."""
    with wiring.open(config.load()) as parts:
        wiring.publish_status(parts)


def load_batch(batch_id: str) -> bool:
    """Load a batch that a sync or backfill has planned and handed out, on this machine or another."""
    with wiring.open(config.load()) as parts:
        return load_handed_out(batch_id, bucket_of=lambda one: wiring.bucket_of(parts, one), **parts.for_run())


def alerts(reports: Sequence[RunReport]) -> list[Alert]:
    """The alerts the runs created or changed."""
    ids = dict.fromkeys(alert_id for report in reports for alert_id in report.detect.alert_ids)
    if not ids:
        return []
    with wiring.open(config.load()) as parts:
        return [parts.state.alerts.get(alert_id) for alert_id in ids]


def check(name: str) -> tuple[Sequence[Probe], Sequence[Alert]]:
    """What `kyra check NAME` does; the answers, and the alerts they raised or changed."""
    with wiring.open(config.load()) as parts:
        integration = parts.state.integrations.get(name)
        bucket = wiring.bucket_of(parts, integration)
        return examine(integration, bucket=bucket, lake=parts.lake, state=parts.state, clock=parts.clock)


def check_lake(first: date) -> CheckReport:
    """What `kyra maintain check --from …` does."""
    with wiring.open(config.load()) as parts:
        return _check_lake(parts.for_maintenance(Silent()), resources.checks_dir(), first=first)


def retain() -> RetainReport:
    """What `kyra maintain retain` does."""
    with wiring.open(config.load()) as parts:
        return _retain(parts.for_maintenance(Silent()))


def compact() -> CompactReport:
    """What `kyra maintain compact` does."""
    with wiring.open(config.load()) as parts:
        return _compact(parts.for_maintenance(Silent()))


def _tell_problems(parts: wiring.Parts) -> None:
    for problem in parts.corpus.problems:
        log.warning("%s", problem)
