"""A small backfill under fire; `make soak ARGS="backfill"` does it with two million events."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.backfilling import KILLS, backfill_under_fire


@pytest.mark.slow
def test_a_backfill_killed_three_times_is_exact_and_keeps_no_sync_waiting(tmp_path: Path) -> None:
    done = backfill_under_fire(30_000, 20, 1, tmp_path, detections=False)

    print("\n".join(done.told()))
    assert done.complaints(timed=False) == []
    assert done.codes == [-9] * KILLS + [0]
    assert any(sync.beside for sync in done.syncs), "none waited for the backfill's end"
