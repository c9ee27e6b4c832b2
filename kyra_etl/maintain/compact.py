"""Compact finished days: many small files of a partition become few large sorted ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any

from kyra_etl.errors import LakeError
from kyra_etl.lake import Partition
from kyra_etl.lake import compact as compacting
from kyra_etl.maintain.books import keep_books
from kyra_etl.maintain.swap import Work, remove_replaced, swap, working
from kyra_etl.run import Kit


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did. `before` and `after` are of the whole lake: files, bytes, events, bytes_per_event."""

    skipped: str | None = None
    """Why nothing was done: another run maintains this lake."""
    partitions: int = 0
    """Partitions that were compacted."""
    files_read: int = 0
    files_written: int = 0
    doubled: int = 0
    """Events that were there more than once, and are no more."""
    removed: int = 0
    """Files replaced earlier whose grace was over."""
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    runs: int = 0
    """Old runs whose reports left the state."""
    gathered: int = 0
    """Files that runs had published about themselves, and whose rows went into another one of their day."""
    failed: tuple[Mapping[str, str], ...] = ()
    """Partitions that could not be compacted: account (or table), date, error. They are as they were."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Tally:
    partitions: int = 0
    files_read: int = 0
    files_written: int = 0
    doubled: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)


def compact(
    kit: Kit, *, first: date | None = None, last: date | None = None, accounts: Collection[str] | None = None
) -> CompactReport:
    """Compact the days `first` to `last` of these accounts; all days that are old enough, and all accounts, without.

    Takes partitions with files as batches wrote them, so that running again does nothing, and a late file makes its
    partition worth another run. One that fails stays as it is, and the others go on.
    """
    with working(kit) as work:
        if work is None:
            return CompactReport(skipped="another run is maintaining this lake")
        if last is None:
            last = kit.clock().date() - timedelta(days=kit.limits.compact_after_days)
        before, tally = totals(work), _Tally()
        crowded = work.state.swaps.crowded(compacting.FULL, first=first, last=last, accounts=accounts)
        kit.progress.stage("Compacting", len(crowded))
        for partition in crowded:
            try:
                _compact(work, partition, tally)
            except LakeError as error:
                account, day = partition
                tally.failed.append({"account": account, "date": day.isoformat(), "error": str(error)})
            work.alive()
            kit.progress.advance()
        removed, kept = remove_replaced(work), keep_books(work)
        counts = {name: value for name, value in vars(tally).items() if name != "failed"}
        return CompactReport(
            **counts,
            runs=kept.runs,
            gathered=kept.gathered,
            failed=(*tally.failed, *kept.failed),
            removed=removed,
            before=before,
            after=totals(work),
        )


def _compact(work: Work, partition: Partition, tally: _Tally) -> None:
    held = work.state.swaps.contents(partition, compacting.FULL)
    doubled = 0

    def make(swap_id: str) -> list[Any]:
        nonlocal doubled
        target = compacting.Partition(*partition, swap_id, work.limits.compact_memory, work.alive)
        made, doubled = compacting.compact(work.lake.storage, target, held.small, held.full, held.activity)
        return made

    made = swap(work, "compact", partition, make, replaced=[*held.small, *held.activity], read=held.full)
    if made is not None:
        tally.partitions += 1
        tally.files_read += len(held.small) + len(held.activity)
        tally.files_written += len(made)
        tally.doubled += doubled


def totals(work: Work) -> dict[str, float]:
    """Files and bytes of the whole lake, and what an event takes on average."""
    known = work.state.swaps.totals()
    each = known["event_bytes"] / known["events"] if known["events"] else 0.0
    return {**known, "bytes_per_event": round(each, 1)}
