from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kyra_etl.aws import policies
from kyra_etl.errors import UsageError
from kyra_etl.model import Integration
from tests.aws.conftest import BUCKET, CUSTOMER, EXTERNAL_ID, ROLE

TOPIC = f"arn:aws:sns:eu-west-1:{CUSTOMER}:cloudtrail"
QUEUE = "https://sqs.eu-west-1.amazonaws.com/999988887777/cloudtrail"


def allowed(document: Any) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


def test_permissions_name_each_action_and_the_one_bucket(integration: Integration) -> None:
    document = policies.permission_policy(integration)
    listing, reading, trails = document["Statement"]
    assert listing["Resource"] == f"arn:aws:s3:::{BUCKET}"
    assert listing["Condition"] == {"StringLike": {"s3:prefix": "AWSLogs/*"}}
    assert reading["Resource"] == f"arn:aws:s3:::{BUCKET}/AWSLogs/*"
    assert trails["Resource"] == "*"
    assert allowed(document) <= policies.ACTIONS


def test_permissions_only_read_and_have_no_wildcard_actions(integration: Integration) -> None:
    everything = replace(integration, sns_topic_arn=TOPIC, queue_url=QUEUE)
    actions = allowed(policies.permission_policy(everything, kms_key_arns=["arn:aws:kms:eu-west-1:1:key/a"]))
    assert actions == policies.ACTIONS
    assert not any("*" in action for action in actions)
    writes = {action for action in actions if not action.partition(":")[2].startswith(("Get", "List", "Describe"))}
    assert writes == {"cloudtrail:LookupEvents", "kms:Decrypt", "sqs:ReceiveMessage", "sqs:DeleteMessage"}


def test_a_prefix_narrows_both_listing_and_reading(integration: Integration) -> None:
    listing, reading, _ = policies.permission_policy(replace(integration, prefix="org/a*b"))["Statement"]
    assert listing["Condition"]["StringLike"]["s3:prefix"] == "org/a${*}b/AWSLogs/*"
    assert reading["Resource"] == f"arn:aws:s3:::{BUCKET}/org/a${{*}}b/AWSLogs/*"


def test_keys_and_queues_are_asked_for_only_where_there_are_any(integration: Integration) -> None:
    assert "kms:Decrypt" not in allowed(policies.permission_policy(integration))
    key = "arn:aws:kms:eu-west-1:111122223333:key/a"
    assert policies.permission_policy(integration, kms_key_arns=[key])["Statement"][-1]["Resource"] == [key]


@pytest.mark.parametrize(
    ("trusted", "principal"),
    [
        ("999988887777", "arn:aws:iam::999988887777:root"),
        ("arn:aws:iam::999988887777:role/runner", "arn:aws:iam::999988887777:role/runner"),
    ],
)
def test_the_role_trusts_one_principal_with_the_external_id(
    integration: Integration, trusted: str, principal: str
) -> None:
    (statement,) = policies.trust_policy(integration, trusted)["Statement"]
    assert statement["Principal"] == {"AWS": principal}
    assert statement["Condition"] == {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}


def test_there_is_no_trust_without_an_external_id(integration: Integration) -> None:
    with pytest.raises(UsageError, match="no external id"):
        policies.trust_policy(replace(integration, external_id=None), "999988887777")


@pytest.mark.parametrize(
    ("role_arn", "region", "partition"),
    [
        ("arn:aws-us-gov:iam::111122223333:role/kyra", None, "aws-us-gov"),
        ("arn:aws-cn:iam::111122223333:role/kyra", None, "aws-cn"),
        (None, "cn-northwest-1", "aws-cn"),
        (None, "us-gov-east-1", "aws-us-gov"),
        (None, None, "aws"),
    ],
)
def test_every_arn_is_of_the_integration_s_partition(role_arn: str | None, region: str | None, partition: str) -> None:
    there = Integration("x", "logs", role_arn=role_arn, region=region, external_id="kyra-x")
    text = json.dumps(policies.documents(there, trusted="999988887777"))
    assert f"arn:{partition}:s3:::logs" in text
    assert f"arn:{partition}:iam::999988887777:root" in text
    assert text.count("arn:") == text.count(f"arn:{partition}:")


