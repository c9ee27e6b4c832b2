"""The road of every change to files that are in the lake: make, swap; then, for many at once, retire and publish.

A crash before the swap leaves a staging folder that is swept; one after it leaves moves that whoever comes next makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex

from kyra_etl.errors import CommitRefused
from kyra_etl.lake import Lake, Partition
from kyra_etl.model import DataFile, Limits
from kyra_etl.owner import owner_of
from kyra_etl.ports import Clock, Progress
from kyra_etl.run import Kit, release_dead
from kyra_etl.settle import tidy
from kyra_etl.state import Lease, State
from kyra_etl.state.swaps import Kind

LEASE_SECONDS = 3_600
"""Longer than a sync's: one partition may take its time."""

TOGETHER = 50_000
"""Files of the books that are moved together. While files move, readers list them anew; the fewer times, the better."""

LEFT_BEHIND = timedelta(days=1)
"""What was written so long ago, and is still to be moved into place, has nobody any more who would."""


@dataclass(slots=True)
class Work:
    """The live parts of one run of maintenance, and its lease."""

    lake: Lake
    state: State
    limits: Limits
    clock: Clock
    progress: Progress
    lease: Lease
    waiting: int = 0
    """Files that are swapped in the books and still to be moved."""

    def alive(self) -> None:
        self.lease.renew(LEASE_SECONDS)

    def move(self) -> None:
        """Move to their places all files that were swapped."""
        if self.waiting:
            tidy(lake=self.lake, state=self.state)
            self.waiting = 0


@contextmanager
def holding(kit: Kit) -> Iterator[Lease | None]:
    """The right to maintain the lake; None while another run has it."""
    release_dead(kit)
    lease = kit.state.leases.take("maintain", owner_of(f"maintain-{token_hex(4)}"), LEASE_SECONDS)
    if lease is None:
        yield None
        return
    with lease:
        yield lease


@contextmanager
def working(kit: Kit) -> Iterator[Work | None]:
    """The right to maintain the lake, once what crashed runs left is completed; None while another run has it."""
    with holding(kit) as lease:
        if lease is None:
            yield None
            return
        # Whoever planned these has lost the lease, and finds its commit refused.
        kit.state.swaps.abandon(None, kit.clock())
        tidy(lake=kit.lake, state=kit.state)
        kit.lake.sweep_tables(kit.clock() - LEFT_BEHIND)
        work = Work(kit.lake, kit.state, kit.limits, kit.clock, kit.progress, lease)
        yield work
        work.move()


def swap(
    work: Work,
    kind: Kind,
    partition: Partition,
    make: Callable[[str], Sequence[DataFile]],
    *,
    replaced: Sequence[DataFile],
    read: Sequence[DataFile] = (),
) -> Sequence[DataFile] | None:
    """Put what `make` stages, given the swap's id, in the place of `replaced`: in the books now, on disk by `work`.

    None when somebody else replaced one of these files, or of those `read`, meanwhile; then nothing is changed.
    """
    lake, state = work.lake, work.state
    swap_id = state.swaps.plan(kind, *partition, work.clock())
    try:
        made = make(swap_id)
    except BaseException:
        state.swaps.abandon(swap_id, work.clock())
        lake.discard(swap_id)
        raise
    try:
        state.swaps.commit(swap_id, replaced=replaced, made=made, read=read, now=work.clock())
    except CommitRefused:
        state.swaps.abandon(swap_id, work.clock())
        lake.discard(swap_id)
        return None
    # Readers of the old files go on reading them where they are, and those of the new ones where those are staged.
    work.waiting += len(replaced) + len(made)
    if work.waiting >= TOGETHER:
        work.move()
    return made


def remove_replaced(work: Work) -> int:
    """Remove replaced files whose grace is over; how many that were."""
    paths = work.state.swaps.retired(work.clock() - timedelta(hours=work.limits.replaced_hours))
    work.lake.remove_retired(paths)
    work.state.swaps.forget(paths)
    return len(paths)
