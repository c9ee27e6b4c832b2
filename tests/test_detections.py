"""Every case of every detection, through the whole road: JSON → decode → Parquet → DuckDB → findings → alerts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kyra_etl.cases import Bench, Case, Result
from kyra_etl.model import SEVERITIES, Alert
from tests.corpus import CASES, CORPUS

IN_PARTS = [case for case in CASES if 1 < len(case.events) <= 3 and not CORPUS.get(case.detection).baseline]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


class Results(dict[str, Result]):
    """How cases went, by name; each is run when it is first asked for."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._cases = {str(case): case for case in CASES}

    def __missing__(self, name: str) -> Result:
        case = self._cases[name]
        self[name] = self._bench.run(case, CORPUS.get(case.detection))
        return self[name]


@pytest.fixture(scope="module")
def results(bench: Bench) -> Results:
    return Results(bench)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, results: Results) -> None:
    assert results[str(case)].failures == ()


def _essence(alerts: tuple[Alert, ...]) -> list[tuple[object, ...]]:
    return [(a.alert_id, a.severity, a.event_ids, a.first_seen, a.last_seen, a.target, a.summary) for a in alerts]


@pytest.mark.parametrize("case", IN_PARTS, ids=str)
def test_the_order_of_delivery_does_not_matter(case: Case, bench: Bench, results: Results) -> None:
    """One event a batch, last one first: late evidence changes alerts to what they had been at once."""
    late = bench.deliver(case, CORPUS.get(case.detection), [[event] for event in reversed(case.events)])

    assert _essence(late) == _essence(results[str(case)].alerts)


FIRST_SEEN = [
    case for case in CASES if case.fires and 1 < len(case.events) <= 6 and CORPUS.get(case.detection).baseline
]  # fmt: skip


@pytest.mark.parametrize("case", FIRST_SEEN, ids=str)
def test_first_seen_detections_lose_no_alert_to_order(case: Case, bench: Bench, results: Results) -> None:
    late = bench.deliver(case, CORPUS.get(case.detection), [[event] for event in reversed(case.events)])

    at_once = {alert.alert_id: alert.severity for alert in results[str(case)].alerts}
    in_parts = {alert.alert_id: alert.severity for alert in late}
    assert at_once.keys() <= in_parts.keys()
    assert all(SEVERITIES.index(in_parts[id_]) >= SEVERITIES.index(severity) for id_, severity in at_once.items())


def test_what_follows_the_question_of_a_leaked_key_never_lowers_it(bench: Bench, results: Results) -> None:
    """Judged with what is new of it alone, it would: an event is the anchor of one finding only."""
    [case] = [case for case in CASES if case.name == "a silent key asks with a tool"]

    soon = bench.deliver(case, CORPUS.get(case.detection), [[event] for event in case.events])

    assert _essence(soon) == _essence(results[str(case)].alerts)


REFUSABLE = [
    case
    for case in CASES
    if case.fires and len(case.events) == 1 and "errorCode" not in case.events[0]
    and CORPUS.get(case.detection).event_names
]  # fmt: skip
"""Of the calls a detection names, a refused one counts less. (Whatever root tries is told; a tool is a tool.)"""


@pytest.mark.parametrize("case", REFUSABLE, ids=str)
def test_a_refused_call_counts_less(case: Case, bench: Bench, results: Results) -> None:
    refused = replace(case, events=({**case.events[0], "errorCode": "AccessDenied", "errorMessage": "no"},))

    before = results[str(case)].alerts[0].severity
    after = [alert.severity for alert in bench.deliver(refused, CORPUS.get(case.detection), [refused.events])]
    assert after == [] or SEVERITIES.index(after[0]) < SEVERITIES.index(before) or before in ("info", "low")
