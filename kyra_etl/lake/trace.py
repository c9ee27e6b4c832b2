"""Where in the lake an event lies, by its id: ids are scanned first, rows are read only from files that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from kyra_etl.cloudtrail.schema import EVENTS

COLUMNS = ("event_id", "event_time", "event_name", "integration", "source_key", "delivered_at", "batch_id")
"""What is read of an event; `trace` adds `file`, the place in the list given."""

_FILE = "__filename"


@dataclass(frozen=True, slots=True)
class Traced:
    """Events of exactly the id, and `longer`: one whose id only begins with it, where there is such a one."""

    rows: list[dict[str, Any]]
    longer: str | None = None


def trace(files: Sequence[str], filesystem: pafs.FileSystem, event_id: str) -> Traced:
    """Look for an event in data files of events. Raises what pyarrow raises."""
    if not files:
        return Traced([])
    holding: set[str] = set()
    longer: str | None = None
    begins = pc.starts_with(pc.field("event_id"), event_id)
    for batch in _dataset(files, filesystem).to_batches(columns=["event_id", _FILE], filter=begins):
        for found, file in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            if found == event_id:
                holding.add(file)
            else:
                longer = min(longer or found, found)
    rows = []
    for number, path in enumerate(files):
        if path in holding:
            table = _dataset([path], filesystem).to_table(columns=[*COLUMNS], filter=pc.field("event_id") == event_id)
            rows += [{"file": number, **row} for row in table.to_pylist()]
    return Traced(rows, longer)


def _dataset(files: Sequence[str], filesystem: pafs.FileSystem) -> ds.Dataset:
    # The schema is ours, so that older files have NULL for newer columns.
    schema = pa.schema([EVENTS.field(name) for name in COLUMNS])
    return ds.dataset(list(files), schema=schema, format="parquet", filesystem=filesystem)
