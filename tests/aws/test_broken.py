"""Everything that can be broken at a customer's, one at a time: the right probe fails, and says what to change.

What the look-alike cannot do (KMS denial, delivery errors, wrong regions, denied AssumeRole …) is answered in its
place, on the wire and as AWS answers; everything of ours is real.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import boto3
import pytest
from werkzeug.wrappers import Response

from kyra_etl.aws.bucket import open_bucket
from kyra_etl.aws.policies import documents, queue_arn
from kyra_etl.aws.queue import SqsQueue
from kyra_etl.aws.session import Session
from kyra_etl.check import check
from kyra_etl.cli import integrations as cli
from kyra_etl.model import Integration, Probe
from tests.aws.conftest import BUCKET, CUSTOMER, ROLE, Customer, key_of, log_file, utc_now
from tests.planted import QUEUE_NAME, leaks
from tests.wire import Rule, Wire, refuse, tell

ME = "arn:aws:sts::123456789012:user/moto"
MAY_NOT = f"User: {ME} is not authorized to perform: {{}} on resource: {{}}"
LIST = MAY_NOT.format("s3:ListBucket", f"arn:aws:s3:::{BUCKET}")
ASSUME = MAY_NOT.format("sts:AssumeRole", ROLE)
OLD_KMS = (
    "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not"
    " allowed to access."
)
KEY = f"arn:aws:kms:eu-west-1:{CUSTOMER}:key/1234"


@pytest.fixture
def connected(guarded: None, customer: Customer) -> Customer:
    """A customer who did everything right."""
    customer.put(key_of(1000), key_of(1005))
    customer.trail()
    return customer


def checked(integration: Integration) -> dict[str, Probe]:
    """The probes by name, after what holds for every check was looked at."""
    found = check(integration, bucket=open_bucket(integration), now=utc_now())
    shown = cli._told(found)
    assert max(map(len, shown.splitlines())) <= 100
    assert leaks(f"{shown} {json.dumps(cli._rows(found))}") == []
    for probe in found:
        assert probe.remedy or probe.passed is not False, f"{probe.name} failed without a remedy"
    return {probe.name: probe for probe in found}


def failed(probes: dict[str, Probe]) -> list[str]:
    return [name for name, probe in probes.items() if probe.passed is False]


def denied(action: str) -> Rule:
    """As CloudTrail's API says that a permission is missing."""
    return refuse(action, "AccessDeniedException", MAY_NOT.format(action, "*"), 400)


def listing(code: str, message: str) -> Rule:
    """The refusal of ListObjectsV2 alone: HeadBucket tells the region all the same."""
    refusal = refuse("s3:ListBucket", code, message, 400)
    return lambda call: None if call.head else refusal(call)


