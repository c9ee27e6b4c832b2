"""`make mutate`: does any case notice when a detection's meaning is changed?

Each detection's SQL is parsed by DuckDB itself, changed in one place, and run over all its cases. A change that makes a
case fail is killed; one that none notices survives, and is printed: it wants a case, or means nothing. Kinds of change:

    success     `success` becomes `NOT success`
    source      a condition on `event_source` is true
    condition   one condition of an AND, an OR or a WHERE is left out
    severity    two neighbouring branches of a CASE change their severities

Events are decoded, written and related once for each case, then every mutant is run on what the engine saw.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import Any

import duckdb

from kyra_etl import resources
from kyra_etl.cases import Bench, Case, failures, load_cases
from kyra_etl.detection.rule import Corpus, Detection
from kyra_etl.errors import KyraError
from kyra_etl.model import SEVERITIES

Node = dict[str, Any]

TARGET = 0.9


@dataclass(frozen=True, slots=True)
class Mutant:
    """A detection's SQL with one change: its kind, where it is, and the whole statement."""

    kind: str
    what: str
    sql: str


def mutants(detection: Detection) -> list[Mutant]:
    """Every mutant of a detection, in the order of its SQL; those that do not even parse are left out."""
    with duckdb.connect() as connection:
        text = _one(connection, "SELECT json_serialize_sql(?)", detection.sql)
        tree = json.loads(text)
        found: dict[str, Mutant] = {}
        for kind, change in _changes(tree):
            changed = copy.deepcopy(tree)
            before, after = change(changed)
            what = f"{_sql(connection, before)} → {_sql(connection, after) if after else 'left out'}"
            sql = _one(connection, "SELECT json_deserialize_sql(?::JSON)", json.dumps(changed))
            found.setdefault(sql, Mutant(kind, what, sql))
    return list(found.values())


def _changes(tree: Node) -> Iterator[tuple[str, Any]]:
    """(kind, change): a change alters a copy of the tree and returns the expression before and after it."""
    for path, node in _walk(tree):
        place = path
        if _is_column(node, "success"):
            yield "success", lambda copied, at=place: _replace(copied, at, _negated)
        elif _tests_column(node, "event_source"):
            yield "source", lambda copied, at=place: _replace(copied, at, lambda _: _true())
        if node.get("class") == "CONJUNCTION":
            for number, child in enumerate(node["children"]):
                if not _tests_column(child, "event_source") or node["type"] != "CONJUNCTION_AND":
                    yield "condition", lambda copied, at=place, n=number: _without(copied, at, n)
        clause = node.get("where_clause")
        if clause and clause.get("class") != "CONJUNCTION":
            yield "condition", lambda copied, at=place: _drop(copied, at, "where_clause")
        if node.get("class") == "CASE":
            for one, other in _neighbours(node):
                yield "severity", lambda copied, at=place, a=one, b=other: _swap(copied, at, a, b)


def _walk(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Node]]:
    if isinstance(node, dict):
        yield path, node
        for key, child in node.items():
            yield from _walk(child, (*path, key))
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _walk(child, (*path, number))


