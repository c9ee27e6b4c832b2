"""What a reviewer says, about a user's detection as about a built-in one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kyra_etl.cli import template
from kyra_etl.detection.frontmatter import Attack, Detection, Param
from kyra_etl.detection.review import lint
from kyra_etl.detection.rule import parse

GOOD = parse(template.detection("good_one", "Good One"), id="good_one", group="own", path="good_one.sql")


def test_what_new_writes_needs_no_word() -> None:
    assert lint(GOOD) == []


def steps(*numbers: int) -> str:
    return "\n".join(f"{number}. SELECT what to do" for number in numbers)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(GOOD, attack=(Attack("T1562.008", "it was"),)), "T1562.008 is revoked"),
        (replace(GOOD, attack=(Attack("T9999", "why not"),)), "T9999 is not in the pinned"),
        (replace(GOOD, attack=()), "attack names no technique"),
        (replace(GOOD, attack_legacy=("T1078.004",)), "T1078.004 in attack_legacy is not a revoked id"),
        (replace(GOOD, benign=()), "benign is empty"),
        (replace(GOOD, references=()), "references is empty"),
        (replace(GOOD, runbook=""), "runbook is empty"),
        (replace(GOOD, runbook=steps(1, 2)), "no 3 to 6 steps"),
        (replace(GOOD, runbook=steps(1, 2, 3, 4, 5, 6, 7)), "no 3 to 6 steps"),
        (replace(GOOD, runbook=steps(1, 3, 2)), "no 3 to 6 steps"),
        (replace(GOOD, runbook="1. Think.\n2. Ask.\n3. Act."), "no query or command to paste"),
        (replace(GOOD, params={"p": Param("p", "int", 1, 1)}), "param p is never read"),
        (
            replace(GOOD, event_names=frozenset({"DeleteFlowLogs", "DeleteVpc"})),
            "DeleteVpc, which the SQL never mentions",
        ),
        (
            replace(GOOD, sql=GOOD.sql.replace("= 'DeleteFlowLogs'", "IN ('DeleteFlowLogs', 'X')")),
            "event_names lacks X",
        ),
        (replace(GOOD, sql=GOOD.sql.replace("= 'DeleteFlowLogs'", "LIKE 'Create%'")), "begins with Create"),
        (
            replace(GOOD, sql=GOOD.sql.replace("event_source = 'ec2.amazonaws.com'", "true")),
            "does not look at event_source",
        ),
        (
            replace(GOOD, sql=GOOD.sql.replace("event_source =", "-- event_source =\n  'ec2.amazonaws.com' =")),
            "event_source",
        ),
        (replace(GOOD, sql=f"{GOOD.sql} AND event_time > now() - INTERVAL 2 HOUR"), "INTERVAL longer than"),
        (replace(GOOD, lookback=timedelta(days=8)), "more than 7 days"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_reviewer_sees(changed: Detection, said: str) -> None:
    assert any(said in line for line in lint(changed)), lint(changed)


def test_names_that_begin_alike_may_stand_for_each_other() -> None:
    sql = GOOD.sql.replace("= 'DeleteFlowLogs'", "LIKE 'DeleteFlow%'")

    assert lint(replace(GOOD, sql=sql)) == []
