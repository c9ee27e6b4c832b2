"""Which events of a batch are new: the same event twice is one event, two contents under one id are two.

Duplicates are ordinary: two trails into one bucket deliver every event twice, in different files and different runs.
The comparison is on (account, event_id) first, which is cheap, and on the whole record for those that collide.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from kyra_etl.cloudtrail.records import rebuild
from kyra_etl.cloudtrail.schema import EVENTS, RECORD_COLUMNS

_KEY = ["account", "event_id"]
_CONTENT = ["account", *RECORD_COLUMNS]
_SLICE = 50_000


@dataclass(frozen=True, slots=True)
class Distinct:
    """Which rows of a batch to keep, and which of those share their id with an event of other content.

    Both are boolean columns as long as the batch.
    """

    keep: pa.BooleanArray
    conflicts: pa.BooleanArray


def colliding(files: Sequence[str], filesystem: pafs.FileSystem, account: str, event_ids: pa.Array) -> pa.Table:
    """The rows of one partition's committed files whose ids are among `event_ids`, with `_CONTENT`'s columns.

    Ids are scanned first, a slice at a time; whole rows are read only where some collide.
    """
    columns = list(RECORD_COLUMNS)
    found: list[pa.Table] = []
    wanted = pa.array(event_ids)
    for file in files:
        dataset = ds.dataset(file, filesystem=filesystem, format="parquet")
        ids = [
            batch.column("event_id").filter(pc.is_in(batch.column("event_id"), value_set=wanted))
            for batch in dataset.to_batches(columns=["event_id"])
        ]
        hits = pa.concat_arrays(ids) if ids else pa.array([], pa.string())
        if len(hits):
            found.append(dataset.to_table(columns=columns, filter=pc.field("event_id").isin(hits)))
    schema = pa.schema([("account", pa.string()), *((name, _type(name)) for name in columns)])
    if not found:
        return schema.empty_table()
    rows = pa.concat_tables(found)
    return rows.add_column(0, "account", pa.repeat(pa.scalar(account), rows.num_rows)).cast(schema)


def distinct(keys: pa.Table, content: Callable[[pa.Array], pa.Table], committed: pa.Table) -> Distinct:
    """Keep of a batch what is neither twice in it nor in `committed` (rows of colliding ids, see `colliding`).

    `keys` are the batch's accounts and event ids; `content` gives whole rows by their numbers, and is asked only for
    those that collide. Of rows that are the same event the first is kept, in the batch's order.
    """
    known = pl.DataFrame(pl.from_arrow(committed))
    # By hash, which takes a tenth of the memory; whoever is suspected without cause is found innocent below.
    hashes = _hashes(keys["event_id"])
    suspected = hashes.is_duplicated()
    if known.height:
        suspected |= hashes.is_in(known["event_id"].hash().implode())
    suspect = pl.DataFrame({"_row": suspected.arg_true()})
    if suspect.is_empty():
        return Distinct(_flags(keys.num_rows, True), _flags(keys.num_rows, False))

    doubtful = pl.DataFrame(pl.from_arrow(content(suspect["_row"].to_arrow()).select(_CONTENT)))
    doubtful = doubtful.with_columns(suspect["_row"])
    doubtful = doubtful.unique(subset=_CONTENT, keep="first", maintain_order=True)
    if known.height:
        doubtful = doubtful.join(known, on=_CONTENT, how="anti", nulls_equal=True, maintain_order="left")
    kept, conflicts = _settle(doubtful, known)
    dropped = set(suspect["_row"].to_list()).difference(kept)
    return Distinct(_flags(keys.num_rows, True, dropped), _flags(keys.num_rows, False, conflicts))


def _hashes(ids: pa.ChunkedArray) -> pl.Series:
    """A number for each id, made from some at a time, since as texts of polars they take several times the memory."""
    slices = (ids.slice(first, _SLICE) for first in range(0, len(ids), _SLICE))
    return pl.concat([pl.Series([], dtype=pl.UInt64), *(pl.Series(pl.from_arrow(some)).hash() for some in slices)])


def _flags(length: int, value: bool, but: Collection[int] = ()) -> pa.BooleanArray:
    if not but:
        return pa.repeat(pa.scalar(value), length)
    exceptions = pl.int_range(length, eager=True).is_in(list(but))
    return (~exceptions if value else exceptions).to_arrow()


def _settle(doubtful: pl.DataFrame, known: pl.DataFrame) -> tuple[list[int], set[int]]:
    """Rows whose text differs from every other of their id: equal as JSON after all, or truly of other content?"""
    seen: dict[tuple[str, str], set[str]] = {}
    if doubtful.height and known.height:
        for row in known.join(doubtful.select(_KEY), on=_KEY, how="semi").iter_rows(named=True):
            seen.setdefault((row["account"], row["event_id"]), set()).add(_canonical(row))
    keep: list[int] = []
    conflicts: set[int] = set()
    for row in doubtful.iter_rows(named=True):
        contents = seen.setdefault((row["account"], row["event_id"]), set())
        content = _canonical(row)
        if content in contents:
            continue
        if contents:
            conflicts.add(row["_row"])
        contents.add(content)
        keep.append(row["_row"])
    return keep, conflicts


def _canonical(row: dict[str, object]) -> str:
    try:
        fields = json.loads(rebuild(row), parse_float=_number, parse_int=_number)
        # LookupEvents and log files need not agree on writing a field that has no value.
        value = {name: part for name, part in fields.items() if part is not None}
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):  # nested about as deeply as Python can follow: then the text is the content
        return repr([row[name] for name in RECORD_COLUMNS])


def _number(text: str) -> dict[str, str]:
    # A number's text must not be taken for a string's, nor 1.0 for 1.
    return {"number": text}


def _type(name: str) -> pa.DataType:
    return EVENTS.field(name).type