# One row a cause: what AWS answers, the probes that fail, a pattern of the first one's remedy.
ANSWERS: dict[str, tuple[Rule, list[str], str]] = {
    "bad_key": (
        refuse("sts:GetCallerIdentity", "InvalidClientTokenId", "The security token in the request is invalid."),
        ["identity"], "rotate the access key",
    ),
    "bad_secret": (
        refuse("sts:GetCallerIdentity", "SignatureDoesNotMatch", "The request signature we calculated does not match."),
        ["identity"], "rotate the access key",
    ),
    "signature_expired": (
        refuse("sts:GetCallerIdentity", "SignatureDoesNotMatch", "Signature expired: 2026 is now earlier than 2026"),
        ["identity"], "Set this machine's clock",
    ),
    "session_expired": (
        refuse("sts:GetCallerIdentity", "ExpiredToken", "The security token included in the request is expired"),
        ["identity"], "Renew them",
    ),
    "assume_role": (
        refuse("sts:AssumeRole", "AccessDenied", ASSUME), ["assume_role"],
        f"Likeliest first: sts:ExternalId.*Principal there does not name {ME}.*another name.*less than a minute",
    ),
    "assume_role_ours": (
        refuse("sts:AssumeRole", "AccessDenied", f"{ASSUME} because no identity-based policy allows the action"),
        ["assume_role"], f"Allow sts:AssumeRole on that role in the policies .* of {ME}",
    ),
    "assume_role_boundary": (
        refuse("sts:AssumeRole", "AccessDenied", f"{ASSUME} with an explicit deny in a service control policy"),
        ["assume_role"], "service control policy",
    ),
    "duration": (
        refuse("sts:AssumeRole", "ValidationError", "DurationSeconds exceeds the MaxSessionDuration", 400),
        ["assume_role"], "maximum session duration to one hour",
    ),
    "sts_region_off": (
        refuse("sts:AssumeRole", "RegionDisabledException", "STS is not activated in this region"),
        ["assume_role"], "Enable the region",
    ),
    "list_denied": (
        refuse("s3:ListBucket", "AccessDenied", LIST),
        ["list"], f"Likeliest first: allow s3:ListBucket on arn:aws:s3:::{BUCKET} itself.*s3:prefix.*bucket's policy",
    ),
    "list_forbidden_above": (
        refuse("s3:ListBucket", "AccessDenied", f"{LIST} with an explicit deny in a resource-based policy"),
        ["list"], "exception for the role in that bucket policy",
    ),
    "wrong_region": (
        listing("AuthorizationHeaderMalformed", "the region 'eu-west-1' is wrong"),
        ["list"], "--region",
    ),
    "token_expired_midway": (
        listing("ExpiredToken", "The provided token has expired."), ["list"], "Renew them",
    ),
    "get_denied": (
        refuse("s3:GetObject", "AccessDenied", "Access Denied"), ["read"],
        rf"Likeliest first: allow s3:GetObject on arn:aws:s3:::{BUCKET}/\*.*bucket's policy.*own the object",
    ),
    "describe_denied": (
        denied("cloudtrail:DescribeTrails"),
        ["trail"], "Allow cloudtrail:DescribeTrails",
    ),
    "status_denied": (
        denied("cloudtrail:GetTrailStatus"),
        ["logging"], "Allow cloudtrail:GetTrailStatus",
    ),
    "trail_gone": (
        refuse("cloudtrail:GetTrailStatus", "TrailNotFoundException", "Unknown trail: everything", 400),
        ["logging"], "by ARN",
    ),
    "lookup_denied": (
        denied("cloudtrail:LookupEvents"),
        ["lookup"], "Allow cloudtrail:LookupEvents",
    ),
    "delivery_denied": (
        tell("cloudtrail:GetTrailStatus", {"IsLogging": True, "LatestDeliveryError": "AccessDenied"}),
        ["delivery"], "Likeliest first: let cloudtrail.amazonaws.com write to the bucket.*KMS key",
    ),
    "delivery_bucket_gone": (
        tell("cloudtrail:GetTrailStatus", {"IsLogging": True, "LatestDeliveryError": "NoSuchBucket"}),
        ["delivery"], "--s3-bucket-name",
    ),
    "delivery_key_disabled": (
        tell("cloudtrail:GetTrailStatus", {"IsLogging": True, "LatestDeliveryError": "KMS.DisabledException"}),
        ["delivery"], "Likeliest first: enable the key",
    ),
    "never_delivered": (
        tell("cloudtrail:GetTrailStatus", {"IsLogging": True, "StartLoggingTime": 1_700_000_000}),
        ["delivery"], "Likeliest first: CloudTrail may not write to the bucket",
    ),
}  # fmt: skip


@pytest.mark.parametrize("cause", ANSWERS)
def test_each_answer_of_aws_fails_its_probe_with_the_setting_to_change(
    connected: Customer, integration: Integration, wire: Wire, cause: str
) -> None:
    rule, probes, remedy = ANSWERS[cause]
    wire.rules.append(rule)
    found = checked(integration)
    assert failed(found) == probes
    assert re.search(remedy, found[probes[0]].remedy)


@pytest.mark.parametrize(
    ("code", "status", "message", "remedy"),
    [
        ("AccessDenied", 403, MAY_NOT.format("kms:Decrypt", KEY),
         rf"kms:Decrypt on the trail's key both in the key's policy and in the role's policy.*--kms-key-arn {KEY}"),
        ("AccessDenied", 403, OLD_KMS, "Allow kms:Decrypt on the trail's key"),
        ("KMS.DisabledException", 400, f"{KEY} is disabled.", "Enable the key, or cancel its deletion"),
        ("KMS.KMSInvalidStateException", 400, f"{KEY} is pending deletion.", "cancel its deletion"),
    ],
)  # fmt: skip
def test_a_key_that_may_not_be_used_fails_kms_and_nothing_else(
    connected: Customer, integration: Integration, wire: Wire, code: str, status: int, message: str, remedy: str
) -> None:
    s3 = connected.client("s3")
    encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY}
    s3.put_object(Bucket=BUCKET, Key=key_of(2000), Body=log_file(), **encrypted)
    assert failed(checked(integration)) == []
    assert KEY in checked(integration)["kms"].detail

    refusal = refuse("s3:GetObject", code, message, status)
    wire.rules.append(lambda call: refusal(call) if not call.head else None)  # HeadObject does not decrypt
    found = checked(integration)

    assert failed(found) == ["kms"]
    assert found["read"].passed is None
    assert re.search(remedy, found["kms"].remedy)


def test_an_archived_log_file_fails_read(connected: Customer, integration: Integration) -> None:
    connected.client("s3").put_object(Bucket=BUCKET, Key=key_of(2000), Body=log_file(), StorageClass="GLACIER")
    found = checked(integration)
    assert failed(found) == ["read"]
    assert "Restore it from Glacier" in found["read"].remedy


