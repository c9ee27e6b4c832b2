from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from kyra_etl.aws import commands, policies
from kyra_etl.errors import UsageError
from kyra_etl.model import Integration
from tests.aws.conftest import BUCKET, CUSTOMER, ROLE
from tests.planted import EXTERNAL_ID

TOPIC = f"arn:aws:sns:eu-west-1:{CUSTOMER}:cloudtrail"
QUEUE = "https://sqs.eu-west-1.amazonaws.com/999988887777/cloudtrail"


KEY = "arn:aws:kms:eu-west-1:111122223333:key/a"


def allowed(document: Any) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


def test_the_permission_policy_is_the_published_one_word_for_word(integration: Integration) -> None:
    assert policies.POLICY_NAME == "KYRAMDRCloudTrailReadOnly"
    assert policies.permission_policy(replace(integration, sns_topic_arn=TOPIC)) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "AllowCloudTrailBucketAccess",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/AWSLogs/*"],
            },
            {
                "Sid": "AllowSNSSubscription",
                "Effect": "Allow",
                "Action": ["sns:Subscribe", "sns:ConfirmSubscription"],
                "Resource": TOPIC,
            },
            {
                "Sid": "AllowCloudTrailDescribe",
                "Effect": "Allow",
                "Action": ["cloudtrail:DescribeTrails", "cloudtrail:GetTrailStatus", "cloudtrail:LookupEvents"],
                "Resource": "*",
            },
        ],
    }


def test_permissions_only_read_and_have_no_wildcard_actions(integration: Integration) -> None:
    theirs = f"https://sqs.eu-west-1.amazonaws.com/{CUSTOMER}/logs"
    everything = replace(integration, sns_topic_arn=TOPIC, queue_url=theirs, additions=policies.CHOSEN)
    actions = allowed(policies.permission_policy(everything, kms_key_arns=[KEY]))
    added = {action for one in policies.ADDITIONS.values() for action in one.actions}
    assert actions == policies.DEFAULT_ACTIONS | added
    assert not any("*" in action for action in actions)
    writes = {action for action in actions if not action.partition(":")[2].startswith(("Get", "List", "Describe"))}
    assert writes == {
        *("cloudtrail:LookupEvents", "kms:Decrypt", "sqs:ReceiveMessage", "sqs:DeleteMessage"),
        *("sns:Subscribe", "sns:ConfirmSubscription"),
    }


def test_a_prefix_narrows_reading(integration: Integration) -> None:
    reading = policies.permission_policy(replace(integration, prefix="org/a*b"))["Statement"][0]
    assert reading["Resource"][1] == f"arn:aws:s3:::{BUCKET}/org/a${{*}}b/AWSLogs/*"


def test_additions_are_asked_for_only_where_they_are_wanted_and_each_has_its_reason(integration: Integration) -> None:
    assert allowed(policies.permission_policy(integration)) <= policies.DEFAULT_ACTIONS
    assert policies.permission_policy(integration, kms_key_arns=[KEY])["Statement"][-1]["Resource"] == [KEY]
    (*_, selectors) = policies.permission_policy(replace(integration, additions=("event-selectors",)))["Statement"]
    assert selectors["Action"] == ["cloudtrail:GetEventSelectors"]
    assert "sqs:ReceiveMessage" not in allowed(policies.permission_policy(replace(integration, queue_url=QUEUE)))
    assert all(one.reason.endswith(".") for one in policies.ADDITIONS.values())


def test_the_key_lets_the_one_role_decrypt(integration: Integration) -> None:
    statement = policies.documents(integration, kms_key_arns=[KEY])["key"]
    assert (statement["Principal"], statement["Action"]) == ({"AWS": ROLE}, ["kms:Decrypt"])


@pytest.mark.parametrize(
    ("trusted", "principal"),
    [
        ("999988887777", "arn:aws:iam::999988887777:role/KYRACloudSensor"),
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
    assert f"arn:{partition}:iam::999988887777:role/KYRACloudSensor" in text
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


# ── IAM's grammar ──

ELEMENTS = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
ARN = r"arn:(aws|aws-us-gov|aws-cn):[a-z0-9-]+:[a-z0-9*-]*:([0-9]{12}|\*)?:.+"


def faults(document: Any) -> list[str]:
    """What IAM would say about a policy: the grammar of its elements, and who may be named how."""
    found = [] if set(document) == {"Version", "Statement"} and document["Version"] == "2012-10-17" else ["policy"]
    sids = [statement["Sid"] for statement in document["Statement"]]
    found += ["Sid"] * (len(set(sids)) != len(sids))
    for statement in document["Statement"]:
        listed = {name: value if isinstance(value, list) else [value] for name, value in statement.items()}
        found += sorted(set(statement) - ELEMENTS)
        found += [sid for sid in listed["Sid"] if not re.fullmatch(r"[A-Za-z0-9]+", sid)]
        found += [effect for effect in listed["Effect"] if effect not in ("Allow", "Deny")]
        found += [action for action in listed["Action"] if not re.fullmatch(r"[a-z0-9-]+:[A-Z][A-Za-z0-9]+", action)]
        found += [one for one in listed.get("Resource", []) if one != "*" and not re.fullmatch(ARN, one)]
        for kind, name in statement.get("Principal", {}).items():
            found += [] if kind == "Service" or re.fullmatch(ARN, name) else [name]
        for operator, keys in statement.get("Condition", {}).items():
            found += [] if operator in ("StringEquals", "StringLike", "ArnLike", "ArnEquals") else [operator]
            found += [key for key in keys if not re.fullmatch(r"[a-z0-9]+:[A-Za-z0-9-]+", key)]
    return found


def everything(integration: Integration) -> Integration:
    return replace(
        integration,
        sns_topic_arn=TOPIC,
        queue_url=f"https://sqs.eu-west-1.amazonaws.com/{CUSTOMER}/logs",
        additions=policies.CHOSEN,
        organization_id="o-a1b2c3d4e5",
    )


def test_every_policy_keeps_to_iam_s_grammar(integration: Integration) -> None:
    there = everything(integration)
    found = policies.documents(there, trusted="999988887777", kms_key_arns=[KEY])
    bucket = policies.bucket_policy(policies.terms(there), commands.trail_arn(there), [CUSTOMER, "o-a1b2c3d4e5"])
    documents = [found["permissions"], found["trust"], found["topic"], found["queue"], policies.policy(found["key"])]
    assert [faults(document) for document in (*documents, bucket)] == [[]] * 6
    assert len(json.dumps(found["permissions"], separators=(",", ":"))) < 6_144, "the size of a managed policy"


def test_aws_itself_takes_the_policy_with_every_addition(customer: Any, integration: Integration) -> None:
    document = policies.permission_policy(everything(integration), kms_key_arns=[KEY])
    customer.client("iam").create_policy(PolicyName=policies.POLICY_NAME, PolicyDocument=json.dumps(document))


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
