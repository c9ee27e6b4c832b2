"""What follows a commit: files go where the ledger says they are. Safe to repeat, by whoever comes next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from kyra_etl.errors import LakeError
from kyra_etl.lake import Lake
from kyra_etl.model import DataFile
from kyra_etl.state import State


def publish(files: Sequence[DataFile], *, lake: Lake, state: State) -> None:
    """Move committed files to where readers look."""
    done = []
    for file in files:
        try:
            done += lake.publish([file])
        except LakeError:
            # Somebody else may have published it, and a compaction may have taken it away since.
            if file.path in {waiting.path for waiting in state.ledger.unpublished()}:
                raise
    if done:
        state.ledger.mark_published(done)


def retire(files: Sequence[DataFile], *, lake: Lake, state: State) -> None:
    """Move replaced files out of readers' way."""
    if files:
        lake.retire(files)
        state.ledger.mark_retired([file.path for file in files])


def settle(*, lake: Lake, state: State) -> None:
    """Move what is committed to its place, a partition after the other.

    Replaced files go first: a glob may lack a partition's events for a moment, never see them twice.
    """
    replaced, waiting = (_by_partition(files) for files in state.ledger.unsettled())
    for partition in sorted(replaced | waiting):
        retire(replaced.get(partition, []), lake=lake, state=state)
        publish(waiting.get(partition, []), lake=lake, state=state)


def tidy(*, lake: Lake, state: State) -> None:
    """Complete what crashed runs left: publish what is committed, sweep what never will be."""
    staged = lake.staged_attempts()
    # The order matters. An attempt begun after the listing is not in it; one that commits after being found live is
    # left alone; one that committed before is found unpublished, and moved before its folder is swept.
    live = {f"{batch_id}-{attempt}" for batch_id, attempt in state.ledger.live_batches()}
    live |= {lake.staging_of(swap_id) for swap_id in state.swaps.planned()}
    settle(lake=lake, state=state)
    lake.sweep(name for name in staged if name not in live)


def _by_partition(files: Sequence[DataFile]) -> dict[tuple[str, date], list[DataFile]]:
    found: dict[tuple[str, date], list[DataFile]] = {}
    for file in files:
        found.setdefault((file.account or "", file.date or date.min), []).append(file)  # malformed records have none
    return found
