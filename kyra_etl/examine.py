"""Test Connection, whoever asks: the probes are kept for status, and what they find absent raises its alerts."""

from __future__ import annotations

from collections.abc import Sequence

from kyra_etl.absence import watch
from kyra_etl.check import check
from kyra_etl.lake import Lake
from kyra_etl.model import Alert, Integration, Probe
from kyra_etl.ports import Clock, LogBucket
from kyra_etl.publish import publish_alerts
from kyra_etl.state import State


def examine(
    integration: Integration, *, bucket: LogBucket, lake: Lake, state: State, clock: Clock
) -> tuple[Sequence[Probe], Sequence[Alert]]:
    """Ask every probe of the integration; the answers, and the alerts that were raised or changed by them.

    Raises KyraError when the state or the lake cannot be written.
    """
    name, now = integration.name, clock()
    probes = check(
        integration,
        bucket=bucket,
        now=now,
        save_trails=lambda trails: state.integrations.save_trails(name, trails, now),
    )
    state.integrations.save_check(name, probes, now)
    absent = watch(integration, state=state, now=now)
    alerts = [state.alerts.get(alert_id) for alert_id in (*absent.new, *absent.updated)]
    if alerts:
        lake.claim(state.id)
        publish_alerts(alerts, lake=lake, state=state)
    return probes, alerts
