"""What a customer does to connect an organization, by the command line and over HTTP.

Two parties: we run kyra, the customer owns the bucket, the trail, the topic, the key and the role, and does what
`kyra integration policy` prints. What the look-alike cannot do is done for it: the role's trust policy is enforced by
the fixture `trusting`, KMS denies as long as the role's policy lacks kms:Decrypt, and what the topic sends is put into
the queue of our account by hand, as it carries messages within one account only.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import boto3
import pytest

from kyra_etl.aws.policies import POLICY_NAME
from tests.aws.conftest import BUCKET, CUSTOMER, ROLE, Customer, Kyra, log_file, utc_now
from tests.planted import EXTERNAL_ID, QUEUE_NAME, leaks
from tests.wire import Call, Wire, refuse

ORGANIZATION, MEMBER = "o-a1b2c3d4e5", "444455556666"
TOPIC = f"arn:aws:sns:eu-west-1:{CUSTOMER}:cloudtrail"


def key_of(account: str, number: int) -> str:
    now = utc_now()
    name = f"{account}_CloudTrail_eu-west-1_{now:%Y%m%d}T{number:04d}Z_{number:016d}.json.gz"
    return f"AWSLogs/{ORGANIZATION}/{account}/CloudTrail/eu-west-1/{now:%Y/%m/%d}/{name}"


@pytest.fixture
def kms_key(customer: Customer) -> str:
    return str(customer.client("kms", "eu-west-1").create_key()["KeyMetadata"]["Arn"])


@pytest.fixture
def organization(trusting: None, customer: Customer, kms_key: str, wire: Wire) -> Customer:
    """The customer before we are told: an organization's trail with a key and a topic, and two accounts' log files."""
    customer.client("sns", "eu-west-1").create_topic(Name="cloudtrail")
    trails = customer.client("cloudtrail", "eu-west-1")
    arn = trails.create_trail(
        Name="organization",
        S3BucketName=BUCKET,
        IsMultiRegionTrail=True,
        IsOrganizationTrail=True,
        EnableLogFileValidation=True,
        KmsKeyId=kms_key,
        SnsTopicName="cloudtrail",
    )["TrailARN"]
    trails.start_logging(Name=arn)
    for account in (CUSTOMER, MEMBER):
        deliver(customer, kms_key, account, 5)
    refusal = refuse("s3:GetObject", "AccessDenied", f"… is not authorized to perform: kms:Decrypt on {kms_key}")
    wire.rules.append(lambda call: refusal(call) if is_denied(customer, call) else None)
    return customer


def deliver(customer: Customer, kms_key: str, account: str, number: int) -> str:
    """Two events of a few minutes ago; the key."""
    at = f"{utc_now() - timedelta(minutes=6):%Y-%m-%dT%H:%M:%SZ}"
    key = key_of(account, number)
    customer.client("s3").put_object(
        Bucket=BUCKET,
        Key=key,
        Body=log_file(2, account=account, number=number, at=at),
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=kms_key,
    )
    return key


def is_denied(customer: Customer, call: Call) -> bool:
    """What KMS says to the role's GetObject; HeadObject does not decrypt."""
    if not call.role or call.head or call.action != "s3:GetObject":
        return False
    from moto.iam.models import iam_backends

    roles = [role for role in iam_backends[CUSTOMER]["aws"].roles.values() if role.arn == call.role]
    return not any("kms:Decrypt" in text for role in roles for text in role.policies.values())


def do_as_told(customer: Customer, printed: Any) -> None:
    """What the customer does with the documents of `kyra integration policy`."""
    iam, documents = customer.client("iam"), printed["documents"]
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName="kyra-etl", AssumeRolePolicyDocument=json.dumps(documents["trust"]))
    iam.put_role_policy(
        RoleName="kyra-etl", PolicyName=POLICY_NAME, PolicyDocument=json.dumps(documents["permissions"])
    )
    customer.client("sns", "eu-west-1").set_topic_attributes(
        TopicArn=TOPIC, AttributeName="Policy", AttributeValue=json.dumps(documents["topic"])
    )