def _at(tree: Any, path: Sequence[Any]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _is_column(node: Node, name: str) -> bool:
    return node.get("class") == "COLUMN_REF" and node["column_names"][-1] == name


def _tests_column(node: Node, name: str) -> bool:
    tested = node.get("left") if node.get("class") == "COMPARISON" else None
    if node.get("type") in ("COMPARE_IN", "COMPARE_NOT_IN"):
        tested = node["children"][0]
    return isinstance(tested, dict) and _is_column(tested, name)


def _severity(node: Any) -> str | None:
    value = node.get("value", {}).get("value") if isinstance(node, dict) and node.get("class") == "CONSTANT" else None
    return value if value in SEVERITIES else None


def _neighbours(case: Node) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Paths, within a CASE, of neighbouring results that are different severities."""
    results = [("case_checks", number, "then_expr") for number in range(len(case["case_checks"]))]
    places: list[tuple[Any, ...]] = [*results, ("else_expr",)]
    for one, other in pairwise(places):
        levels = _severity(_at(case, one)), _severity(_at(case, other))
        if None not in levels and levels[0] != levels[1]:
            yield one, other


def _replace(tree: Node, path: tuple[Any, ...], make: Any) -> tuple[Node, Node]:
    parent, before = _at(tree, path[:-1]), _at(tree, path)
    parent[path[-1]] = {**make(before), "alias": before.get("alias") or _own_name(before)}
    return before, parent[path[-1]]


def _own_name(node: Node) -> str:
    """A column keeps its name when an expression takes its place."""
    return str(node["column_names"][-1]) if node.get("class") == "COLUMN_REF" else ""


def _without(tree: Node, path: tuple[Any, ...], number: int) -> tuple[Node, None]:
    node = _at(tree, path)
    gone = node["children"].pop(number)
    if len(node["children"]) == 1:
        _at(tree, path[:-1])[path[-1]] = {**node["children"][0], "alias": node.get("alias", "")}
    return gone, None


def _drop(tree: Node, path: tuple[Any, ...], key: str) -> tuple[Node, None]:
    node = _at(tree, path)
    gone, node[key] = node[key], None
    return gone, None


def _swap(tree: Node, path: tuple[Any, ...], one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Node, Node]:
    case = _at(tree, path)
    before = copy.deepcopy(case)
    first, second = _at(case, one), _at(case, other)
    _at(case, one[:-1])[one[-1]], _at(case, other[:-1])[other[-1]] = second, first
    return before, case


def _negated(node: Node) -> Node:
    return {"class": "OPERATOR", "type": "OPERATOR_NOT", "alias": "", "query_location": 0, "children": [node]}


def _true() -> Node:
    value = {"type": {"id": "BOOLEAN", "type_info": None}, "is_null": False, "value": True}
    return {"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": 0, "value": value}


def _one(connection: duckdb.DuckDBPyConnection, sql: str, value: str) -> str:
    row = connection.execute(sql, [value]).fetchone()
    assert row is not None
    return str(row[0])


def _sql(connection: duckdb.DuckDBPyConnection, expression: Node) -> str:
    """An expression as SQL, shortened."""
    tree = json.loads(_one(connection, "SELECT json_serialize_sql(?)", "SELECT 1"))
    tree["statements"][0]["node"]["select_list"] = [expression]
    text = _one(connection, "SELECT json_deserialize_sql(?::JSON)", json.dumps(tree)).removeprefix("SELECT ")
    return text if len(text) <= 110 else f"{text[:107]}…"


def survey(detection: Detection, cases: Sequence[Case], bench: Bench) -> tuple[int, list[Mutant]]:
    """How many mutants of a detection could run, and those that survived its cases."""
    alive, tried = mutants(detection), 0
    for case in cases:
        if not alive:
            break
        # What the detection passes over, its mutants pass over too.
        if detection.concerns({event["eventName"] for event in case.events}):
            changed = [replace(detection, sql=mutant.sql, sql_line=1) for mutant in alive]
            verdicts = list(zip(alive, bench.judge(case, changed), strict=True))
            if not tried:
                verdicts = [(mutant, said) for mutant, said in verdicts if not isinstance(said, KyraError)]
                tried = len(verdicts)
            alive = [
                mutant
                for mutant, said in verdicts
                if not isinstance(said, KyraError) and not any(failures(case.expect, said))
            ]
    return tried, alive


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutate", description="Mutate detections, and see whether cases notice.")
    parser.add_argument("ids", nargs="*", metavar="ID", help="Ids of detections; all without.")
    said = parser.parse_args()
    corpus, cases = Corpus.load([resources.detections_dir()]), load_cases([resources.cases_dir()])
    begun, total, survived = perf_counter(), 0, 0
    for detection in [corpus.get(id_) for id_ in said.ids] or corpus.detections:
        with Bench() as bench:
            own = [case for case in cases if case.detection == detection.id]
            tried, alive = survey(detection, own, bench)
        total, survived = total + tried, survived + len(alive)
        print(f"{detection.id}: {tried - len(alive)} of {tried} killed by {len(own)} cases", flush=True)
        for mutant in alive:
            print(f"  survived  {mutant.kind:9}  {mutant.what}")
    score = 1 - survived / total
    print(f"\n{total - survived} of {total} mutants killed, {score:.1%}, in {perf_counter() - begun:.0f} seconds")
    return 0 if score >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
