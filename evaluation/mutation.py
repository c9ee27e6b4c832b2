"""`make mutate`: does any case notice when a detection's meaning is changed?

Each detection's SQL is parsed by DuckDB itself, changed in one place, and run over all its cases. A change that makes a
case fail is killed; one that none notices survives, and is printed: it wants a case, or means nothing. Kinds of change:

    success     `success` becomes `NOT success`
    source      a condition on `event_source` is true
    condition   one condition of an AND, an OR or a WHERE is left out
    severity    two neighbouring branches of a CASE change their severities

Events are decoded, written and related once for each case, then every mutant that still lives is run on what the engine
saw. Which case killed a mutant is kept in `.make/`: it comes first the next time, and most mutants run once.
A mutant lives only if it has survived every case.

`evaluation/truths/equivalent.toml` lists the changes that no event can tell from the original, each with its why; they
are counted apart. One that is killed after all, or is no change of the SQL any more, is an error.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import duckdb

from kyra_etl import resources
from kyra_etl.cases import Bench, Case, failures, load_cases
from kyra_etl.detection.rule import Corpus, Detection
from kyra_etl.errors import KyraError
from kyra_etl.lake.engine import problems
from kyra_etl.model import SEVERITIES

Node = dict[str, Any]

TARGET = 0.9
"""The share of all mutants that are to be killed."""

FLOOR = 0.8
"""The share of each detection's mutants."""

EQUIVALENT = Path(__file__).with_name("truths") / "equivalent.toml"

KILLERS = Path(__file__).parents[1] / ".make" / "killers.json"
"""By detection, the case that killed each change last time. Lost or wrong, it costs time and nothing else."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A detection's SQL with one change: its kind, what becomes what (numbered if said twice), the whole statement."""

    kind: str
    what: str
    sql: str


def mutants(detection: Detection) -> list[Mutant]:
    """Every mutant of a detection, in the order of its SQL; those that do not even parse are left out."""
    with duckdb.connect() as connection:
        text = _one(connection, "SELECT json_serialize_sql(?)", detection.sql)
        tree = json.loads(text)
        found: dict[str, Mutant] = {}
        said: Counter[str] = Counter()
        for kind, change in _changes(tree):
            changed = copy.deepcopy(tree)
            before, after = change(changed)
            sql = _one(connection, "SELECT json_deserialize_sql(?::JSON)", json.dumps(changed))
            if sql not in found:
                what = f"{_sql(connection, before)} → {_sql(connection, after) if after else 'left out'}"
                said[what] += 1
                found[sql] = Mutant(kind, what if said[what] == 1 else f"{what} #{said[what]}", sql)
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
    """The severity a result says; DuckDB writes constants as `literal`, earlier versions as `value`."""
    if not isinstance(node, dict) or node.get("class") != "CONSTANT":
        return None
    text = node["literal"].get("text") if "literal" in node else node["value"].get("value")
    return text if text in SEVERITIES else None


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


@cache
def _true() -> Node:
    """1 = 1, which every version of DuckDB writes alike."""
    with duckdb.connect() as connection:
        tree = json.loads(_one(connection, "SELECT json_serialize_sql(?)", "SELECT 1 = 1"))
    truth: Node = tree["statements"][0]["node"]["select_list"][0]
    return truth


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


@dataclass(frozen=True, slots=True)
class Survey:
    """How a detection's cases did: mutants that could run, and those that no case noticed.

    `wrong` says what is not so in the list of equivalent mutants, a line each; `killers` names the case that
    noticed a change.
    """

    detection: str
    cases: int
    tried: int
    alive: tuple[Mutant, ...]
    equivalent: tuple[tuple[Mutant, str], ...] = ()
    wrong: tuple[str, ...] = ()
    killers: Mapping[str, str] = field(default_factory=dict)

    @property
    def meant(self) -> int:
        """Mutants that mean something else than the original."""
        return self.tried - len(self.equivalent)

    @property
    def killed(self) -> int:
        return self.meant - len(self.alive)


