"""Deduplicated rows → staged data files, a file a partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl.cloudtrail.schema import MALFORMED, PARTITION
from kyra_etl.lake import layout
from kyra_etl.lake.activity import roll_up
from kyra_etl.lake.storage import ZSTD_LEVEL, Storage
from kyra_etl.model import DataFile

Partition = tuple[str, date]

_PLAIN = ("event_id", "request_id", "shared_event_id")
"""Columns of random ids: a dictionary of them only costs."""


def partitions_of(events: pa.Table) -> list[Partition]:
    """The (account, date) pairs a table touches, in order."""
    pairs = events.group_by(list(PARTITION)).aggregate([]).to_pylist()
    return sorted((pair["account"], pair["date"]) for pair in pairs)


def split(events: pa.Table) -> Iterator[tuple[Partition, pa.Table]]:
    """A table by partition, each without its partition columns' repetition in mind: rows keep their order."""
    partitions = partitions_of(events)
    if len(partitions) == 1:
        yield partitions[0], events
        return
    for account, day in partitions:
        mask = pc.and_(
            pc.equal(events["account"], pa.scalar(account)), pc.equal(events["date"], pa.scalar(day, pa.date32()))
        )
        yield (account, day), events.filter(mask)


def stage(
    storage: Storage, batch_id: str, attempt: int, events: pa.Table, malformed: Sequence[dict[str, Any]]
) -> tuple[DataFile, ...]:
    """Write one attempt's files under `_staging/` and describe them; nothing is visible to readers yet.

    `events` has schema EVENTS, `malformed` rows of schema MALFORMED. The roll-up is made of the very same rows.
    """
    files: list[DataFile] = []
    for (account, day), rows in split(events):
        for kind, directory, table in (
            ("events", layout.EVENTS_DIR, rows),
            ("activity", layout.ACTIVITY_DIR, roll_up(rows)),
        ):
            path = layout.partitioned(directory, account, day, batch_id)
            files.append(_write(storage, kind, path, batch_id, attempt, table, account, day))
    if malformed:
        path = f"{layout.MALFORMED_DIR}/{batch_id}.parquet"
        table = pa.Table.from_pylist(list(malformed), MALFORMED)
        files.append(_write(storage, "malformed", path, batch_id, attempt, table, None, None))
    return tuple(files)


def _write(
    storage: Storage,
    kind: Literal["events", "activity", "malformed"] | str,
    path: str,
    batch_id: str,
    attempt: int,
    table: pa.Table,
    account: str | None,
    day: date | None,
) -> DataFile:
    times = None
    if kind == "events":
        times = pc.min_max(table["event_time"]).as_py()
    plain = table.drop_columns([name for name in PARTITION if name in table.column_names])
    staged_path = layout.staged(path, batch_id, attempt)
    size = storage.write_parquet(staged_path, plain, **parquet_options(plain))
    return DataFile(
        kind=kind,  # type: ignore[arg-type]
        path=path,
        staged_path=staged_path,
        rows=table.num_rows,
        size=size,
        account=account,
        date=day,
        min_time=times["min"] if times else None,
        max_time=times["max"] if times else None,
    )


def parquet_options(table: pa.Table) -> dict[str, Any]:
    """How the lake's files are encoded: zstd, dictionaries where values repeat, no writer-specific schema."""
    return {
        "compression": "zstd",
        "compression_level": ZSTD_LEVEL,
        "use_dictionary": [name for name in table.column_names if name not in _PLAIN],
        "store_schema": False,
    }
