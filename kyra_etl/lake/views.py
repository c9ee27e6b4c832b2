"""Relations and macros on a DuckDB connection: `events`, `activity`, `trails`, `accounts`; typed, even when empty.

Files come as explicit lists from the ledger, never as globs, so that a query sees what was committed and nothing else.
The macros are plain SQL under `sql/views/`: `.read` loads them into any DuckDB shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from kyra_etl.cloudtrail.schema import ACTIVITY, EVENTS
from kyra_etl.detection.rule import Detection
from kyra_etl.errors import KyraError, LakeError
from kyra_etl.lake.layout import HIVE_TYPES

Rows = Iterable[Mapping[str, Any]]

TRAILS: Mapping[str, str] = {
    "integration": "VARCHAR",
    "name": "VARCHAR",
    "arn": "VARCHAR",
    "bucket": "VARCHAR",
    "prefix": "VARCHAR",
    "home_region": "VARCHAR",
    "multi_region": "BOOLEAN",
    "organization": "BOOLEAN",
    "logging": "BOOLEAN",
    "latest_delivery_at": "TIMESTAMP",
    "latest_delivery_error": "VARCHAR",
    "kms_key_id": "VARCHAR",
    "checked_at": "TIMESTAMP",
}
"""Columns of `trails`, the trails that the last check of each integration saw."""

ACCOUNTS: Mapping[str, str] = {"account": "VARCHAR", "integration": "VARCHAR"}
"""Columns of `accounts`, the accounts that integrations are configured for."""

ALERTS: Mapping[str, str] = {
    **dict.fromkeys(("alert_id", "detection", "title", "severity", "status", "account", "region", "actor"), "VARCHAR"),
    **dict.fromkeys(("source_ip", "target", "summary"), "VARCHAR"),
    **dict.fromkeys(("first_seen", "last_seen"), "TIMESTAMP"),
    "event_count": "BIGINT",
    "historical": "BOOLEAN",
    **dict.fromkeys(("attack", "event_ids"), "VARCHAR[]"),
}
"""Columns of `alerts` that a detection may read: the alerts around the new events, as they are now."""

ALERT_EVENTS: Mapping[str, str] = {
    "alert_id": "VARCHAR",
    "event_id": "VARCHAR",
    "event_time": "TIMESTAMP",
    "historical": "BOOLEAN",
}
"""Columns of `alert_events`, the events these alerts rest on."""

_TYPES = {pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.timestamp("us"): "TIMESTAMP", pa.int64(): "BIGINT"}
_TYPES |= {pa.date32(): "DATE", pa.float64(): "DOUBLE", pa.list_(pa.string()): "VARCHAR[]"}

_CHUNK = 10_000
_VARIABLE = re.compile(r"getvariable\('(\w+)'\)")


def columns_of(schema: pa.Schema) -> dict[str, str]:
    """Column → DuckDB type of a lake schema."""
    return {field.name: _TYPES[field.type] for field in schema}


def reading(schema: pa.Schema, uris: Sequence[str], more: str = "") -> str:
    """SQL that selects the rows of these data files; no files give no rows, older files NULL for newer columns.

    `more` are further arguments of read_parquet.
    """
    none = _none(columns_of(schema))
    if not uris:
        return none
    files = ", ".join(map(literal, uris))
    return (
        f"{none} UNION ALL BY NAME SELECT * FROM read_parquet([{files}], "
        f"hive_partitioning = true, hive_types = {HIVE_TYPES}, union_by_name = true{more})"
    )


def reading_alike(schema: pa.Schema, uris: Sequence[str]) -> str:
    """As `reading`, for files that all have the columns of the schema: no file is opened but those a query needs.

    DuckDB refuses it with a BinderException, or later with "schema mismatch", when one has not.
    """
    if not uris:
        return reading(schema, ())
    files = ", ".join(map(literal, uris))
    columns = ", ".join(schema.names)
    return f"SELECT {columns} FROM read_parquet([{files}], hive_partitioning = true, hive_types = {HIVE_TYPES})"


def reading_glob(schema: pa.Schema, glob: str | None) -> str:
    """As `reading`, of all files of a name; None is none."""
    none = _none(columns_of(schema))
    if glob is None:
        return none
    return (
        f"{none} UNION ALL BY NAME SELECT * FROM read_parquet({literal(glob)}, "
        f"hive_partitioning = true, hive_types = {HIVE_TYPES}, union_by_name = true)"
    )


def register(
    connection: duckdb.DuckDBPyConnection,
    *,
    events: Sequence[str] = (),
    activity: Sequence[str] = (),
    trails: Rows = (),
    accounts: Rows = (),
    alerts: Rows = (),
    alert_events: Rows = (),
) -> None:
    """Make the relations detections and analysts read, over the URIs of data files and rows of the state."""
    connection.execute(f"CREATE OR REPLACE TEMP VIEW events AS {reading(EVENTS, events)}")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW activity AS {reading(ACTIVITY, activity)}")
    register_known(connection, trails, accounts, alerts, alert_events)


def register_known(
    connection: duckdb.DuckDBPyConnection,
    trails: Rows = (),
    accounts: Rows = (),
    alerts: Rows = (),
    alert_events: Rows = (),
) -> None:
    """Make the relations of rows of the state alone."""
    register_rows(connection, "trails", TRAILS, trails)
    register_rows(connection, "accounts", ACCOUNTS, accounts)
    register_rows(connection, "alerts", ALERTS, alerts)
    register_rows(connection, "alert_events", ALERT_EVENTS, alert_events)


def register_rows(connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str], rows: Rows) -> None:
    """Make a small table of rows, for all connections to the database; keys that are no columns are left out."""
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS {_none(columns)}")
    values = [{column: row.get(column) for column in columns} for row in rows]
    if values:  # through Arrow: as statements, a hundred alerts cost as much as a detection
        kinds = {text: kind for kind, text in _TYPES.items()}
        table = pa.Table.from_pylist(values, pa.schema([(column, kinds[kind]) for column, kind in columns.items()]))
        connection.register(f"_{name}_rows", table)
        connection.execute(f"INSERT INTO {name} SELECT * FROM _{name}_rows")
        connection.unregister(f"_{name}_rows")


def fill(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, rows: Rows) -> None:
    """Take rows into a table as they come, however many: DuckDB keeps them, and hears an interruption meanwhile."""
    waiting, problems = iter(rows), list[KyraError]()

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            while some := list(islice(waiting, _CHUNK)):
                yield pa.RecordBatch.from_pylist(some, schema)
        except KyraError as error:  # of the state: DuckDB would tell it in words of its own
            problems.append(error)
            raise

    connection.register(f"_{name}_rows", pa.RecordBatchReader.from_batches(schema, batches()))
    try:
        connection.execute(f"INSERT INTO {name} FROM _{name}_rows")
    except duckdb.Error:
        if problems:
            raise problems[0] from None
        raise
    finally:
        connection.unregister(f"_{name}_rows")


def load_macros(connection: duckdb.DuckDBPyConnection, folder: Path, *, questions: bool = True) -> None:
    """Load every macro of `sql/views/macros/`; raises LakeError naming the file that is broken.

    Table macros are bound as they are made: the relations they name are made, empty. They answer analysts' questions,
    and are left out unless `questions`.
    """
    for name, schema in (("events", EVENTS), ("activity", ACTIVITY)) if questions else ():
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {reading(schema, ())}")
    for path in sorted(folder.glob("macros/*.sql")):
        if path.stem == "questions" and not questions:
            continue
        try:
            connection.execute(path.read_text(encoding="utf-8"))
        except (duckdb.Error, OSError) as error:
            raise LakeError(f"{path} does not load: {first_line(error)}.", "Install kyra-etl again.") from error


@cache
def macro_names(folder: Path) -> frozenset[str]:
    """Names of the macros that `load_macros` loads, in small letters."""
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("macros/*.sql")]
    return frozenset(
        name.lower() for text in texts for name in re.findall(r"^CREATE OR REPLACE MACRO (\w+)", text, re.M)
    )


def set_params(connection: duckdb.DuckDBPyConnection, detections: Iterable[Detection]) -> None:
    """Give detections' SQL its tunables: `getvariable('<id>_<param>')`."""
    settings = param_settings(detections)
    if settings:
        connection.execute("\n".join(settings))


