from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyra_etl.errors import UsageError
from kyra_etl.integrations import changed, make_integration, new_external_id
from kyra_etl.model import Integration

NOW = datetime(2026, 3, 4)
QUEUE = "https://sqs.eu-west-1.amazonaws.com/012345678901/cloudtrail"
RIGHT: dict[str, Any] = {
    "name": "production",
    "bucket": "example-cloudtrail-logs",
    "account_id": "012345678901",
    "role_arn": "arn:aws:iam::012345678901:role/security/kyra-etl",
    "external_id": "customer:4711/kyra",
    "region": "eu-west-1",
    "prefix": "org/trail",
    "sns_topic_arn": "arn:aws:sns:eu-west-1:012345678901:cloudtrail",
    "queue_url": QUEUE,
    "organization_id": "o-a1b2c3d4e5",
    "additions": ("event-selectors", "public-keys"),
}


def made(**values: Any) -> Integration:
    return make_integration(**({"name": "production", "bucket": "example-logs", "now": NOW} | values))


def test_right_values_are_kept_as_given() -> None:
    assert make_integration(**RIGHT, now=NOW) == Integration(**RIGHT, created_at=NOW)


@pytest.mark.parametrize(
    ("option", "value", "example"),
    [
        ("account_id", "12345678901", "012345678901"),
        ("account_id", "1234-5678-9012", "012345678901"),
        ("account_id", "１２３４５６７８９０１２", "012345678901"),
        ("account_id", "012345678901\n", "012345678901"),
        ("role_arn", "kyra-etl", "arn:aws:iam::012345678901:role/kyra-etl"),
        ("role_arn", "arn:aws:iam::012345678901:user/kyra", "arn:aws:iam::012345678901:role/kyra-etl"),
        ("role_arn", "arn:aws:sts::012345678901:assumed-role/a/b", "arn:aws:iam::012345678901:role/kyra-etl"),
        ("role_arn", "arn:gcp:iam::012345678901:role/kyra", "arn:aws:iam::012345678901:role/kyra-etl"),
        ("role_arn", "arn:aws:iam::0123:role/kyra", "arn:aws:iam::012345678901:role/kyra-etl"),
        ("bucket", "Example-Logs", "example-cloudtrail-logs"),
        ("bucket", "a", "example-cloudtrail-logs"),
        ("bucket", "a..b", "example-cloudtrail-logs"),
        ("bucket", "192.168.0.1", "example-cloudtrail-logs"),
        ("bucket", "logs-", "example-cloudtrail-logs"),
        ("bucket", "logs/AWSLogs", "example-cloudtrail-logs"),
        ("bucket", "s3://logs-of-ours/org/AWSLogs/", "--bucket logs-of-ours --prefix org"),
        ("bucket", "arn:aws:s3:::logs-of-ours", "--bucket logs-of-ours"),
        ("region", "Ireland", "eu-west-1"),
        ("region", "eu-west-1a", "eu-west-1"),
        ("prefix", "org/AWSLogs/012345678901", "--prefix org"),
        ("prefix", "AWSLogs/", "Leave --prefix out"),
        ("prefix", "a//b", "org/trail"),
        ("prefix", "a/../b", "org/trail"),
        ("prefix", "a" * 201, "org/trail"),
        ("sns_topic_arn", "cloudtrail", "arn:aws:sns:eu-west-1:012345678901:cloudtrail"),
        ("sns_topic_arn", "arn:aws:sqs:eu-west-1:012345678901:x", "arn:aws:sns:eu-west-1:012345678901:cloudtrail"),
        ("queue_url", "arn:aws:sqs:eu-west-1:012345678901:x", QUEUE),
        ("queue_url", "http://sqs.eu-west-1.amazonaws.com/012345678901/x", QUEUE),
        ("queue_url", "https://sqs.eu-west-1.evil.example/012345678901/x", QUEUE),
        ("organization_id", "r-abcd", "o-a1b2c3d4e5"),
        ("organization_id", "o-short", "o-a1b2c3d4e5"),
        ("organization_id", "O-A1B2C3D4E5", "o-a1b2c3d4e5"),
        ("additions", ["kms"], "event-selectors"),
        ("external_id", "x", "2 to 1224"),
        ("external_id", "has a space", "2 to 1224"),
        ("name", "Production", "production"),
        ("name", "", "production"),
        ("name", "a/b", "production"),
        ("name", "local", "production"),
    ],
)
def test_a_wrong_value_is_refused_with_a_right_one(option: str, value: str, example: str) -> None:
    with pytest.raises(UsageError) as error:
        made(**{option: value})
    assert example in error.value.remedy
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("option", "value"), [("external_id", "my secret id"), ("queue_url", "https://secret/queue")])
def test_secrets_are_not_repeated_even_when_wrong(option: str, value: str) -> None:
    with pytest.raises(UsageError) as error:
        made(**{option: value})
    assert value not in str(error.value)


