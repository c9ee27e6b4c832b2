"""Events for Prefect's automations: an alert that opened or changed, an integration whose state changed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from prefect.events import emit_event

from kyra_etl.model import Alert

log = logging.getLogger("kyra_etl.flows")


def tell_alerts(alerts: Sequence[Alert], new: Collection[str]) -> None:
    """`kyra.alert.opened` for those whose id is in `new`, `kyra.alert.changed` for the others."""
    for alert in alerts:
        payload = {
            "severity": alert.severity,
            "title": alert.title,
            "detection": alert.detection,
            "account": alert.account,
            "status": alert.status,
            "historical": alert.historical,
            "last_seen": f"{alert.last_seen:%Y-%m-%dT%H:%M:%SZ}",
        }
        event = "kyra.alert.opened" if alert.alert_id in new else "kyra.alert.changed"
        _emit(event, f"kyra.alert.{alert.alert_id}", payload)


def tell_states(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """`kyra.integration.degraded`, `.connected` …: for integrations whose state is another now."""
    for name, state in after.items():
        if state != before.get(name, state):
            payload = {"before": before[name], "after": state}
            _emit(f"kyra.integration.{state.lower()}", f"kyra.integration.{name}", payload)


def _emit(event: str, resource: str, payload: Mapping[str, object]) -> None:
    try:
        emit_event(event, resource={"prefect.resource.id": resource}, payload=dict(payload))
    except Exception as error:  # telling is a courtesy: the state has it all
        log.debug("Event %s not told: %s", event, error)
