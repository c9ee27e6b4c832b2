"""Closed hours of LookupEvents as log files: one (account, region, hour) is loaded once, like an S3 object.

    LookupEvents/<account>/<region>/YYYY/MM/DD/HH

The ledger knows them under a bucket name that no bucket can have, so that a sync never takes them for keys of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kyra_etl.model import LogFile, Window

BUCKET = "cloudtrail:LookupEvents"
"""What stands for the bucket in the ledger."""

HOUR = timedelta(hours=1)

SETTLED = timedelta(minutes=30)
"""An hour is closed when it has ended this long ago: LookupEvents shows an event up to 15 minutes late."""

DAYS = 90
"""How far back LookupEvents reaches."""

ETAG = "closed"
"""A closed hour does not change."""

_KEY = re.compile(r"LookupEvents/(\d{12})/([a-z0-9-]+)/(\d{4}/\d\d/\d\d/\d\d)")


@dataclass(frozen=True, slots=True)
class Hour:
    """What a key names."""

    account: str
    region: str
    start: datetime


def closed(account: str, regions: Sequence[str], window: Window, now: datetime) -> Iterator[LogFile]:
    """Every closed hour of the window in every region, newest first. Sizes are not known, and 0."""
    start = min(window.end, now - SETTLED).replace(minute=0, second=0, microsecond=0) - HOUR
    while start >= window.start:
        for region in regions:
            key = f"LookupEvents/{account}/{region}/{start:%Y/%m/%d/%H}"
            yield LogFile(key, ETAG, 0, account=account, region=region, day=start.date())
        start -= HOUR


def parse(key: str) -> Hour | None:
    """The hour that a key names, or None."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    try:
        return Hour(match[1], match[2], datetime.strptime(match[3], "%Y/%m/%d/%H"))
    except ValueError:
        return None