@pytest.mark.parametrize(
    "role_arn",
    [
        "arn:aws:iam::012345678901:role/kyra",
        "arn:aws-us-gov:iam::012345678901:role/a/b/kyra",
        "arn:aws-cn:iam::012345678901:role/kyra+=,.@_-",
    ],
)
def test_roles_of_every_partition_are_taken_and_tell_the_account(role_arn: str) -> None:
    assert made(role_arn=role_arn).account_id == "012345678901"


@pytest.mark.parametrize(
    "queue_url",
    [
        QUEUE,
        f"{QUEUE}.fifo",
        "https://sqs.cn-north-1.amazonaws.com.cn/012345678901/q",
        "https://sqs-fips.us-gov-west-1.amazonaws.com/012345678901/q",
        "https://eu-west-1.queue.amazonaws.com/012345678901/q",
        "http://127.0.0.1:5000/012345678901/q",
    ],
)
def test_queue_urls_of_every_form_are_taken(queue_url: str) -> None:
    assert made(queue_url=queue_url).queue_url == queue_url


@pytest.mark.parametrize(
    ("given_prefix", "kept"), [(None, ""), ("", ""), ("/", ""), ("org/", "org"), ("/a/b/", "a/b"), ("a b", "a b")]
)
def test_a_prefix_is_kept_without_slashes_around_it(given_prefix: str | None, kept: str) -> None:
    assert made(prefix=given_prefix).prefix == kept


def test_an_external_id_is_made_where_none_is_given_and_nobody_sees_it() -> None:
    first, second = made(external_id=""), made(external_id=None)
    assert first.external_id != second.external_id
    assert first.external_id is not None
    assert re.fullmatch(r"kyra-[A-Za-z0-9_-]{32}", first.external_id)
    assert first.external_id not in repr(first)


def test_made_external_ids_are_valid_ones() -> None:
    for _ in range(50):
        external_id = new_external_id()
        assert made(external_id=external_id).external_id == external_id


def test_a_folder_is_a_bucket_that_needs_nothing_else() -> None:
    folder = made(bucket="file:///srv/logs", account_id="012345678901")
    assert folder == Integration("production", "file:///srv/logs", account_id="012345678901", created_at=NOW)
    with pytest.raises(UsageError, match="--role-arn means nothing for a folder"):
        made(bucket="file:///srv/logs", role_arn=RIGHT["role_arn"])
    with pytest.raises(UsageError, match="not the address of a folder"):
        made(bucket="file:logs")


def test_a_change_keeps_what_is_not_given_and_takes_back_what_is_empty() -> None:
    before = make_integration(**RIGHT, now=NOW)
    assert changed(before) == before
    after = changed(before, prefix="", region="us-east-1", queue_url="", organization_id=None)
    assert after == replace(before, prefix="", region="us-east-1", queue_url=None)
    renewed = changed(before, external_id="")
    assert renewed.external_id not in (None, before.external_id)


def test_another_role_brings_its_own_account_unless_another_was_given() -> None:
    role = "arn:aws:iam::444455556666:role/kyra-etl"
    assert changed(make_integration(**RIGHT, now=NOW), role_arn=role).account_id == "444455556666"
    told = make_integration(**{**RIGHT, "account_id": "777788889999"}, now=NOW)
    assert changed(told, role_arn=role).account_id == "777788889999"


def test_a_folder_may_be_moved() -> None:
    folder = made(bucket="file:///srv/logs")
    assert changed(folder, bucket="file:///srv/other") == replace(folder, bucket="file:///srv/other")
    with pytest.raises(UsageError, match="--organization means nothing for a folder"):
        changed(folder, organization_id="o-a1b2c3d4e5")


@given(st.fixed_dictionaries({}, optional={name: st.text(max_size=60) for name in RIGHT}))
def test_whatever_is_given_it_is_taken_or_refused_in_one_line(values: dict[str, str]) -> None:
    try:
        made(**values)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
