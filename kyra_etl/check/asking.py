"""What the questions share: what was found so far, and the ways to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kyra_etl.aws.session import Session
from kyra_etl.aws.trails import Trail
from kyra_etl.errors import AccessError, KyraError
from kyra_etl.model import Integration, LogFile
from kyra_etl.ports import LogBucket

SaveTrails = Callable[[Sequence[Mapping[str, Any]]], None]


class NotAsked(Exception):
    """A question that makes no sense here, or could not be answered; its text says why."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Warned:
    """An answer that passes, with something to change."""

    detail: str
    remedy: str


@dataclass
class Layout:
    """What the log folder holds, as far as it was looked into."""

    organizations: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    regions: set[str] = field(default_factory=set)
    newest: LogFile | None = None
    counted: bool = True
    """Whether the regions of all accounts were looked at."""


@dataclass
class Look:
    """One check while it goes on: what it is about, and what the questions before have found."""

    integration: Integration
    bucket: LogBucket
    session: Session | None
    now: datetime
    max_bytes: int
    save_trails: SaveTrails | None
    server_now: datetime | None = None
    layout: Layout = field(default_factory=Layout)
    content: bytes | None = None
    delivering: list[Trail] = field(default_factory=list)
    failed: dict[str, KyraError] = field(default_factory=dict)

    @property
    def change(self) -> str:
        """The command that gives the integration another value."""
        return f"kyra integration change {self.integration.name}"

    def needs(self, *names: str) -> None:
        """Leave the question out when one of these failed."""
        for name in names:
            if name in self.failed:
                raise NotAsked(f"Not asked: it needs {name}.")

    def aws(self) -> Session:
        """The session; leaves the question out where there is none."""
        if self.session is None:
            raise NotAsked("Not asked: a folder needs no AWS.")
        return self.session

    def credentials(self) -> None:
        """Leave the question out when our own credentials were refused."""
        if isinstance(self.failed.get("identity"), AccessError):
            self.needs("identity")

    def reachable(self) -> None:
        """Without usable credentials no question on the customer's side makes sense."""
        if self.session is not None:
            self.needs("assume_role")
            self.credentials()

    def newest(self) -> LogFile:
        """The newest log file; leaves the question out where there is none."""
        if self.layout.newest is None:
            raise NotAsked("Not asked: there is no log file yet.")
        return self.layout.newest

    def age(self, moment: datetime) -> timedelta:
        """How long ago something was, by the server's clock where it is known."""
        return max((self.server_now or self.now) - moment, timedelta())


def span(length: timedelta) -> str:
    """A span of time in the unit a person would choose."""
    seconds = int(length.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"


def several(number: int, noun: str) -> str:
    """`1 account`, `2 accounts`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
