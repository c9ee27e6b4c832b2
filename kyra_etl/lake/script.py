"""The script with which any DuckDB opens the lake's views and macros, without our tools: `kyra sql --init`.

Its views find files by name, not by the committed list: they stay right while files come and are compacted, where a
list would name files that are gone. What is not committed lies elsewhere and is never seen; a batch that was committed
a moment ago may be missing for as long. See docs/analysts.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kyra_etl.cloudtrail.schema import ACTIVITY, EVENTS
from kyra_etl.detection.rule import Detection
from kyra_etl.lake import Lake, layout, views
from kyra_etl.lake.tables import LATEST, TABLES
from kyra_etl.lake.views import literal

VIEWS = "-- views"
"""The line behind which nothing is about credentials."""

_HEAD = """\
-- The lake {uri} in any DuckDB: views, macros and params of kyra-etl. Made by `kyra sql --init`.
--   duckdb -init kyra.sql                                       a shell
--   duckdb kyra.duckdb < kyra.sql                               a file that BI tools open
--   duckdb.connect().execute(open("kyra.sql").read())           Python
-- Files are found by name, so it stays right while files come and are compacted.
"""


def script(
    lake: Lake,
    folder: Path,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    trails: Iterable[Mapping[str, Any]] = (),
    accounts: Iterable[Mapping[str, Any]] = (),
    detections: Iterable[Detection] = (),
) -> str:
    """The statements, for the macros in `folder`. No credential stands in them: DuckDB finds the user's own."""
    parts = [_HEAD.format(uri=lake.uri("").rstrip("/"))]
    if lake.uri("").startswith("s3://"):
        parts.append(_secret(lake.uri(""), endpoint_url, region))
    parts += [VIEWS, "SET TimeZone = 'UTC';"]
    for name, schema in ((layout.EVENTS_DIR, EVENTS), (layout.ACTIVITY_DIR, ACTIVITY)):
        glob = _glob(lake, f"{name}/*/*/*.parquet") if lake.storage.folders(name) else None
        parts.append(_view(name, views.reading_glob(schema, glob)))
    for name, schema in TABLES.items():
        parts.append(_view(name, _records(lake, name, views.reading_glob(schema, None))))
    for name, columns, rows in (("trails", views.TRAILS, trails), ("accounts", views.ACCOUNTS, accounts)):
        parts.append(_table(name, columns, rows))
    parts += [path.read_text(encoding="utf-8").rstrip() for path in sorted(folder.glob("macros/*.sql"))]
    parts += views.param_settings(detections)
    return "\n\n".join(parts) + "\n"


def _secret(uri: str, endpoint_url: str | None, region: str | None) -> str:
    """Whoever runs the script is let in by their own environment, profile or role."""
    options = ["TYPE s3", "PROVIDER credential_chain", f"SCOPE {literal(uri.rstrip('/'))}"]
    if region:
        options.append(f"REGION {literal(region)}")
    if endpoint_url:
        url = urlsplit(endpoint_url)
        host = url.netloc.rpartition("@")[2]
        options += [f"ENDPOINT {literal(host)}", "URL_STYLE 'path'", f"USE_SSL {literal(url.scheme == 'https')}"]
    return (
        "-- The credentials are those of your environment; nothing is kept. DuckDB fetches httpfs and aws once.\n"
        f"CREATE OR REPLACE SECRET kyra_lake ({', '.join(options)});"
    )


def _glob(lake: Lake, path: str) -> str:
    """A pattern for the lake's files; what the lake's own path has of a pattern is meant as it is."""
    root = lake.uri("").rstrip("/")
    return re.sub(r"([*?\[])", r"[\1]", root) + f"/{path}"


def _view(name: str, select: str) -> str:
    return f"CREATE OR REPLACE VIEW {name} AS\n{select};"


def _records(lake: Lake, name: str, none: str) -> str:
    """Rows of a table of our own, the latest of each thing."""
    if name == "status":
        path = "status/status.parquet"
        return f"SELECT * FROM read_parquet({literal(_glob(lake, path))})" if lake.storage.exists(path) else none
    if not lake.storage.folders(name):
        return f"-- There are none yet: make this script again when there are.\n{none}"
    rows = f"{none} UNION ALL BY NAME SELECT * FROM read_parquet({literal(_glob(lake, f'{name}/*/*.parquet'))}"
    if name not in LATEST:
        return f"{rows}, hive_partitioning = false, union_by_name = true)"
    latest = f"row_number() OVER (PARTITION BY {LATEST[name]} ORDER BY filename DESC) = 1"
    rows += ", hive_partitioning = false, union_by_name = true, filename = true)"
    return f"SELECT * EXCLUDE (filename) FROM ({rows}) QUALIFY {latest}"


def _table(name: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """What the last check saw, as of now."""
    made = f"CREATE OR REPLACE TABLE {name} ({', '.join(f'{column} {type_}' for column, type_ in columns.items())});"
    values = [", ".join(_value(row.get(column)) for column in columns) for row in rows]
    return "\n".join([made, *(f"INSERT INTO {name} VALUES ({each});" for each in values)])


def _value(value: Any) -> str:
    return "NULL" if value is None else literal(value)
