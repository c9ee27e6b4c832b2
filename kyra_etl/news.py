"""What changed and nobody was told of yet, whichever run it came of: alerts, and how the integrations are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from kyra_etl.errors import UnknownName
from kyra_etl.model import Alert
from kyra_etl.state import State, Untold

STALE = timedelta(days=1)
"""What changed longer ago is no news: where nobody listens, as with `kyra sync` from cron, it is not kept for later."""


class Turn(NamedTuple):
    """An integration whose state is another one than was told last, at `told_at`."""

    name: str
    before: str
    after: str
    told_at: datetime | None


@dataclass(frozen=True, slots=True)
class News:
    alerts: tuple[tuple[Alert, Untold], ...] = ()
    """As they are now, oldest change first."""
    turns: tuple[Turn, ...] = ()


def news(states: Mapping[str, str], *, state: State, now: datetime) -> News:
    """What there is to tell. `states` is what status calls each integration; one never told of is remembered as it is.

    It stays news until `told`: two that tell at the same time tell the same, and can be known by it.
    """
    alerts = []
    for untold in state.news.untold(now - STALE):
        try:
            alerts.append((state.alerts.get(untold.alert_id), untold))
        except UnknownName:  # gone meanwhile: its evidence belongs to another one
            continue
    last = state.news.last_told()
    for name in states.keys() & last.keys():
        if last[name].state is None:
            state.news.told_state(name, states[name], now)
    turns = [
        Turn(name, before, states[name], told_at)
        for name, (before, told_at) in sorted(last.items())
        if before is not None and states.get(name, before) != before
    ]
    return News(tuple(alerts), tuple(turns))


def told(news: News, *, state: State, now: datetime) -> None:
    """All of this was told."""
    state.news.told([untold for _, untold in news.alerts], now - STALE)
    for turn in news.turns:
        state.news.told_state(turn.name, turn.after, now)