def test_an_organization_s_trail_is_seen_by_a_member_that_may_not_read_its_bucket(
    connected: Customer, integration: Integration, wire: Wire
) -> None:
    trail = {
        "Name": "org", "TrailARN": "arn:aws:cloudtrail:eu-west-1:999900001111:trail/org", "S3BucketName": BUCKET,
        "IsOrganizationTrail": True, "IsMultiRegionTrail": True, "LogFileValidationEnabled": True,
        "HomeRegion": "eu-west-1",
    }  # fmt: skip
    wire.rules += [
        refuse("s3:ListBucket", "AccessDenied", "Access Denied"),
        tell("cloudtrail:DescribeTrails", {"trailList": [trail]}),
        tell("cloudtrail:GetTrailStatus", {"IsLogging": True, "LatestDeliveryTime": 1_700_000_000}),
    ]
    found = checked(integration)
    assert failed(found) == ["list"]
    assert found["trail"].warning
    assert "belongs to account 999900001111; the role may not read the bucket" in found["trail"].detail
    assert found["trail"].remedy.startswith("Make the role in the account that owns the bucket")


def test_a_history_that_cannot_be_asked_just_now_is_no_failure(
    connected: Customer, integration: Integration, wire: Wire
) -> None:
    wire.rules.append(refuse("cloudtrail:LookupEvents", "ThrottlingException", "Rate exceeded", 400))
    found = check(integration, bucket=open_bucket(integration, attempts=1), now=utc_now())
    (probe,) = [one for one in found if one.passed is None and one.name == "lookup"]
    assert "AWS asks us to slow down" in probe.detail
    assert [one.name for one in found if one.passed is False] == []


# ── event selectors, which only the optional permission shows ──

MANAGEMENT = {"Field": "eventCategory", "Equals": ["Management"]}
DATA = {"Field": "eventCategory", "Equals": ["Data"]}
SELECTORS: list[tuple[dict[str, Any], bool | None, str]] = [
    ({}, True, "All management events"),
    ({"EventSelectors": [{"ReadWriteType": "All", "IncludeManagementEvents": True}]}, True, "All management events"),
    ({"EventSelectors": [{"ReadWriteType": "WriteOnly"}]}, True, "reads are not"),
    ({"EventSelectors": [{"ReadWriteType": "ReadOnly", "IncludeManagementEvents": True}]}, False, "reads only"),
    ({"EventSelectors": [{"IncludeManagementEvents": False}]}, False, "no management events"),
    (
        {"EventSelectors": [{"ReadWriteType": "All", "ExcludeManagementEventSources": ["kms.amazonaws.com"]}]},
        None, "without kms.amazonaws.com",
    ),
    ({"AdvancedEventSelectors": [{"FieldSelectors": [MANAGEMENT]}]}, True, "All management events"),
    (
        {"AdvancedEventSelectors": [{"FieldSelectors": [MANAGEMENT, {"Field": "readOnly", "Equals": ["true"]}]}]},
        False, "reads only",
    ),
    ({"AdvancedEventSelectors": [{"FieldSelectors": [DATA]}]}, False, "no management events"),
    (
        {"AdvancedEventSelectors": [{"FieldSelectors": [MANAGEMENT, {"Field": "eventName", "Equals": ["X"]}]}]},
        None, "without by eventName",
    ),
]  # fmt: skip


@pytest.mark.additions("event-selectors")
@pytest.mark.parametrize(("answer", "passed", "detail"), SELECTORS)
def test_selectors_that_leave_out_what_changes_something_fail(
    connected: Customer, integration: Integration, wire: Wire, answer: dict[str, Any], passed: bool | None, detail: str
) -> None:
    wire.rules.append(tell("cloudtrail:GetEventSelectors", answer))
    probe = checked(replace(integration, additions=("event-selectors",)))["selectors"]
    assert (probe.passed, probe.warning) == (passed is not False, passed is None)
    assert detail in probe.detail
    assert (passed is True) != ("put-event-selectors" in probe.remedy)


def test_without_the_optional_permission_selectors_are_not_asked_for(
    connected: Customer, integration: Integration, wire: Wire
) -> None:
    assert checked(integration)["selectors"].passed is True
    trails = connected.client("cloudtrail", "eu-west-1").describe_trails()["trailList"]
    wire.rules.append(
        tell("cloudtrail:DescribeTrails", {"trailList": [{**one, "HasCustomEventSelectors": True} for one in trails]})
    )
    probe = checked(integration)["selectors"]
    assert probe.passed is None
    assert "kyra integration change production --also event-selectors" in probe.remedy
    assert "cloudtrail:GetEventSelectors" not in wire.actions


