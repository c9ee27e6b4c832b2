"""The daily roll-up of events: who did what from where, how often, first and last.

First-seen detections ask it instead of history. Merging two roll-ups is adding counts and taking the earliest and
latest time, so the order in which batches come does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from kyra_etl.cloudtrail.schema import ACTIVITY

_KEY = [name for name in ACTIVITY.names if name not in ("first_seen", "last_seen", "count")]
_NEEDED = [
    *(name for name in _KEY if name not in ("region", "access_key")),
    *("aws_region", "access_key_kind", "user_access_key_id", "event_time"),
]


def roll_up(events: pa.Table) -> pa.Table:
    """Events (schema EVENTS) → activity rows (schema ACTIVITY), one a distinct key."""
    long_term = pl.when(pl.col("access_key_kind") == "AKIA").then(pl.col("user_access_key_id"))
    frame = pl.DataFrame(pl.from_arrow(events.select(_NEEDED)))
    frame = frame.with_columns(region=pl.col("aws_region"), access_key=long_term)
    rolled = frame.group_by(_KEY).agg(
        first_seen=pl.col("event_time").min(),
        last_seen=pl.col("event_time").max(),
        count=pl.len().cast(pl.Int64),
    )
    return rolled.select(ACTIVITY.names).sort(_KEY).to_arrow().cast(ACTIVITY)


def merge(rolled: Sequence[pa.Table]) -> pa.Table:
    """Roll-ups of parts → the roll-up of the whole."""
    if len(rolled) == 1:
        return rolled[0]
    # Arrow's grouping takes half the memory of polars' for so many keys of text.
    groups = pa.concat_tables([ACTIVITY.empty_table(), *rolled]).group_by(_KEY, use_threads=False)
    merged = groups.aggregate([("first_seen", "min"), ("last_seen", "max"), ("count", "sum")])
    merged = merged.rename_columns([*_KEY, "first_seen", "last_seen", "count"]).select(ACTIVITY.names)
    return merged.sort_by([(name, "ascending") for name in _KEY]).cast(ACTIVITY)
