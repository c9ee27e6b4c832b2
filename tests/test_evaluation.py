"""The evaluation measures what it says: `make evaluate` and docs/evaluation.md."""

from __future__ import annotations

import pytest

from evaluation import organization
from evaluation.guards import GUARDS, Guard, tried
from evaluation.parts import calm
from evaluation.road import USER_AGENT, neutral, play
from kyra_etl import resources
from kyra_etl.detection.rule import Corpus

CORPUS = Corpus.load([resources.detections_dir()])


# ── the benign organization ──


def test_the_same_seed_makes_the_same_organization_and_a_part_is_part_of_the_whole() -> None:
    week = list(organization.records(days=range(7)))
    day = list(organization.records(days=(3,), accounts=("production",)))

    assert week == list(organization.records(days=range(7)))
    assert [one for one in week if one in day] == day
    assert len({one["eventID"] for one in week}) == len(week)
    assert list(organization.records(seed=1, days=(3,))) != list(organization.records(seed=2, days=(3,)))


def test_a_week_of_the_organizations_busiest_account_is_calm() -> None:
    week = organization.records(days=range(7), accounts=("development",))

    assert [what for what, holds in calm(play(week, CORPUS)) if not holds] == []


def test_every_source_of_noise_has_a_guard() -> None:
    assert {guard.source for guard in GUARDS} == set(organization.SOURCES)


@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_without_its_guard_noise_makes_alerts(guard: Guard) -> None:
    assert tried(guard, CORPUS, guarded=True).at_least("medium") == ()
    assert tried(guard, CORPUS, guarded=False).at_least("medium") != ()


# ── what is measured ──


def test_attack_tools_do_not_name_themselves() -> None:
    assert neutral({"userAgent": "stratus-red-team_1"})["userAgent"] == USER_AGENT
    assert neutral({"eventName": "RotateKey"}) == {"eventName": "RotateKey"}