def survey(
    detection: Detection,
    cases: Sequence[Case],
    *,
    equivalent: Mapping[str, str] | None = None,
    sample: int | None = None,
    killers: Mapping[str, str] | None = None,
) -> Survey:
    """Run every mutant of a detection, or a sample of so many, on its cases until one of them fails.

    `equivalent` says of changes why they mean nothing, `killers` on which case to try a change before all others.
    """
    alive = mutants(detection)
    listed = dict(equivalent or {})
    wrong = [f"{what}: is no change of the SQL" for what in listed.keys() - {mutant.what for mutant in alive}]
    if sample is not None:
        alive = Random(detection.id).sample(alive, min(sample, len(alive)))
    alive = _able(detection, alive)
    tried, sampled = len(alive), {mutant.what for mutant in alive}
    first, killed = killers or {}, dict[str, str]()
    # What the detection passes over, its mutants pass over too.
    shown = [case for case in cases if detection.concerns({event["eventName"] for event in case.events})]
    with Bench() as bench:
        for case, hinted in [*((case, True) for case in shown), *((case, False) for case in shown)]:
            ready = [mutant for mutant in alive if not hinted or first.get(mutant.what) == case.name]
            if ready:
                verdicts = bench.judge(case, [_changed(detection, mutant) for mutant in ready])
                for mutant, said in zip(ready, verdicts, strict=True):
                    if isinstance(said, KyraError) or any(failures(case.expect, said)):
                        killed[mutant.what] = case.name
                alive = [mutant for mutant in alive if mutant.what not in killed]
    lives = {mutant.what for mutant in alive}
    wrong += [f"{what}: is killed by a case" for what in listed if what in sampled - lives]
    same = tuple((mutant, listed[mutant.what]) for mutant in alive if mutant.what in listed)
    alive = [mutant for mutant in alive if mutant.what not in listed]
    return Survey(detection.id, len(cases), tried, tuple(alive), same, tuple(sorted(wrong)), killed)


def _able(detection: Detection, changed: Sequence[Mutant]) -> list[Mutant]:
    """The mutants that DuckDB can run: whoever cannot is killed by nobody."""

    def fails(some: Sequence[Mutant]) -> bool:
        return bool(problems([_changed(detection, mutant) for mutant in some], resources.views_dir()))

    return [mutant for mutant in changed if not fails([mutant])] if fails(changed) else list(changed)


def _changed(detection: Detection, mutant: Mutant) -> Detection:
    return replace(detection, sql=mutant.sql, sql_line=1)


def equivalents() -> dict[str, dict[str, str]]:
    """The changes that mean nothing, and why, by detection."""
    return tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))


def _survey(id_: str, sample: int | None, killers: Mapping[str, str]) -> Survey:
    """In a process of its own."""
    cases = load_cases([resources.cases_dir()], only=id_)
    detection = Corpus.load([resources.detections_dir()]).get(id_)
    return survey(detection, cases, equivalent=equivalents().get(id_), sample=sample, killers=killers)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutate", description="Change detections, and see who notices.")
    parser.add_argument("ids", nargs="*", metavar="ID", help="Ids of detections; all without.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="Processes; one a core.")
    parser.add_argument("--sample", type=int, metavar="N", help="So many mutants of each detection; all without.")
    said = parser.parse_args()
    known = [detection.id for detection in Corpus.load([resources.detections_dir()]).detections]
    ids = said.ids or known
    killers = json.loads(KILLERS.read_text()) if KILLERS.exists() else {}
    begun, done = perf_counter(), []
    with ProcessPoolExecutor(said.jobs, mp_context=get_context("spawn")) as pool:
        for one in pool.map(_survey, ids, [said.sample] * len(ids), [killers.get(id_, {}) for id_ in ids]):
            done.append(one)
            killers[one.detection] = {**killers.get(one.detection, {}), **one.killers}
            KILLERS.parent.mkdir(exist_ok=True)
            KILLERS.write_text(json.dumps(killers, indent=1))
            print(f"{one.detection}: {_score(one)} by {one.cases} cases", flush=True)
            for mutant in one.alive:
                print(f"  survived    {mutant.kind:9}  {mutant.what}")
            for mutant, why in one.equivalent:
                print(f"  equivalent  {mutant.kind:9}  {mutant.what}\n              {why}")
            for what in one.wrong:
                print(f"  wrong in {EQUIVALENT.name}  {what}")
    wrong = [f"{id_}: is no detection" for id_ in equivalents().keys() - set(known)]
    weak = [one.detection for one in done if one.killed < FLOOR * one.meant]
    total = Survey("all", sum(one.cases for one in done), sum(one.tried for one in done), ())
    total = replace(total, alive=sum((one.alive for one in done), ()), equivalent=sum((o.equivalent for o in done), ()))
    print(f"\n{_score(total)}, in {perf_counter() - begun:.0f} seconds; asked {TARGET:.0%}, and {FLOOR:.0%} of each")
    if weak:
        print(f"below {FLOOR:.0%}: {', '.join(weak)}")
    for what in wrong:
        print(f"wrong in {EQUIVALENT.name}  {what}")
    bad = weak or wrong or any(one.wrong for one in done)
    return 0 if not bad and total.killed >= TARGET * total.meant else 1


def _score(one: Survey) -> str:
    share = one.killed / one.meant if one.meant else 1.0
    apart = f", {len(one.equivalent)} equivalent" if one.equivalent else ""
    return f"{one.killed} of {one.meant} mutants killed ({share:.1%}){apart}"


if __name__ == "__main__":
    sys.exit(main())
