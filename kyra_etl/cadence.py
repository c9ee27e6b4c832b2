"""How often which folder is listed, from which day on, and what that costs.

Listing finds what is new by comparing with the ledger, so a cadence decides when something is found, never whether.

| a region's folder | delivered to within | is listed                                                     |
|-------------------|---------------------|---------------------------------------------------------------|
| hot               | an hour             | in every run                                                  |
| warm              | a day               | every quarter of an hour                                      |
| cold              | longer ago, never   | every hour                                                    |
| a neighbour's     |                     | once a day: digests, insights … are counted, not loaded       |

In a small bucket all are hot. Whatever its tier, a folder is looked through from yesterday on, once an hour from three
days ago, once a day from 35 days ago; and from the beginning while it is new or has few days. Late files are found with
that delay at most: CloudTrail retries a delivery for thirty days. Where nothing came lately the days count from the
newest there is: an archive may still be copied.

All times are the bucket server's, so that machines with different clocks keep one cadence.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Literal

from kyra_etl import prices
from kyra_etl.model import Folder, Limits

Tier = Literal["hot", "warm", "cold", "neighbour"]
TIERS: tuple[Tier, ...] = ("hot", "warm", "cold", "neighbour")

EVERY: dict[Tier, timedelta] = {
    "hot": timedelta(0),
    "warm": timedelta(minutes=15),
    "cold": timedelta(hours=1),
    "neighbour": timedelta(hours=24),
}
EXPLORE_EVERY, EXPLORE_AGAIN = timedelta(hours=1), timedelta(minutes=15)
"""How often a known account is searched for new regions in a large bucket, and one that refused to be.

Accounts are looked for in every run.
"""

RECHECK_EVERY, RECHECK_DAYS = timedelta(hours=1), 3
SWEEP_EVERY, SWEEP_DAYS = timedelta(hours=24), 35

SLACK = timedelta(seconds=30)
"""Runs do not start to the second: what is due this soon is due now."""

PRICE, READ_PRICE = prices.table().usd["s3_list"], prices.table().usd["s3_get"]
"""US dollars for one LIST and one GET request, S3 Standard in us-east-1; other regions are up to a half dearer."""

HEAD_START = timedelta(hours=1)
"""The day's LIST budget is spread over the day, this much ahead, so that its end has some left too."""


def tier(folder: Folder, now: datetime) -> Tier:
    """How lively a region's folder is."""
    if not folder.is_logs:
        return "neighbour"
    quiet = now - folder.last_delivered_at if folder.last_delivered_at is not None else timedelta.max
    return "hot" if quiet <= timedelta(hours=1) else "warm" if quiet <= timedelta(days=1) else "cold"


def due_at(folder: Folder, now: datetime, *, small: bool) -> datetime:
    """When the folder is to be listed again: the earlier, the more urgent. One that refused has had its turn then."""
    every = EVERY["hot"] if small else EVERY[tier(folder, now)]
    return max(_after(folder.listed_at, every, now), _after(folder.refused_at, timedelta(0), now))


def is_due(at: datetime, now: datetime) -> bool:
    """Whether something due at a time is due now."""
    return at <= now + SLACK


def explore_at(account: Folder, now: datetime, *, small: bool) -> datetime:
    """When an account's folder is to be searched for kinds and regions again."""
    every, again = (timedelta(0), timedelta(0)) if small else (EXPLORE_EVERY, EXPLORE_AGAIN)
    return max(_after(account.listed_at, every, now), _after(account.refused_at, again, now))


def is_owed(last: datetime | None, every: timedelta, now: datetime) -> bool:
    """Whether a sweep last made at a time is to be made again."""
    return is_due(_after(last, every, now), now)


def first_day(today: date, newest: date | None, days: int) -> date:
    """The day from which a folder is looked through: so many days before today, or before the newest day seen.

    The latter is for trails that stopped and archives that are still being copied. Days to come are included: names
    run ahead of time by some minutes.
    """
    back = today - timedelta(days=days)
    return back if newest is None else min(back, newest - timedelta(days=max(days, 1)))


def stands_still(folder: Folder, today: date) -> bool:
    """Whether nothing came for yesterday or today: the trail stopped, or it is an archive."""
    return folder.day is not None and folder.day < today - timedelta(days=1)


def allowance(limits: Limits, used: int, now: datetime) -> int:
    """LIST requests that a run may make, after so many were made this (UTC) day."""
    share = (now - datetime.combine(now.date(), time.min) + HEAD_START) / timedelta(days=1)
    return max(0, min(limits.list_budget_run, int(limits.list_budget_day * min(share, 1.0)) - used))


def requests_for(entries: int) -> int:
    """LIST requests that a listing of so many keys and folders takes: S3 gives a thousand at a time."""
    return max(1, -(-entries // 1000))


def cost(requests: int) -> float:
    """What so many LIST requests cost, in US dollars."""
    return requests * PRICE


def cost_of_reading(files: int) -> float:
    """What the GET requests for so many log files cost, in US dollars."""
    return files * READ_PRICE


def _after(last: datetime | None, every: timedelta, now: datetime) -> datetime:
    # A time to come was written by a clock that was wrong.
    return datetime.min if last is None or last > now + SLACK else last + every
