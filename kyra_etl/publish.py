"""Copy records of our own from the state database into the lake, after a run or a triage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from kyra_etl.lake import Lake
from kyra_etl.model import Alert, RunReport
from kyra_etl.state import State
from kyra_etl.status import rows, status


def publish_run(report: RunReport, ended: str, *, lake: Lake, state: State) -> None:
    """Publish a finished run: itself, the log files it changed, its alerts and their events."""
    day = report.started_at.date()
    lake.write_table("sync_runs", report.run_id, [{**report.as_json(), "state": ended}], day)
    for number, changed in enumerate(state.ledger.log_files_of(report.run_id)):
        lake.write_table("log_files", f"{report.run_id}-{number}" if number else report.run_id, changed, day)
    alert_ids = list(report.detect.alert_ids)
    if alert_ids:
        lake.write_table("alert_events", report.run_id, state.alerts.events(alert_ids), day)
        publish_alerts([state.alerts.get(alert_id) for alert_id in alert_ids], lake=lake, state=state)


def publish_status(*, lake: Lake, state: State, now: datetime) -> None:
    """Publish how every integration is: once after the runs of many, since it looks at all of them."""
    lake.write_table("status", "status", rows(status(state, now)))


def publish_alerts(changed: Iterable[Alert], *, lake: Lake, state: State) -> None:
    """Publish again every alert of the days on which the changed ones were first seen."""
    for day in {alert.first_seen.date() for alert in changed}:
        lake.write_table("alerts", "alerts", map(asdict, state.alerts.of_day(day)), day)