def test_topic_and_queue_let_in_cloudtrail_the_subscriber_and_the_topic_only(integration: Integration) -> None:
    found = policies.documents(replace(integration, sns_topic_arn=TOPIC, queue_url=QUEUE), trusted="999988887777")
    assert list(found) == ["permissions", "trust", "topic", "queue", "queue-attributes"]
    publish, subscribe = found["topic"]["Statement"]
    assert publish["Condition"] == {"ArnLike": {"aws:SourceArn": f"arn:aws:cloudtrail:*:{CUSTOMER}:trail/*"}}
    assert subscribe["Principal"] == {"AWS": "arn:aws:iam::999988887777:root"}
    (send,) = found["queue"]["Statement"]
    assert send["Resource"] == "arn:aws:sqs:eu-west-1:999988887777:cloudtrail"
    assert send["Condition"] == {"ArnEquals": {"aws:SourceArn": TOPIC}}
    assert json.loads(found["queue-attributes"]["Policy"]) == found["queue"]


@pytest.mark.parametrize(
    ("url", "arn"),
    [
        (QUEUE, "arn:aws:sqs:eu-west-1:999988887777:cloudtrail"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/999988887777/a", "arn:aws-cn:sqs:cn-north-1:999988887777:a"),
        (
            "https://sqs-fips.us-gov-west-1.amazonaws.com/999988887777/a",
            "arn:aws-us-gov:sqs:us-gov-west-1:999988887777:a",
        ),
        ("https://eu-west-1.queue.amazonaws.com/999988887777/a/", "arn:aws:sqs:eu-west-1:999988887777:a"),
        ("https://queue.amazonaws.com/999988887777/a", "arn:aws:sqs:us-east-1:999988887777:a"),
    ],
)
def test_a_queue_s_url_tells_its_arn(url: str, arn: str) -> None:
    assert policies.queue_arn(url) == arn


def test_commands_can_be_pasted_into_a_shell(integration: Integration, tmp_path: Path) -> None:
    there = replace(
        integration,
        role_arn=f"arn:aws:iam::{CUSTOMER}:role/security/tools/kyra",
        sns_topic_arn=TOPIC,
        queue_url=QUEUE,
        external_id="it's-$HOME",
    )
    wanted = policies.documents(there, trusted="999988887777")
    commands = policies.commands(there, wanted)
    fake = tmp_path / "bin" / "aws"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@" >> calls\n')
    fake.chmod(0o755)
    script = f"PATH={shlex.quote(str(fake.parent))}:$PATH\n" + "\n".join(commands)
    subprocess.run(["sh", "-eu", "-c", script], cwd=tmp_path, check=True, timeout=60)
    for name in ("permissions", "trust", "topic", "queue-attributes"):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == wanted[name]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [" ".join(call.split()[:2]) for call in calls] == [
        "iam create-role",
        "iam put-role-policy",
        "sns set-topic-attributes",
        "sqs set-queue-attributes",
        "sns subscribe",
    ]
    assert "--role-name kyra --path /security/tools/" in calls[0]


def test_without_a_role_yet_the_commands_make_one(integration: Integration) -> None:
    fresh = replace(integration, role_arn=None)
    commands = policies.commands(fresh, policies.documents(fresh, trusted="999988887777"))
    assert any(command.startswith("aws iam create-role --role-name kyra-etl --assume") for command in commands)


def test_aws_itself_takes_the_role(customer: Any, integration: Integration) -> None:
    found = policies.documents(integration, trusted="999988887777", kms_key_arns=["arn:aws:kms:eu-west-1:1:key/a"])
    iam = customer.client("iam")
    made = iam.create_role(
        RoleName="kyra-etl", AssumeRolePolicyDocument=json.dumps(found["trust"]), MaxSessionDuration=3600
    )
    assert made["Role"]["Arn"] == ROLE
    iam.put_role_policy(
        RoleName="kyra-etl", PolicyName=policies.POLICY_NAME, PolicyDocument=json.dumps(found["permissions"])
    )
