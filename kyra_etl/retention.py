"""How long events are kept: `retain_days`, and another number of days for some accounts."""

from __future__ import annotations

from datetime import date, timedelta

from kyra_etl.model import Limits

FOR_EVER = 0
"""Days of an account whose events are kept however old they are."""


def horizon(limits: Limits, account: str, today: date) -> date | None:
    """The first day whose events are kept; None when all are."""
    days = limits.retain.get(account, limits.retain_days)
    return None if days is None or days == FOR_EVER else today - timedelta(days=days)
