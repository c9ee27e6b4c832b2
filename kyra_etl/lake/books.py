"""Published records of our own (`lake.tables`): the small files of a day become one."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import duckdb
import pyarrow as pa

from kyra_etl.errors import LakeError
from kyra_etl.lake import layout, views
from kyra_etl.lake.compact import working_memory
from kyra_etl.lake.storage import MOVES_AT_ONCE, Storage
from kyra_etl.lake.tables import LATEST, TABLES
from kyra_etl.lake.writer import parquet_options

_FILE = re.compile(r"\w+/date=(?P<day>\d{4}-\d{2}-\d{2})/[^/]+\.parquet")

_ROWS = 65_536
"""Rows of a row group."""


def crowded(storage: Storage, before: date) -> dict[tuple[str, str], list[str]]:
    """The files of every day before then that has several, in the order of their runs, by table and day."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for table in LATEST:
        for path in sorted(storage.sizes(table)):
            if (own := _FILE.fullmatch(path)) and own["day"] < before.isoformat():
                found[table, own["day"]].append(path)
    return {where: paths for where, paths in found.items() if len(paths) > 1}


def gather(storage: Storage, table: str, paths: Sequence[str], memory: int, alive: Callable[[], object]) -> None:
    """Put the rows of a day's files into the last of them, the latest of each thing, and remove the others.

    It keeps its name, so that what a run adds to the day later counts as before. A reader may find rows twice for a
    moment, and never misses one. Raises LakeError; then every row is where it was.
    """
    schema = TABLES[table]
    staged = f"{layout.STAGING_DIR}/{layout.TABLES_STAGING}/{secrets.token_hex(8)}.parquet"
    rows = (
        f"{views.reading_glob(schema, None)} UNION ALL BY NAME SELECT * FROM read_parquet("
        f"{views.literal([storage.uri(path) for path in paths])}, "
        "hive_partitioning = false, union_by_name = true, filename = true)"
    )
    latest = f"row_number() OVER (PARTITION BY {LATEST[table]} ORDER BY filename DESC) = 1"
    query = f"SELECT {', '.join(schema.names)} FROM ({rows}) QUALIFY {latest} ORDER BY {LATEST[table]}"
    try:
        with (
            working_memory(storage, tempfile.mkdtemp(prefix="kyra-"), memory) as connection,
            connection.sql(query).to_arrow_reader(_ROWS) as reader,
            storage.parquet(staged, schema, **parquet_options(schema)) as file,
        ):
            for batch in reader:
                file.write(pa.Table.from_batches([batch]).cast(schema))
                alive()
    except (duckdb.Error, pa.ArrowException) as error:
        raise LakeError(
            f"Files of {table} cannot be read: {views.first_line(error)}.",
            "They are copies of what the state knows: remove the one that is broken.",
        ) from error
    *others, last = paths
    storage.move(staged, last)
    with ThreadPoolExecutor(MOVES_AT_ONCE) as pool:
        list(pool.map(storage.remove, others))
