"""The ways to load that `benchmarks/load.py` compares, each run as a process of its own.

python benchmarks/contenders.py decode|duckdb|polars|floor SOURCE TARGET PROCESSES
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

LARGE = 2**20
"""Bytes as stored from which a file is decoded piece by piece."""

DUCKDB = """
COPY (
  SELECT coalesce(r.recipientAccountId, '000000000000') AS account, CAST(r.eventTime AS DATE) AS date, r.*,
         r.userIdentity->>'$.type' AS user_type, r.userIdentity->>'$.arn' AS user_arn,
         r.userIdentity->>'$.principalId' AS user_principal_id, r.userIdentity->>'$.accountId' AS user_account_id,
         r.userIdentity->>'$.accessKeyId' AS user_access_key_id, r.userIdentity->>'$.userName' AS user_name,
         r.userIdentity->>'$.sessionContext.sessionIssuer.arn' AS issuer_arn, filename AS source_key
  FROM (SELECT unnest(Records) AS r, filename FROM read_json('{source}/**/*.json.gz', filename = true,
        maximum_object_size = {largest}, columns = {{Records: 'STRUCT({columns})[]'}}))
) TO '{target}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (account, date))
"""
TEXTS = (
    "eventVersion",
    "eventID",
    "eventName",
    "eventSource",
    "eventType",
    "eventCategory",
    "awsRegion",
    "sourceIPAddress",
    "userAgent",
    "errorCode",
    "errorMessage",
    "recipientAccountId",
    "requestID",
    "sharedEventID",
    "vpcEndpointId",
    "apiVersion",
)
FLAGS = ("readOnly", "managementEvent")
PARTS = (
    "userIdentity",
    "requestParameters",
    "responseElements",
    "additionalEventData",
    "resources",
    "serviceEventDetails",
    "tlsDetails",
)


def duckdb(source: Path, target: Path, processes: int) -> None:
    """DuckDB's own reader and writer: one statement, its object size just above the largest document.

    Too small fails, too large costs buffers of that size; the last four bytes of a gzip file tell the document's size.
    """
    import duckdb

    largest = max(int.from_bytes(file.read_bytes()[-4:], "little") for file in source.rglob("*.json.gz"))
    kinds = {"VARCHAR": TEXTS, "BOOLEAN": FLAGS, "TIMESTAMP": ["eventTime"], "JSON": PARTS}
    columns = ", ".join(f"{name} {kind}" for kind, names in kinds.items() for name in names)
    statement = DUCKDB.format(source=source, target=target, columns=columns, largest=largest + 2**20)
    duckdb.sql(f"SET threads = {processes}")
    duckdb.sql(statement)


def polars(source: Path, target: Path, processes: int) -> None:
    """The records of each file cut out of their envelope as lines, then polars' own reader and writer, day by day."""
    import msgspec
    import polars as pl
    from isal import igzip

    envelope = msgspec.json.Decoder(dict[str, list[msgspec.Raw]])
    schema = pl.Schema(
        {**dict.fromkeys([*TEXTS, "eventTime", *PARTS], pl.String()), **dict.fromkeys(FLAGS, pl.Boolean())}
    )
    for (account, day), files in _by_partition(source).items():
        lines = (bytes(record) for file in files for record in envelope.decode(igzip.open(file).read())["Records"])
        frame = pl.read_ndjson(b"\n".join(lines), schema=schema)
        frame = frame.with_columns(pl.col("eventTime").str.to_datetime("%Y-%m-%dT%H:%M:%SZ"))
        place = target / f"account={account}" / f"date={day}"
        place.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(place / "0.parquet", compression="zstd")


def decode(source: Path, target: Path, processes: int) -> None:
    """kyra's own decoding and encoding in processes: a load without ledger, deduplication and activity."""
    _in_processes(_decode, source, target, processes)


