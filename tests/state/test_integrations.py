"""Integrations, and what their last check found."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kyra_etl.errors import UnknownName, UsageError
from kyra_etl.model import LOGS, Folder, Integration, Probe
from kyra_etl.state import State
from tests.state.making import DAY, NOW, file, sync

LATER = NOW + timedelta(minutes=5)
ACME = Integration(
    name="acme",
    bucket="logs",
    account_id="012345678901",
    role_arn="arn:aws:iam::012345678901:role/kyra",
    external_id="a secret",
    region="eu-west-1",
    prefix="audit",
    sns_topic_arn="arn:aws:sns:eu-west-1:012345678901:topic",
    queue_url="https://sqs.eu-west-1.amazonaws.com/012345678901/queue",
)


def test_an_integration_comes_back_as_it_was_added(state: State) -> None:
    state.integrations.add(ACME, NOW)

    assert state.integrations.get("acme") == replace(ACME, created_at=NOW)
    assert "a secret" not in repr(state.integrations.list())


def test_they_are_listed_by_name_paused_ones_too(state: State) -> None:
    for name in ("b", "a", "c"):
        state.integrations.add(Integration(name, "logs"), NOW)
    state.integrations.pause("b", True)

    assert [(i.name, i.paused) for i in state.integrations.list()] == [("a", False), ("b", True), ("c", False)]
    state.integrations.pause("b", False)
    assert not state.integrations.get("b").paused


@pytest.mark.parametrize("name", ["acme", "local"])
def test_a_name_is_given_once_and_local_to_nobody(state: State, name: str) -> None:
    state.integrations.add(ACME, NOW)

    with pytest.raises(UsageError, match=f"name '{name}' is taken"):
        state.integrations.add(replace(ACME, name=name), NOW)


def test_an_unknown_name_is_answered_with_the_nearest(state: State) -> None:
    with pytest.raises(UnknownName, match=r"no integration 'acme'.*none yet: add one"):
        state.integrations.get("acme")
    state.integrations.add(ACME, NOW)
    state.integrations.add(Integration("zeta", "logs"), NOW)

    with pytest.raises(UnknownName, match="Did you mean 'acme'"):
        state.integrations.get("amce")
    for act in (state.integrations.remove, lambda name: state.integrations.pause(name, True)):
        with pytest.raises(UnknownName, match="There are: acme, zeta"):
            act("qqqqqq")


def test_removing_keeps_what_was_loaded_and_forgets_the_rest(state: State) -> None:
    state.integrations.add(ACME, NOW)
    state.integrations.save_check("acme", [Probe("read", True, "fine")], NOW)
    state.integrations.save_trails("acme", [{"name": "main"}], NOW)
    state.ledger.save_listing("acme", [Folder("AWSLogs/1/CloudTrail/r/", "1", "r", LOGS)], requests=1, day=DAY)
    sync(state, [file(1)])

    state.integrations.remove("acme")

    assert state.integrations.list() == state.integrations.trails() == state.ledger.checkpoints("acme") == []
    assert state.ledger.counts("acme")["loaded"] == 1
    state.integrations.add(ACME, LATER)
    assert state.integrations.last_check("acme") is None


def test_the_last_check_is_kept_in_its_order(state: State) -> None:
    state.integrations.add(ACME, NOW)
    assert state.integrations.last_check("acme") is None
    first = [Probe("read", False, "denied", "allow s3:GetObject"), Probe("list", True, "fine"), Probe("kms", None, "?")]
    state.integrations.save_check("acme", first, NOW)
    assert state.integrations.last_check("acme") == (NOW, first)

    state.integrations.save_check("acme", [], LATER)
    assert state.integrations.last_check("acme") == (LATER, [])


def test_the_trails_are_a_snapshot(state: State) -> None:
    for name in ("acme", "other"):
        state.integrations.add(replace(ACME, name=name), NOW)
    full: dict[str, Any] = {
        "name": "main",
        "arn": "arn:aws:cloudtrail:eu-west-1:012345678901:trail/main",
        "bucket": "logs",
        "prefix": "audit",
        "home_region": "eu-west-1",
        "multi_region": True,
        "organization": False,
        "logging": True,
        "latest_delivery_at": NOW,
        "latest_delivery_error": None,
        "kms_key_id": "alias/logs",
    }
    state.integrations.save_trails("acme", [{"name": "gone"}], NOW)
    state.integrations.save_trails("acme", [full | {"unheard_of": 1}, {"name": "second"}], LATER)
    state.integrations.save_trails("other", [{"name": "third", "logging": False}], NOW)

    assert state.integrations.trails("acme") == [
        full | {"integration": "acme", "checked_at": LATER},
        dict.fromkeys(full) | {"name": "second", "integration": "acme", "checked_at": LATER},
    ]
    assert [row["name"] for row in state.integrations.trails()] == ["main", "second", "third"]


def test_a_changed_integration_keeps_its_last_check_and_when_it_was_added(state: State) -> None:
    state.integrations.add(ACME, NOW)
    probe = Probe("list", False, "Denied.", "Allow s3:ListBucket.", "s3:ListBucket")
    state.integrations.save_check("acme", [probe], LATER)
    changed = replace(ACME, region="us-east-1", organization_id="o-abcdefghij", additions=("event-selectors",))

    state.integrations.change(changed)

    assert state.integrations.get("acme") == replace(changed, created_at=NOW)
    assert state.integrations.last_check("acme") == (LATER, [probe])
    with pytest.raises(UnknownName):
        state.integrations.change(replace(ACME, name="nobody"))


@pytest.mark.parametrize(
    ("change", "kept"), [({"region": "us-east-1"}, 1), ({"prefix": "other"}, 0), ({"bucket": "other-logs"}, 0)]
)
def test_another_place_is_listed_from_its_beginning(state: State, change: dict[str, Any], kept: int) -> None:
    state.integrations.add(ACME, NOW)
    state.ledger.save_listing("acme", [Folder("AWSLogs/1/CloudTrail/r/", "1", "r", LOGS)], requests=1, day=DAY)

    state.integrations.change(replace(ACME, **change))

    assert len(state.ledger.folders("acme")) == kept
