"""The queue of a new integration is subscribed to its topic; when that fails, the integration stays."""

from __future__ import annotations

import boto3
import pytest

from tests.cli.conftest import Kyra

OURS = "123456789012"


@pytest.fixture
def queue_url(s3_server: str) -> str:
    url: str = boto3.client("sqs", region_name="us-east-1").create_queue(QueueName="notices")["QueueUrl"]
    return url


def topic(region: str) -> str:
    arn: str = boto3.client("sns", region_name=region).create_topic(Name="cloudtrail")["TopicArn"]
    return arn


def subscriptions(region: str) -> list[tuple[str, str]]:
    found = boto3.client("sns", region_name=region).list_subscriptions()["Subscriptions"]
    return [(one["TopicArn"], one["Endpoint"]) for one in found]


def add(kyra: Kyra, topic_arn: str, queue_url: str, *more: str) -> tuple[object, ...]:
    return ("integration", "add", "prod", "--bucket", "example-logs", *_both(topic_arn, queue_url), *more)


def _both(topic_arn: str, queue_url: str) -> tuple[str, ...]:
    return ("--sns-topic-arn", topic_arn, "--queue-url", queue_url)


def test_adding_subscribes_the_queue_in_the_topic_s_region(kyra: Kyra, queue_url: str) -> None:
    there = topic("eu-west-1")

    ran = kyra(*add(kyra, there, queue_url, "--json"))

    assert ran.code == 0
    assert ran.json["subscription"].startswith(f"{there}:")
    assert ran.json["subscription_problem"] is None
    assert subscriptions("eu-west-1") == [(there, f"arn:aws:sqs:us-east-1:{OURS}:notices")]
    assert subscriptions("us-east-1") == []


def test_integration_stays_when_its_queue_cannot_be_subscribed_and_can_be_later(kyra: Kyra, queue_url: str) -> None:
    missing = f"arn:aws:sns:eu-west-1:{OURS}:cloudtrail"

    ran = kyra(*add(kyra, missing, queue_url))

    assert (ran.code, ran.out) == (0, "Added prod.\n")
    assert f"topic {missing} does not exist" in ran.err.replace("Topic", "topic")
    assert "kyra integration subscribe prod" in ran.err
    assert queue_url not in ran.err
    assert kyra("integration", "show", "prod").code == 0
    failed = kyra("integration", "subscribe", "prod")
    assert (failed.code, "does not exist" in failed.error) == (1, True)

    assert topic("eu-west-1") == missing
    assert kyra("integration", "subscribe", "prod", "--json").json["subscription"].startswith(f"{missing}:")
    assert kyra("integration", "subscribe", "prod").code == 0
    assert len(subscriptions("eu-west-1")) == 1


def test_problem_is_in_the_document(kyra: Kyra, queue_url: str) -> None:
    ran = kyra(*add(kyra, f"arn:aws:sns:eu-west-1:{OURS}:nowhere", queue_url, "--json"))

    assert ran.code == 0
    assert ran.json["subscription"] is None
    assert "does not exist" in ran.json["subscription_problem"]
    assert ran.json["queue_url"] == "****"


def test_queue_of_the_customer_is_left_to_the_customer(kyra: Kyra, s3_server: str) -> None:
    role = "arn:aws:iam::111122223333:role/reader"
    theirs = "https://sqs.eu-west-1.amazonaws.com/111122223333/logs"

    ran = kyra(*add(kyra, "arn:aws:sns:eu-west-1:111122223333:cloudtrail", theirs, "--role-arn", role))

    assert ran.code == 0
    assert "belongs to the customer" in ran.err
    assert "kyra integration policy" in ran.err


def test_without_a_topic_nothing_is_subscribed(kyra: Kyra, queue_url: str) -> None:
    ran = kyra("integration", "add", "prod", "--bucket", "example-logs", "--queue-url", queue_url, "--json")

    assert (ran.code, ran.json["subscription"], ran.json["subscription_problem"]) == (0, None, None)
    assert "no topic" in kyra("integration", "subscribe", "prod").error
    kyra("integration", "add", "other", "--bucket", "example-logs")
    assert "has no queue" in kyra("integration", "subscribe", "other").error