def _decode(task: tuple[Path, str, str, list[Path]]) -> None:
    import gc
    from contextlib import ExitStack

    import pyarrow as pa
    import pyarrow.parquet as pq

    from kyra_etl import memory
    from kyra_etl.cloudtrail.decode import Source, decode_files, decode_large
    from kyra_etl.cloudtrail.schema import EVENTS, PARTITION
    from kyra_etl.lake.spool import BUDGET
    from kyra_etl.lake.writer import parquet_options, split

    gc.disable()
    memory.give_back()
    target, account, day, files = task
    stored = pa.schema([field for field in EVENTS if field.name not in PARTITION])
    bounds: dict[str, Any] = {"now": datetime(2030, 1, 1), "max_bytes": 2**31}

    def tables() -> Iterator[pa.Table]:
        small = [file for file in files if file.stat().st_size < LARGE]
        for some in _some(list(enumerate(small)), 16):
            fetched = [(number, file.read_bytes(), Source("bench", str(file), "b")) for number, file in some]
            yield decode_files(fetched, **bounds).events
        for number, file in enumerate(set(files) - set(small)):
            with file.open("rb") as data:
                for piece in decode_large(number, data, Source("bench", str(file), "b"), **bounds):
                    yield piece.events

    with ExitStack() as until:
        writers: dict[tuple[str, date], pq.ParquetWriter] = {}
        for pieces in _of_size(tables(), BUDGET):
            for partition, rows in split(pa.concat_tables(pieces)):
                if partition not in writers:
                    place = target / f"account={partition[0]}" / f"date={partition[1]}"
                    place.mkdir(parents=True, exist_ok=True)
                    path = place / f"{account}-{day}.parquet"
                    writers[partition] = until.enter_context(pq.ParquetWriter(path, stored, **parquet_options(stored)))
                writers[partition].write_table(rows.select(stored.names))


def _of_size(tables: Iterator[pa.Table], size: int) -> Iterator[list[pa.Table]]:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(one.nbytes for one in held) >= size:
            yield held
            held = []
    if held:
        yield held


def floor(source: Path, target: Path, processes: int) -> None:
    """What nobody gets below: inflate, parse each record once, write its columns; in processes."""
    _in_processes(_floor, source, target, processes)


def _floor(task: tuple[Path, str, str, list[Path]]) -> None:
    import gc

    import msgspec
    import pyarrow as pa
    import pyarrow.parquet as pq
    from isal import igzip

    gc.disable()
    target, account, day, files = task
    fields = [*((name, str | None, None) for name in (*TEXTS, "eventTime")), *((n, bool | None, None) for n in FLAGS)]
    record = msgspec.defstruct("record", [*fields, *((name, msgspec.Raw, msgspec.Raw()) for name in PARTS)], gc=False)
    envelope = msgspec.json.Decoder(msgspec.defstruct("envelope", [("Records", list[record])]))
    columns: dict[str, list[object]] = defaultdict(list)
    for file in files:
        for one in envelope.decode(igzip.open(file).read()).Records:  # type: ignore[attr-defined]
            for name in TEXTS:
                columns[name].append(getattr(one, name))
            for name in PARTS:
                columns[name].append(bytes(getattr(one, name)))
    place = target / f"account={account}" / f"date={day}"
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), place / "0.parquet", compression="zstd")


def _by_partition(source: Path) -> dict[tuple[str, str], list[Path]]:
    """Files by the account and day in their key, the heaviest first."""
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for file in sorted(source.rglob("*.json.gz")):
        year, month, day = file.parts[-4:-1]
        found[file.parts[-7], f"{year}-{month}-{day}"].append(file)
    return dict(sorted(found.items(), key=lambda item: -sum(file.stat().st_size for file in item[1])))


def _in_processes(work: object, source: Path, target: Path, processes: int) -> None:
    tasks = [(target, account, day, files) for (account, day), files in _by_partition(source).items()]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(work, tasks):  # type: ignore[arg-type]
            pass


def _some(items: list[tuple[int, Path]], count: int) -> list[list[tuple[int, Path]]]:
    return [items[at : at + count] for at in range(0, len(items), count)]


CONTENDERS = {"decode": decode, "duckdb": duckdb, "polars": polars, "floor": floor}

if __name__ == "__main__":
    CONTENDERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
