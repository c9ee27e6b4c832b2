"""How long events are kept: `retain_days`, and another number of days for some accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl.model import Limits

FOR_EVER = 0
"""Days of an account whose events are kept however old they are."""


def horizon(limits: Limits, account: str, today: date) -> date | None:
    """The first day whose events are kept; None when all are."""
    days = limits.retain.get(account, limits.retain_days)
    return None if days is None or days == FOR_EVER else today - timedelta(days=days)


@dataclass(frozen=True, slots=True)
class Young:
    """Tells which events are younger than their account's are kept, on the day `today`.

    `removed` is the first day that retention left of an account: what it took away does not come back when the
    settings keep more later.
    """

    limits: Limits
    removed: Mapping[str, date]
    today: date

    def __call__(self, events: pa.Table) -> pa.BooleanArray:
        """A flag for each row of a table with `account` and `date`."""
        kept = pa.array([True] * events.num_rows, pa.bool_())
        for account in pc.unique(events["account"]).to_pylist():
            days = [day for day in (horizon(self.limits, account, self.today), self.removed.get(account)) if day]
            if days:
                other = pc.not_equal(events["account"], pa.scalar(account))
                kept = pc.and_(kept, pc.or_(other, pc.greater_equal(events["date"], pa.scalar(max(days), pa.date32()))))
        return kept.combine_chunks() if isinstance(kept, pa.ChunkedArray) else kept