def test_an_organization_is_connected_from_zero(organization: Customer, kyra: Kyra, kms_key: str, wire: Wire) -> None:
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=QUEUE_NAME)["QueueUrl"]

    # 1. The connection gets its name. The region is found; the queue is subscribed.
    added = kyra(
        *("integration", "add", "org", "--bucket", BUCKET, "--organization", ORGANIZATION, "--role-arn", ROLE),
        *("--external-id", EXTERNAL_ID, "--sns-topic-arn", TOPIC, "--queue-url", url),
    )
    assert added.code == 0
    assert (added.json["region"], added.json["external_id"], added.json["queue_url"]) == ("eu-west-1", "****", "****")
    assert added.json["subscription"].startswith(TOPIC)

    # 2. Nothing is in place yet: the check says what to do about it, the causes in their order.
    refused = kyra("check", "org")
    assert (refused.code, refused.failed()) == (1, ["assume_role", "queue"])
    assert refused.remedy("assume_role").startswith("Likeliest first: sts:ExternalId")
    assert kyra("status", "org").json["integrations"][0]["state"] == "Failed"

    # 3. The customer does what is printed; so do we, with our queue. The key is still missing, and is named.
    printed = kyra("integration", "policy", "org")
    assert printed.json["documents"]["trust"]["Statement"][0]["Principal"] == {
        "AWS": "arn:aws:iam::123456789012:role/KYRACloudSensor"
    }
    do_as_told(organization, printed.json)
    sqs.set_queue_attributes(QueueUrl=url, Attributes=printed.json["documents"]["queue-attributes"])
    almost = kyra("check", "org")
    assert (almost.code, almost.failed()) == (1, ["kms"])
    assert kms_key in almost.remedy("kms")

    # 4. The check has seen the trail's key, so that the policy asks for it by itself.
    printed = kyra("integration", "policy", "org")
    assert printed.json["documents"]["key"]["Principal"] == {"AWS": ROLE}
    do_as_told(organization, printed.json)
    began = time.process_time()
    healthy = kyra("check", "org")
    assert time.process_time() - began < 10
    assert (healthy.code, healthy.failed()) == (0, [])
    answers = {probe["name"]: probe for probe in healthy.json["probes"]}
    assert [name for name, probe in answers.items() if probe["passed"] is not True or probe["warning"]] == []
    assert f"organization {ORGANIZATION}, 2 accounts, 1 region" in answers["layout"]["detail"]
    assert kms_key in answers["kms"]["detail"]

    # 5. Notices, log files, events, Connected.
    late = deliver(organization, kms_key, MEMBER, 10)
    notice = {"Type": "Notification", "Message": json.dumps({"s3Bucket": BUCKET, "s3ObjectKey": [late]})}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(notice))
    synced = kyra("sync", "org")
    assert synced.code == 0, synced.err
    assert (synced.json["hinted"], synced.json["loaded"], synced.json["events"]) == (1, 3, 6)
    status = kyra("status", "org").json["integrations"][0]
    assert (status["state"], status["events_processed"]) == ("Connected", 6)
    found = kyra("sql", "SELECT account, count(*) AS n FROM events GROUP BY 1 ORDER BY 1").json
    assert found == [{"account": CUSTOMER, "n": 2}, {"account": MEMBER, "n": 4}]
    assert "kms:Decrypt" not in wire.by_the_role(), "S3 asks KMS, the role's caller does not"

    # 6. The customer takes the role away: the next run and the check say so.
    organization.client("iam").delete_role_policy(RoleName="kyra-etl", PolicyName=POLICY_NAME)
    organization.client("iam").delete_role(RoleName="kyra-etl")
    assert kyra("sync", "org").code == 1
    assert kyra("check", "org").failed() == ["assume_role"]
    assert kyra("status", "org").json["integrations"][0]["state"] != "Connected"


