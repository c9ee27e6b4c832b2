"""The ways to load that `benchmarks/load.py` compares, each run as a process of its own.

python benchmarks/contenders.py decode|duckdb|polars|floor SOURCE TARGET
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path

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


def duckdb(source: Path, target: Path) -> None:
    """DuckDB's own reader and writer: one statement, its object size just above the largest document.

    Too small fails, too large costs buffers of that size; the last four bytes of a gzip file tell the document's size.
    """
    import duckdb

    largest = max(int.from_bytes(file.read_bytes()[-4:], "little") for file in source.rglob("*.json.gz"))
    kinds = {"VARCHAR": TEXTS, "BOOLEAN": FLAGS, "TIMESTAMP": ["eventTime"], "JSON": PARTS}
    columns = ", ".join(f"{name} {kind}" for kind, names in kinds.items() for name in names)
    statement = DUCKDB.format(source=source, target=target, columns=columns, largest=largest + 2**20)
    duckdb.sql(statement)


def polars(source: Path, target: Path) -> None:
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


def decode(source: Path, target: Path) -> None:
    """kyra's own decoding and encoding, a process a core: a load without ledger, deduplication and activity."""
    _in_processes(_decode, source, target)


def _decode(task: tuple[Path, str, str, list[Path]]) -> None:
    import gc

    import pyarrow.parquet as pq

    from kyra_etl.cloudtrail.decode import Source, decode_files
    from kyra_etl.cloudtrail.schema import PARTITION
    from kyra_etl.lake.writer import parquet_options, split

    gc.disable()
    target, account, day, files = task
    pieces = [
        decode_files(
            [(number, file.read_bytes(), Source("bench", str(file), "b")) for number, file in some],
            now=datetime(2030, 1, 1),
            max_bytes=2**31,
        ).events
        for some in _some(list(enumerate(files)), 16)
    ]
    import pyarrow as pa

    for (owner, date), rows in split(pa.concat_tables(pieces).drop_columns(["_file"])):
        place = target / f"account={owner}" / f"date={date}"
        place.mkdir(parents=True, exist_ok=True)
        plain = rows.drop_columns(list(PARTITION))
        pq.write_table(plain, place / f"{account}-{day}.parquet", **parquet_options(plain.schema))


def floor(source: Path, target: Path) -> None:
    """What nobody gets below: inflate, parse each record once, write its columns; a process a core."""
    _in_processes(_floor, source, target)


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


def _in_processes(work: object, source: Path, target: Path) -> None:
    tasks = [(target, account, day, files) for (account, day), files in _by_partition(source).items()]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(work, tasks):  # type: ignore[arg-type]
            pass


def _some(items: list[tuple[int, Path]], count: int) -> list[list[tuple[int, Path]]]:
    return [items[at : at + count] for at in range(0, len(items), count)]


CONTENDERS = {"decode": decode, "duckdb": duckdb, "polars": polars, "floor": floor}

if __name__ == "__main__":
    CONTENDERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
