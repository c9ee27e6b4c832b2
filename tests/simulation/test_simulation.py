"""A slice of `make soak`: some schedules, always the same, and some kills. docs/reliability.md has the full figures."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import kyra_etl.sync
from kyra_etl.lake import Lake
from kyra_etl.lake.dedup import colliding, distinct
from tests.simulation.kills import kill, s3_for_the_lake
from tests.simulation.process import Strike
from tests.simulation.schedule import Case, play
from tests.simulation.soak import PAUSES, cases
from tests.simulation.victim import STEPS

POINTS = Counter(
    {
        (step, place): 0
        for step, places in {
            "list": ("before", "after"),
            "list folders": ("before", "after"),
            "get": ("before", "after"),
            "stage": ("before", "torn", "after"),
            "publish": ("before", "after"),
            "discard": ("before", "torn"),
            "observe": ("before", "inside", "after"),
            "save_listing": ("before", "inside", "after"),
            "plan": ("before", "inside", "after"),
            "take_over": ("inside", "after"),
            "commit": ("before", "inside", "after"),
            "mark_published": ("before", "inside", "after"),
            "record": ("before", "inside", "after"),
            "finish": ("before", "inside", "after"),
            "compact stage": ("before", "torn", "after"),
            "compact commit": ("before", "inside", "after"),
            "compact retire": ("before", "after"),
            "compact publish": ("before", "after"),
        }.items()
        for place in places
    }
)
"""Where a run may die. `make soak` finds the others by itself."""

CASES = list(islice(cases(1, POINTS), 12))
STRIKES = st.builds(Strike, st.sampled_from(sorted(POINTS)), st.integers(1, 9), st.sampled_from((0, *PAUSES)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_lost_and_nothing_doubled(case: Case) -> None:
    outcome = play(case)

    assert outcome.complaints == [], f"replay with: python -m tests.simulation --replay {case}"
    assert (outcome.lost, outcome.doubled) == (0, 0)


@settings(
    max_examples=10, phases=(Phase.explicit, Phase.reuse, Phase.generate), suppress_health_check=list(HealthCheck)
)
@given(st.builds(Case, st.integers(0, 2**32), st.lists(STRIKES, max_size=4).map(tuple)))
def test_whatever_is_struck_nothing_is_lost_and_nothing_doubled(case: Case) -> None:
    outcome = play(case)

    assert outcome.complaints == [], f"replay with: python -m tests.simulation --replay {case}"


def test_a_schedule_is_repeated_by_its_text_to_the_last_step() -> None:
    case = Case(3, (Strike(("commit", "after"), 2), Strike(("get", "before"), 1, 900)))
    again = Case.parse(str(case))

    first, second = play(case), play(again)

    assert again == case
    assert first.coverage == second.coverage
    assert (first.runs, first.events, first.failed) == (second.runs, second.events, second.failed)


@pytest.mark.parametrize(
    ("sabotage", "complaint"), [("publish", "never published"), ("tidy", "staging holds"), ("distinct", "doubled")]
)
def test_the_simulator_would_notice(monkeypatch: pytest.MonkeyPatch, sabotage: str, complaint: str) -> None:
    """A road without one of its parts is found out within a few schedules."""
    if sabotage == "publish":
        monkeypatch.setattr(Lake, "publish", lambda self, files: [])
    elif sabotage == "tidy":
        monkeypatch.setattr(kyra_etl.sync, "tidy", lambda **_: None)
    else:
        monkeypatch.setattr(Lake, "distinct", lambda self, rows, _: distinct(rows.keys(), rows.take, _nothing()))
    strikes = (Strike(("stage", "after"), 1), Strike(("commit", "inside"), 2), Strike(("stage", "after"), 7))

    complaints = (said for seed in range(8) for said in play(Case(seed, strikes)).complaints)

    assert any(complaint in said for said in complaints)


def _nothing() -> pa.Table:
    return colliding([], pafs.LocalFileSystem(), "", pa.array([], pa.string()))


def test_processes_killed_at_every_step_lose_and_double_nothing() -> None:
    killed = kill(rounds=2 * len(STEPS), seed=1)

    assert killed.verdict.complaints == []
    assert killed.killed >= len(STEPS)
    assert killed.verdict.events > 0


def test_processes_killed_on_an_s3_lake_lose_and_double_nothing() -> None:
    with s3_for_the_lake() as endpoint:
        killed = kill(rounds=4, seed=2, s3=endpoint)

    assert killed.verdict.complaints == []
    assert killed.killed >= 2