# ── the verbs around it ──


def test_what_check_prints_fits_a_hundred_columns_and_names_setting_and_permission(
    organization: Customer, kyra: Kyra, capsys: pytest.CaptureFixture[str]
) -> None:
    from kyra_etl import cli

    kyra("integration", "add", "org", "--bucket", BUCKET, "--role-arn", ROLE, "--external-id", EXTERNAL_ID)
    capsys.readouterr()
    assert cli.run(["check", "org"]) == 1
    shown = capsys.readouterr()
    assert max(map(len, shown.out.splitlines())) <= 100
    assert "FAILED   assume_role" in shown.out
    assert "needs sts:AssumeRole" in shown.out
    assert "1 probe failed." in shown.err


def test_a_dangerous_role_is_a_warning_in_text_and_json_and_no_failure(
    customer: Customer, kyra: Kyra, capsys: pytest.CaptureFixture[str]
) -> None:
    from kyra_etl import cli

    customer.put(key_of(CUSTOMER, 5))
    customer.trail()
    kyra("integration", "add", "org", "--bucket", BUCKET, "--role-arn", ROLE, "--external-id", EXTERNAL_ID)
    ran = kyra("check", "org")
    (dangerous,) = [probe for probe in ran.json["probes"] if probe["warning"]]
    assert (ran.code, dangerous["name"], dangerous["passed"]) == (0, "external_id", True)
    assert dangerous["detail"].startswith("Dangerous (confused deputy)")
    capsys.readouterr()
    assert cli.run(["check", "org"]) == 0
    shown = capsys.readouterr()
    assert "warning  external_id   Dangerous (confused deputy)" in shown.out
    assert "Connected. 1 warning." in shown.err


def test_a_connection_is_changed_without_being_made_anew(organization: Customer, kyra: Kyra) -> None:
    kyra("integration", "add", "org", "--bucket", BUCKET, "--role-arn", ROLE, "--prefix", "wrong")
    before = kyra("integration", "policy", "org", "--trusted", "999988887777").json["documents"]["trust"]
    changed = kyra("integration", "change", "org", "--prefix", "", "--also", "event-selectors")
    assert (changed.json["prefix"], changed.json["additions"]) == ("", ["event-selectors"])
    after = kyra("integration", "policy", "org", "--trusted", "999988887777").json["documents"]
    assert after["trust"] == before, "the external id stays"
    assert after["permissions"]["Statement"][-1]["Action"] == ["cloudtrail:GetEventSelectors"]
    wrong = kyra("integration", "change", "org", "--account-id", "12")
    assert (wrong.code, wrong.out) == (2, "")
    assert "For example 012345678901." in wrong.err
    assert kyra("integration", "change", "nobody", "--prefix", "x").code == 2


@pytest.mark.parametrize("format_", ["cloudformation", "terraform"])
def test_templates_come_filled_in_for_the_connection(
    kyra: Kyra, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    from kyra_etl import cli

    kyra("integration", "add", "org", "--bucket", BUCKET, "--role-arn", ROLE, "--external-id", EXTERNAL_ID)
    capsys.readouterr()
    command = ["integration", "policy", "org", "--trusted", "999988887777", "--format", format_]
    assert cli.run(command) == 0
    shown = capsys.readouterr().out
    assert leaks(shown)
    assert "arn:aws:iam::999988887777:role/KYRACloudSensor" in shown
    assert cli.run([*command[:-1], "word"]) == 2
    assert "text, cloudformation or terraform" in capsys.readouterr().err


def test_without_an_answer_the_region_is_left_to_be_found_later(kyra: Kyra) -> None:
    added = kyra("integration", "add", "org", "--bucket", BUCKET)
    assert (added.code, added.json["region"]) == (0, None)
