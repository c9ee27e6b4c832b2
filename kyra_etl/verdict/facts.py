"""What the state knows of an integration, and the form of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from kyra_etl.model import Integration, Probe

Name = Literal["Pending", "Connected", "Degraded", "Failed", "Paused"]


class Verdict(NamedTuple):
    """The answer: `reason` names cause and object, `next_step` a command or what to change."""

    state: Name
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the state knows of an integration. Times are naive UTC, lengths of time timedeltas.

    `last_sync` is the last one that worked, `last_end` the last that ended either way. `ledger` counts log files by
    state, `quarantine` has rows {reason, files, recent, detail}, `silent` rows {account, region, since, usual}.
    """

    integration: Integration
    now: datetime
    ledger: Mapping[str, Any]
    last_end: Mapping[str, Any] | None = None
    last_sync: Mapping[str, Any] | None = None
    due_every: timedelta = timedelta(minutes=5)
    late_after: timedelta = timedelta(hours=2)
    check: tuple[datetime, Sequence[Probe]] | None = None
    trails: Sequence[Mapping[str, Any]] = ()
    quarantine: Sequence[Mapping[str, Any]] = ()
    silent: Sequence[Mapping[str, Any]] = ()
    failing: Sequence[Mapping[str, Any]] = ()
    last_delivered_at: datetime | None = None
    lag_p50: float | None = None
    learning: Mapping[str, Any] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    """The last sync's report, where it left one."""

    @property
    def name(self) -> str:
        return self.integration.name

    @property
    def root(self) -> str:
        """Where log files should lie."""
        return "/".join(filter(None, (self.integration.bucket, self.integration.prefix.strip("/"), "AWSLogs/")))


def starting(trail: Mapping[str, Any]) -> str:
    """The command that switches a trail on."""
    return f"aws cloudtrail start-logging --name {trail['arn'] or trail['name']}"


def span(length: timedelta) -> str:
    """A length of time in the unit a person would choose: 40 s, 12 min, 5 h, 3 days."""
    seconds = max(int(length.total_seconds()), 0)
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} days"


def count(number: int, noun: str) -> str:
    """`1 log file`, `2,000 log files`."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