def set_unplaced_params(connection: duckdb.DuckDBPyConnection, detection: Detection) -> None:
    """Give a detection those of its tunables that it reads in a way that `with_params` does not recognize."""
    if "getvariable" in with_params(detection, detection.sql).lower():
        set_params(connection, [detection])


def param_settings(detections: Iterable[Detection]) -> list[str]:
    """The statements that set every param of these detections to the value in force."""
    return [
        f'SET VARIABLE "{detection.variable(param.name)}" = CAST({literal(param.value)} AS {param.sql_type});'
        for detection in detections
        for param in detection.params.values()
    ]


def with_params(detection: Detection, sql: str) -> str:
    """SQL of a detection with its tunables in place: text costs less to bind than variables do, and folds."""

    def value(match: re.Match[str]) -> str:
        param = own.get(match[1])
        return f"CAST({literal(param.value)} AS {param.sql_type})" if param else match[0]

    own = {detection.variable(param.name): param for param in detection.params.values()}
    return _VARIABLE.sub(value, sql)


def literal(value: Any) -> str:
    """A SQL literal of a text, number, flag or list of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    text = str(value).replace("'", "''")
    return f"'{text}'"


def listed(values: Iterable[str]) -> str:
    """SQL literals of texts, as IN takes them."""
    return ", ".join(map(literal, sorted(values)))


def moment(at: datetime) -> str:
    """A TIMESTAMP literal."""
    return f"TIMESTAMP '{at.isoformat(sep=' ')}'"


def between(first: datetime, last: datetime) -> str:
    """The condition that an event happened then, both ends included."""
    return f"event_time BETWEEN {moment(first)} AND {moment(last)}"


def of_batches(batch_ids: Iterable[str]) -> str:
    """The condition that an event came in one of these batches."""
    return f"batch_id IN ({listed(batch_ids)})"


def first_line(error: BaseException) -> str:
    """The first line of DuckDB's message, without its full stop; of a traceback the last, which says what happened."""
    lines = str(error).strip().split("\n\n")[0].splitlines() or [""]
    return lines[-1 if is_of_python(error) else 0].strip()[:300].rstrip(".!")


def is_of_python(error: BaseException) -> bool:
    """Whether a file on S3 could not be read: Python reads those for DuckDB, and its errors come with a traceback."""
    return str(error).startswith("Traceback") or "\nTraceback (most recent call last)" in str(error)


def _none(columns: Mapping[str, str]) -> str:
    cells = ", ".join(f"CAST(NULL AS {type_}) AS {name}" for name, type_ in columns.items())
    return f"SELECT {cells} WHERE false"
