"""The lake in a folder and on S3: for tests that run on both, by the fixture `lake`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from kyra_etl.lake import Lake

IN_A_FOLDER = pytest.mark.parametrize("lake", ["folder"], indirect=True)
"""For the few tests beside them that have nothing to do with where the lake lies."""


def table(lake: Lake, folder: str) -> pa.Table:
    """Every row below `events`, `activity` or `malformed`, as a program reads it that knows nothing of us."""
    filesystem, root = lake.storage.filesystem()
    return ds.dataset(f"{root}/{folder}", filesystem=filesystem, partitioning="hive").to_table()
