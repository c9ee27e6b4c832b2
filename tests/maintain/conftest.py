"""A state and a lake to maintain: in a folder, and once more on S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kyra_etl.lake import Lake
from tests.maintain.making import Upkeep


@pytest.fixture
def house(lake: Lake, tmp_path: Path) -> Iterator[Upkeep]:
    house = Upkeep(tmp_path, lake)
    yield house
    house.state.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Upkeep]:
    """A lake in a folder, for what has nothing to do with where it is."""
    house = Upkeep(tmp_path)
    yield house
    house.state.close()
