"""Copy records of our own from the state database into the lake, after a run or a triage."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta

from kyra_etl.lake import Lake
from kyra_etl.model import Alert
from kyra_etl.owner import name_of
from kyra_etl.state import State
from kyra_etl.status import rows, status

LEFT = timedelta(hours=1)
"""A run that began so long ago and holds nothing was killed where nobody could tell."""


def publish_runs(*, lake: Lake, state: State, now: datetime) -> None:
    """Publish the runs that ended: themselves, the log files they changed, their alerts and those alerts' events.

    Those of others too that failed or were killed after their commits: what is published once is left alone.
    """
    under_way = {name_of(owner) for owner in state.owners.holding()}
    for run in state.runs.unpublished(under_way, now - LEFT):
        run_id, day, report = run["run_id"], run["started_at"].date(), run["report"]
        lake.write_table("sync_runs", run_id, [{**(report or {}), **run}], day)
        for number, changed in enumerate(state.ledger.log_files_of(run_id)):
            lake.write_table("log_files", f"{run_id}-{number}" if number else run_id, changed, day)
        left: list[str] = []
        if report:  # another run may have removed some of its alerts meanwhile
            alerts, left = state.alerts.those(report["detect"]["alert_ids"]), report["detect"].get("alert_days", [])
        else:  # nobody knows what it came to: whatever has changed since it began
            alerts = state.alerts.list(changed_since=run["started_at"])
        _publish_alerts(alerts, map(date.fromisoformat, left), run_id, day, lake=lake, state=state)
        state.runs.mark_published(run_id, run["state"])


def publish_changed(since: datetime, left: Iterable[date] = (), *, lake: Lake, state: State, now: datetime) -> None:
    """Publish the alerts that changed since then, and their events: what detections did without a run.

    `left` are the days on which some were first seen before.
    """
    alerts = state.alerts.list(changed_since=since)
    _publish_alerts(alerts, left, f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}", now.date(), lake=lake, state=state)


def _publish_alerts(
    alerts: Sequence[Alert], left: Iterable[date], name: str, day: date, *, lake: Lake, state: State
) -> None:
    if alerts:
        lake.write_table("alert_events", name, state.alerts.events([alert.alert_id for alert in alerts]), day)
    publish_alerts(alerts, left, lake=lake, state=state)


def publish_status(*, lake: Lake, state: State, now: datetime) -> None:
    """Publish how every integration is: once after the runs of many, since it looks at all of them."""
    lake.write_table("status", "status", rows(status(state, now)))


def publish_alerts(changed: Iterable[Alert], left: Iterable[date] = (), *, lake: Lake, state: State) -> None:
    """Publish again every alert of the days on which the changed ones are first seen, and of those that alerts left."""
    for day in {*left, *(alert.first_seen.date() for alert in changed)}:
        lake.write_table("alerts", "alerts", map(asdict, state.alerts.of_day(day)), day)
