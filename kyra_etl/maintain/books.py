"""What runs leave behind about themselves stays small: reports in the state, and published files in the lake."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from kyra_etl.cadence import SWEEP_DAYS
from kyra_etl.errors import LakeError
from kyra_etl.maintain.swap import Work

KEPT = timedelta(days=SWEEP_DAYS)
"""How long the state keeps runs with their reports."""


class Kept(NamedTuple):
    """What `keep_books` did."""

    runs: int
    """Old runs whose reports left the state."""
    gathered: int
    """Published files of runs, log files and alert events whose rows went into another one of their day."""
    failed: list[dict[str, str]]
    """Days of a table that are as they were: account (its table), date, error."""


def keep_books(work: Work) -> Kept:
    """Take old runs off the state, and make one file a day of what runs have published."""
    now, failed, gathered = work.clock(), list[dict[str, str]](), 0
    runs = work.state.runs.prune(now - KEPT, work.alive)
    # A run publishes into the day it began on, after its end or whenever another makes up for it.
    unpublished = work.state.runs.publishing() or now
    for (table, day), paths in work.lake.crowded_tables(min(now, unpublished).date()).items():
        try:
            work.lake.gather_table(table, paths, work.limits.compact_memory, work.alive)
            gathered += len(paths) - 1
        except LakeError as error:
            failed.append({"account": table, "date": day, "error": str(error)})
        work.alive()
    return Kept(runs, gathered, failed)
