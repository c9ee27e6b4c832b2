"""Where files lie in the lake, and what they are called.

    events/account=<12 digits>/date=<YYYY-MM-DD>/<batch>.parquet      what analysts read
    activity/account=…/date=…/<batch>.parquet                         the daily roll-up of the same rows
    malformed/<batch>.parquet                                         records that are no events
    _staging/<batch>-<attempt>/<the same paths>                       written, not yet published
    _replaced/<the same paths>                                        files that others took the place of; see maintain
    _unknown/<the same paths>                                         files that no ledger knew, set aside; see maintain
    _gathered/activity/<account>.parquet                              past days' activity once more, for baselines
    _gathered/events/<first>-<last>-<which>.parquet                   the newest runs' events once more, for look-backs
    _kyra.json                                                        which state owns the lake

Names come from the batch alone, so doing a batch again writes the same names; those of a swap (a compaction …) are its
own, with a number. All paths are relative to the lake, with
forward slashes. Readers' globs start at `events/`, so nothing staged is ever seen by them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from kyra_etl.errors import LakeError

EVENTS_DIR = "events"
ACTIVITY_DIR = "activity"
MALFORMED_DIR = "malformed"
DATA_DIRS = (EVENTS_DIR, ACTIVITY_DIR, MALFORMED_DIR)
"""Where data files lie that are published."""
STAGING_DIR = "_staging"
TABLES_STAGING = "_tables"
"""Where records of our own are written before they are moved into place."""
REPLACED_DIR = "_replaced"
UNKNOWN_DIR = "_unknown"
GATHERED_DIR = "_gathered"
MARKER = "_kyra.json"

HIVE_TYPES = "{'account': VARCHAR, 'date': DATE}"
"""For DuckDB's read_parquet: without it account ids become integers, depending on the data."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The partitions that a question concerns: dates `first` to `last`, both included, of `accounts`; None is any."""

    first: date | None = None
    last: date | None = None
    accounts: Collection[str] | None = None


EVERYWHERE = Reach()


def partition(account: str, day: date) -> str:
    """`account=…/date=…`. Raises LakeError for an account that is not 12 digits: it becomes part of a path."""
    if not re.fullmatch(r"[0-9]{12}", account):
        raise LakeError(f"{account[:40]!r} is not an account id.", "Nothing was written. Report this: it is a fault.")
    return f"account={account}/date={day:%Y-%m-%d}"


def partitioned(kind_dir: str, account: str, day: date, name: str) -> str:
    """Final path of a data file of one partition."""
    return f"{kind_dir}/{partition(account, day)}/{name}.parquet"


def staging(id_: str, attempt: int = 1) -> str:
    """The folder one attempt at a batch writes to, or a swap, which has but one."""
    return f"{STAGING_DIR}/{id_}-{attempt}"


def staged(path: str, id_: str, attempt: int = 1) -> str:
    """Where a file of `path` is staged by one attempt."""
    return f"{staging(id_, attempt)}/{path}"
