"""Events for Prefect's automations: an alert that opened or changed, an integration whose state changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event

from flows import verbs
from kyra_etl.model import Alert
from kyra_etl.news import News, Turn
from kyra_etl.state import Untold

log = logging.getLogger("kyra_etl.flows")


def tell() -> None:
    """Tell what changed since the last time, whichever run it came of, `kyra sync` by hand among them.

    `kyra.alert.opened` of an alert nobody was told of, `kyra.alert.changed` of any other that changed;
    `kyra.integration.degraded`, `.connected` … of an integration whose state is another one. What could not be handed
    to Prefect is told next time, and Prefect takes an event once, should two runs tell it at the same time.
    """
    news = verbs.news()
    alerts = tuple((alert, untold) for alert, untold in news.alerts if _tell_alert(alert, untold))
    verbs.told(News(alerts, tuple(filter(_tell_turn, news.turns))))


def _tell_alert(alert: Alert, untold: Untold) -> bool:
    payload = {
        "severity": alert.severity,
        "title": alert.title,
        "detection": alert.detection,
        "account": alert.account,
        "status": alert.status,
        "historical": alert.historical,
        "last_seen": f"{alert.last_seen:%Y-%m-%dT%H:%M:%SZ}",
    }
    event = "kyra.alert.opened" if untold.opened else "kyra.alert.changed"
    return _emit(event, f"kyra.alert.{alert.alert_id}", payload, untold.at)


def _tell_turn(turn: Turn) -> bool:
    payload = {"before": turn.before, "after": turn.after}
    return _emit(f"kyra.integration.{turn.after.lower()}", f"kyra.integration.{turn.name}", payload, turn.told_at)


def _emit(event: str, resource: str, payload: Mapping[str, object], since: datetime | None) -> bool:
    """Whether it was handed over. The same change has the same id, whoever tells it."""
    id_ = uuid5(NAMESPACE_URL, f"{event} {resource} {since}")
    try:
        emit_event(event, resource={"prefect.resource.id": resource}, payload=dict(payload), id=id_)
    except Exception as error:  # telling is a courtesy: the state has it all
        log.debug("Event %s not told: %s", event, error)
        return False
    return True
