"""Read-only, proven: the published policy is enough for everything, and each action in it is needed.

The look-alike enforces IAM on what the role does: exactly the permission policy that `kyra integration policy` prints
is attached, and each action is taken away in turn. What it cannot enforce: the trust policy across accounts, and
statements narrower than "*" for SNS, whose two actions only subscribing needs. That nothing beyond the policy is ever
called holds for every test that uses `s3_server` (tests/conftest.py), this one included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import boto3
import pytest

from kyra_etl.aws.policies import DEFAULT_ACTIONS, permission_policy
from kyra_etl.model import Integration
from tests import lookup
from tests.aws.conftest import BUCKET, ROLE, Customer, Kyra, key_of, utc_now
from tests.planted import EXTERNAL_ID
from tests.test_history import record
from tests.wire import Wire


@pytest.fixture
def enforced(
    customer: Customer, integration: Integration, kyra: Kyra, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Attaches the published policy but one action, and has IAM enforced from then on."""
    monkeypatch.setattr("kyra_etl.aws.history.EVERY", 0.0)
    customer.put(key_of(1, f"{utc_now():%Y/%m/%d}"))
    customer.trail()
    at = utc_now() - timedelta(hours=3)
    lookup.MOTO["eu-west-1"] = [record("eu-west-1", number, at) for number in range(3)]
    kyra(
        *("integration", "add", "production", "--bucket", BUCKET, "--role-arn", ROLE, "--external-id", EXTERNAL_ID),
        *("--region", "eu-west-1"),
    )

    def enforce(without: str = "") -> None:
        customer.let_role(integration, without=without)
        become_a_user_who_may_assume_roles(monkeypatch)
        monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)

    return enforce


def become_a_user_who_may_assume_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    """On our side: nothing but sts:AssumeRole."""
    iam = boto3.client("iam")
    iam.create_user(UserName="runner")
    may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}
    iam.put_user_policy(UserName="runner", PolicyName="assume", PolicyDocument=json.dumps(may))
    key = iam.create_access_key(UserName="runner")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    monkeypatch.delenv("AWS_SESSION_TOKEN")


INITIAL_SYNC = ("backfill", "production", "--from-history", "--days", "1")


def test_check_sync_and_initial_sync_run_with_exactly_the_published_policy(
    enforced: Callable[[str], None], kyra: Kyra, wire: Wire, integration: Integration
) -> None:
    enforced("")
    wire.calls.clear()

    checked = kyra("check", "production")
    synced = kyra("sync", "production")
    initial = kyra(*INITIAL_SYNC)

    assert (checked.code, checked.failed()) == (0, [])
    assert (synced.code, synced.json["loaded"], synced.json["events"]) == (0, 1, 1)
    assert (initial.code, initial.json["events"]) == (0, 3), initial.err
    published = {action for statement in permission_policy(integration)["Statement"] for action in statement["Action"]}
    assert published <= DEFAULT_ACTIONS
    assert wire.by_the_role() == published, "every action is used, and no other"


@pytest.mark.parametrize(
    ("without", "probe"),
    [
        ("s3:ListBucket", "list"),
        ("s3:GetObject", "read"),
        ("cloudtrail:DescribeTrails", "trail"),
        ("cloudtrail:GetTrailStatus", "logging"),
        ("cloudtrail:LookupEvents", "lookup"),
    ],
)
def test_without_one_action_its_own_probe_fails_and_names_it(
    enforced: Callable[[str], None], kyra: Kyra, without: str, probe: str
) -> None:
    enforced(without)
    ran = kyra("check", "production")
    assert (ran.code, ran.failed()) == (1, [probe])
    assert f"llow {without}" in ran.remedy(probe)
    assert next(one["permission"] for one in ran.json["probes"] if one["name"] == probe) == without


def test_a_sync_without_the_right_to_list_fails_and_says_what_to_allow(
    enforced: Callable[[str], None], kyra: Kyra
) -> None:
    enforced("s3:ListBucket")
    ran = kyra("sync", "production")
    assert ran.code == 1
    assert "allow s3:ListBucket on arn:aws:s3:::example-cloudtrail-logs itself" in ran.err


def test_a_sync_without_the_right_to_get_quarantines_and_the_check_says_what_to_allow(
    enforced: Callable[[str], None], kyra: Kyra
) -> None:
    enforced("s3:GetObject")
    ran = kyra("sync", "production")
    assert (ran.code, ran.json["quarantined_by_reason"]) == (3, {"access_denied": 1})
    assert "may not be read" in kyra("quarantine", "list").out
    assert "allow s3:GetObject" in kyra("check", "production").remedy("read")


def test_an_initial_sync_without_the_right_to_look_up_fails_and_says_what_to_allow(
    enforced: Callable[[str], None], kyra: Kyra
) -> None:
    enforced("cloudtrail:LookupEvents")
    ran = kyra(*INITIAL_SYNC)
    assert ran.code == 1
    assert "Allow cloudtrail:LookupEvents in the role's policy" in ran.err


@pytest.mark.parametrize(
    "without", ["cloudtrail:DescribeTrails", "cloudtrail:GetTrailStatus", "cloudtrail:LookupEvents"]
)
def test_log_files_are_collected_without_the_rights_that_only_the_check_needs(
    enforced: Callable[[str], None], kyra: Kyra, without: str
) -> None:
    enforced(without)
    ran = kyra("sync", "production")
    assert (ran.code, ran.json["events"]) == (0, 1)


def test_a_call_beyond_the_policy_would_be_noticed(customer: Customer, integration: Integration, wire: Wire) -> None:
    """The recorder's own test: writing, and reading what is no log, as the role."""
    from kyra_etl.aws.session import Session

    s3 = Session(integration).client("s3", "eu-west-1")
    s3.put_object(Bucket=BUCKET, Key="AWSLogs/x", Body=b"")
    customer.client("s3").put_object(Bucket=BUCKET, Key="secret", Body=b"")
    s3.get_object(Bucket=BUCKET, Key="secret")
    Session(integration).client("cloudtrail", "eu-west-1").list_trails()
    beyond = wire.beyond(DEFAULT_ACTIONS)
    wire.calls.clear()
    assert [one.partition(" http")[0] for one in beyond] == [
        "cloudtrail:ListTrails on *",
        "s3:? PUT",
        f"s3:GetObject on arn:aws:s3:::{BUCKET}/secret",
    ]
