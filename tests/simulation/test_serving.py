"""Two minutes of `kyra serve` under fire; `make soak ARGS="serve"` does it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.serving import KINDS, serve_under_fire


@pytest.mark.slow
@pytest.mark.xdist_group("soak")
def test_serve_goes_on_by_itself_whatever_is_killed_and_loads_every_file_once(s3_server: str, tmp_path: Path) -> None:
    served = serve_under_fire(2, 25, 1, s3_server, tmp_path)

    print("\n".join(served.told()))
    assert served.complaints(timed=False) == []
    assert {kill.kind for kill in served.kills} == set(KINDS)
    assert served.syncs["succeeded"] >= 6
