"""Whether a statement only reads, judged by DuckDB's own parse tree.

The type of a statement does not tell: DuckDB 2 calls `WITH x AS (COPY … TO 'file') SELECT …` a SELECT, and runs it,
also onto files that the connection was allowed to read; and a table function can execute SQL that comes as a text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import duckdb

_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_FUNCTIONS = {
    "duckdb_columns",
    "duckdb_functions",
    "duckdb_tables",
    "duckdb_types",
    "duckdb_views",
    "generate_series",
    "json_each",
    "json_tree",
    "range",
    "unnest",
}


def complaint(connection: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """Why the text is not one statement that only reads; None when it is. Raises duckdb.Error for bad syntax."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        return f"these are {len(statements)} statements" if statements else "there is no statement"
    try:
        statement = statements[0].type
    except ValueError:  # a kind of statement that DuckDB knows and its Python package does not: UPDATE EXTENSIONS
        return "this is not a query"
    if statement != duckdb.StatementType.SELECT:
        return f"{statement.name} is not a query"
    ((text,),) = connection.execute("SELECT json_serialize_sql($sql)", {"sql": sql}).fetchall()
    tree = json.loads(text)
    if tree.get("error", True):
        return str(tree.get("error_message") or "it cannot be examined")
    for node in _nodes(tree):
        kind = node.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _QUERIES:
            return f"{kind.split('_')[0]} is not a query"
        if kind == "TABLE_FUNCTION":
            name = str(node["function"]["function_name"]).lower()
            if name not in _FUNCTIONS and not _is_macro(connection, name):
                return f"the table function {name} is not allowed"
    return None


def ended(sql: str) -> bool:
    """Whether the text ends in a semicolon that is not part of a text or a comment."""
    tokens = [(start, kind) for start, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment]
    return bool(tokens) and tokens[-1][1] == duckdb.token_type.operator and _at(sql, tokens[-1][0]) == ";"


@lru_cache(1_000)
def alone(sql: str) -> str:
    """A statement without the semicolons that end it, and what comments follow; several statements as they are."""
    tokens = [start for start, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment] if ";" in sql else []
    end = None
    while tokens and _at(sql, tokens[-1]) == ";":
        end = tokens.pop()
    return sql if end is None else sql.encode()[:end].decode()


def _at(sql: str, position: int) -> str:
    """The character at a position that counts bytes of UTF-8."""
    return sql.encode()[position : position + 1].decode("utf-8", "replace")


def _is_macro(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether it is a table macro of our own."""
    query = (
        "SELECT 1 FROM duckdb_functions() WHERE function_type = 'table_macro' AND NOT internal AND function_name = $n"
    )
    return bool(connection.execute(query, {"n": name}).fetchall())


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending += item.values()
        elif isinstance(item, list):
            pending += item
