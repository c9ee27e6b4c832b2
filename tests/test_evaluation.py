"""The evaluation measures what it says: `make evaluate` and docs/evaluation.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from evaluation import organization
from evaluation.guards import GUARDS, Guard, tried
from evaluation.mutation import TARGET, equivalents, mutants, survey
from evaluation.parts import benign, boogy_parser, invictus, panther, recorded, stratus, verified
from evaluation.road import USER_AGENT, neutral
from tests.corpus import CASES, CORPUS

# ── the benign organization ──


def test_the_same_seed_makes_the_same_organization_and_a_part_is_part_of_the_whole() -> None:
    week = list(organization.records(days=range(7)))
    day = list(organization.records(days=(3,), accounts=("production",)))

    assert week == list(organization.records(days=range(7)))
    assert [one for one in week if one in day] == day
    assert len({one["eventID"] for one in week}) == len(week)
    assert list(organization.records(seed=1, days=(3,))) != list(organization.records(seed=2, days=(3,)))


def test_the_organization_is_calm() -> None:
    assert [what for what, holds in benign(CORPUS, Path()).targets if not holds] == []


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


def test_what_is_recorded_as_verified_is_named_by_the_detections() -> None:
    for id_, by in recorded().items():
        assert {id_} <= set.intersection(*({tag.id for tag in CORPUS.get(one).attack} for one in by)), id_


def test_recorded_attacks_are_caught_as_the_documents_say(shared_data: Path) -> None:
    parts = [stratus(CORPUS, shared_data), invictus(CORPUS, shared_data)]

    assert [what for part in parts for what, holds in part.targets if not holds] == []
    assert verified(parts) == recorded()


def test_labelled_cases_are_answered_as_the_documents_say(shared_data: Path) -> None:
    assert [what for what, holds in panther(CORPUS, shared_data).targets if not holds] == []


def test_records_like_productions_are_quiet(shared_data: Path) -> None:
    assert [what for what, holds in boogy_parser(CORPUS, shared_data).targets if not holds] == []


# ── mutation ──


def test_cases_notice_when_a_detections_meaning_changes() -> None:
    """A few changes of three small detections; `make mutate` makes all of them, of all."""
    done = [
        survey(CORPUS.get(id_), [case for case in CASES if case.detection == id_], sample=5)
        for id_ in ("console_login_without_mfa", "mfa_failures", "policy_grants_admin")
    ]

    assert sum(one.tried for one in done) >= 10
    assert sum(one.killed for one in done) >= TARGET * sum(one.tried for one in done), done


def test_mutants_are_of_every_kind_and_none_is_the_original() -> None:
    kinds = Counter(mutant.kind for mutant in mutants(CORPUS.get("kms_key_destruction")))

    assert kinds.keys() == {"success", "source", "condition", "severity"}
    assert all(mutant.sql != CORPUS.get("mfa_failures").sql for mutant in mutants(CORPUS.get("mfa_failures")))


def test_changes_listed_as_equivalent_are_counted_apart_and_wrong_ones_are_told() -> None:
    cases = [case for case in CASES if case.detection == "console_login_without_mfa"][:1]
    plain = survey(CORPUS.get("console_login_without_mfa"), cases)
    survivor = plain.alive[0]
    killed = next(each.what for each in mutants(CORPUS.get(plain.detection)) if each not in plain.alive)

    listed = {survivor.what: "a reason", killed: "not so", "(1 = 2) → left out": "stale"}
    done = survey(CORPUS.get(plain.detection), cases, equivalent=listed)

    assert done.equivalent == ((survivor, "a reason"),)
    assert (done.killed, done.meant) == (plain.killed, plain.tried - 1)
    assert done.wrong == ("(1 = 2) → left out: is no change of the SQL", f"{killed}: is killed by a case")


def test_the_case_that_killed_a_change_is_only_tried_first() -> None:
    detection = CORPUS.get("console_login_without_mfa")
    cases = [case for case in CASES if case.detection == detection.id]
    plain = survey(detection, cases)
    wrong = dict.fromkeys((each.what for each in mutants(detection)), cases[-1].name)

    for told in (plain.killers, wrong, {"(1 = 2) → left out": "no such case"}):
        again = survey(detection, cases, killers=told)

        assert (again.tried, again.alive, again.killers.keys()) == (plain.tried, plain.alive, plain.killers.keys())


def test_every_change_listed_as_equivalent_is_one() -> None:
    for id_, listed in equivalents().items():
        assert listed.keys() <= {mutant.what for mutant in mutants(CORPUS.get(id_))}, id_
        assert all(listed.values()), id_