# ── topic and queue ──


@pytest.fixture
def notified(guarded: None, customer: Customer, integration: Integration) -> Integration:
    """An integration whose trail notifies a topic that feeds a queue of ours, all as it should be.

    The queue is in us-east-1, as a local address names no region.
    """
    customer.put(key_of(1000))
    topic = customer.client("sns", "eu-west-1").create_topic(Name="cloudtrail")["TopicArn"]
    customer.trail(topic="cloudtrail")
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=QUEUE_NAME)["QueueUrl"]
    there = replace(integration, sns_topic_arn=topic, queue_url=url)
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(documents(there)["queue"])})
    SqsQueue(Session(there)).subscribe()
    return there


def test_a_right_chain_of_notices_passes_every_probe(notified: Integration) -> None:
    found = checked(notified)
    assert failed(found) == []
    assert all(probe.passed for probe in found.values())


def without_policy(there: Integration) -> Integration:
    sqs = boto3.client("sqs")
    other = sqs.create_queue(QueueName="pl4nted-queue-without-policy")["QueueUrl"]
    moved = replace(there, queue_url=other)
    SqsQueue(Session(moved)).subscribe()
    return moved


def for_another_topic(there: Integration) -> Integration:
    policy = json.dumps(documents(there)["queue"]).replace(str(there.sns_topic_arn), "arn:aws:sns:eu-west-1:1:other")
    sqs = boto3.client("sqs")
    sqs.set_queue_attributes(QueueUrl=there.queue_url, Attributes={"Policy": policy})
    return there


def unsubscribed(there: Integration) -> Integration:
    sns = boto3.client("sns", region_name="eu-west-1")
    for one in sns.list_subscriptions()["Subscriptions"]:
        sns.unsubscribe(SubscriptionArn=one["SubscriptionArn"])
    return there


def gone(there: Integration) -> Integration:
    boto3.client("sqs").delete_queue(QueueUrl=there.queue_url)
    return there


BROKEN_CHAINS: list[tuple[Callable[[Integration], Integration], list[str], str]] = [
    (without_policy, ["queue"], "Allow sqs:SendMessage to sns.amazonaws.com with aws:SourceArn"),
    (for_another_topic, ["queue"], "kyra integration policy production"),
    (unsubscribed, ["subscription"], "`kyra integration subscribe production`"),
    (gone, ["queue"], "Compare --queue-url"),
]


@pytest.mark.parametrize(("breaking", "probes", "remedy"), BROKEN_CHAINS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_broken_chain_of_notices_fails_where_it_is_broken(
    notified: Integration, breaking: Callable[[Integration], Integration], probes: list[str], remedy: str
) -> None:
    found = checked(breaking(notified))
    assert failed(found) == probes
    assert remedy in found[probes[0]].remedy


def test_a_trail_that_notifies_nobody_or_somebody_else_fails_topic(notified: Integration, customer: Customer) -> None:
    elsewhere = replace(notified, sns_topic_arn=f"arn:aws:sns:eu-west-1:{CUSTOMER}:other")
    probe = checked(elsewhere)["topic"]
    assert probe.passed is False
    assert f"kyra integration change production --sns-topic-arn {notified.sns_topic_arn}" in probe.remedy
    customer.client("cloudtrail", "eu-west-1").delete_trail(Name="everything")
    customer.trail()
    assert "--sns-topic-name" in checked(notified)["topic"].remedy


def test_a_topic_that_cloudtrail_may_not_publish_to_fails_topic(notified: Integration, wire: Wire) -> None:
    status = {"IsLogging": True, "LatestDeliveryTime": 1_700_000_000, "LatestNotificationError": "AuthorizationError"}
    wire.rules.append(tell("cloudtrail:GetTrailStatus", status))
    found = checked(notified)
    assert failed(found) == ["topic"]
    assert "sns:Publish to cloudtrail.amazonaws.com" in found["topic"].remedy


def test_a_subscription_that_waits_is_told(notified: Integration, wire: Wire) -> None:
    waiting = (
        "<ListSubscriptionsResponse><ListSubscriptionsResult><Subscriptions><member>"
        f"<TopicArn>{notified.sns_topic_arn}</TopicArn><Protocol>sqs</Protocol>"
        f"<SubscriptionArn>PendingConfirmation</SubscriptionArn><Endpoint>{queue_arn(str(notified.queue_url))}</Endpoint>"
        "<Owner>1</Owner></member></Subscriptions></ListSubscriptionsResult></ListSubscriptionsResponse>"
    )
    wire.rules.append(
        lambda call: Response(waiting, content_type="text/xml") if call.action == "sns:ListSubscriptions" else None
    )
    found = checked(notified)
    assert failed(found) == ["subscription"]
    assert "`kyra sync production` confirms it" in found["subscription"].remedy
