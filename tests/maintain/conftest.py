"""A state and a lake to maintain: in a folder, and once more on S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from kyra_etl.lake import Lake, S3Options, open_lake
from tests.maintain.making import Upkeep


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "folder":
        return open_lake(str(tmp_path / "lake"))
    endpoint = request.getfixturevalue("s3_server")
    boto3.client("s3").create_bucket(Bucket="lake")
    return open_lake("s3://lake/kyra", S3Options(endpoint_url=endpoint, region="us-east-1"))


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
