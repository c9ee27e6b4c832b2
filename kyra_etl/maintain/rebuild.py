"""Make the roll-up `activity` anew from the events it was made of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from kyra_etl.errors import LakeError
from kyra_etl.lake import Partition
from kyra_etl.lake import compact as compacting
from kyra_etl.maintain.swap import Work, swap, working
from kyra_etl.model import DataFile
from kyra_etl.run import Kit


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild did."""

    skipped: str | None = None
    partitions: int = 0
    failed: tuple[dict[str, str], ...] = ()
    """Partitions that could not be rebuilt: account, date, error. They are as they were."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def rebuild(
    kit: Kit, *, first: date | None = None, last: date | None = None, accounts: Collection[str] | None = None
) -> RebuildReport:
    """Rebuild `activity` of the days `first` to `last` of these accounts; of all, without."""
    with working(kit) as work:
        if work is None:
            return RebuildReport(skipped="another run is maintaining this lake")
        partitions = work.state.swaps.filled(first=first, last=last, accounts=accounts)
        kit.progress.stage("Rebuilding", len(partitions))
        done, failed = 0, []
        for partition in partitions:
            try:
                done += _rebuild(work, partition)
            except LakeError as error:
                account, day = partition
                failed.append({"account": account, "date": day.isoformat(), "error": str(error)})
            work.alive()
            kit.progress.advance()
        return RebuildReport(partitions=done, failed=tuple(failed))


def _rebuild(work: Work, partition: Partition) -> bool:
    held = work.state.swaps.contents(partition, compacting.FULL)
    events = [*held.full, *held.small]

    def make(swap_id: str) -> list[DataFile]:
        target = compacting.Partition(*partition, swap_id, work.limits.compact_memory, work.alive)
        return compacting.rebuild(work.lake.storage, target, events)

    return swap(work, "rebuild", partition, make, replaced=held.activity, read=events) is not None
