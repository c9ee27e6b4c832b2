"""What messages say: every shape that is known, and nothing that surprises."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyra_etl.aws.notices import UNKNOWN, Notice, parse

TOPIC = "arn:aws:sns:eu-west-1:111122223333:cloudtrail"
LOG = "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/03/04/a b+c%2F=ü.json.gz"
QUOTED = "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/03/04/a+b%2Bc%252F%3D%C3%BC.json.gz"


def envelope(message: str, **more: Any) -> str:
    return json.dumps({"Type": "Notification", "MessageId": "m", "TopicArn": TOPIC, "Message": message} | more)


def s3_event(key: str = QUOTED, name: str = "ObjectCreated:Put", bucket: str = "logs") -> dict[str, Any]:
    s3 = {"bucket": {"name": bucket}, "object": {"key": key, "size": 1, "eTag": "e"}}
    return {"eventVersion": "2.6", "eventSource": "aws:s3", "eventName": name, "s3": s3}


def event_bridge(key: str = LOG, what: str = "Object Created") -> dict[str, Any]:
    return {"source": "aws.s3", "detail-type": what, "detail": {"bucket": {"name": "logs"}, "object": {"key": key}}}


FILES = Notice("files", (("logs", LOG),))


@pytest.mark.parametrize("wrap", [str, envelope, lambda body: envelope(envelope(body))])
@pytest.mark.parametrize(
    ("said", "notice"),
    [
        ({"s3Bucket": "logs", "s3ObjectKey": [LOG]}, FILES),
        ({"s3Bucket": "logs", "s3ObjectKey": LOG}, FILES),
        ({"s3Bucket": "logs", "s3ObjectKey": [LOG, "b", LOG]}, Notice("files", (("logs", LOG), ("logs", "b")))),
        ({"Records": [s3_event()]}, FILES),
        ({"Records": [s3_event(), s3_event("x+y")]}, Notice("files", (("logs", LOG), ("logs", "x y")))),
        ({"Records": [s3_event(name="ObjectCreated:CompleteMultipartUpload")]}, FILES),
        ({"Records": [s3_event(name="ObjectRemoved:Delete")]}, Notice("other_event")),
        ({"Records": [s3_event(name="ObjectRemoved:Delete"), s3_event()]}, FILES),
        (event_bridge(), FILES),
        (event_bridge(what="Object Deleted"), Notice("other_event")),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "logs"}, Notice("test")),
        ("CloudTrail validation message.", Notice("validation")),
        ("", UNKNOWN),
        ("{", UNKNOWN),
        ("[1]", UNKNOWN),
        ("null", UNKNOWN),
        ("[" * 100_000, UNKNOWN),
        ({}, UNKNOWN),
        ({"Records": []}, UNKNOWN),
        ({"Records": None}, UNKNOWN),
        ({"Records": [{"eventSource": "iam.amazonaws.com", "eventName": "CreateUser"}]}, UNKNOWN),
        ({"Records": [s3_event(), "x"]}, UNKNOWN),
        ({"Records": [s3_event(), s3_event(key="")]}, Notice("unknown", (("logs", LOG),))),
        ({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": []}]}, UNKNOWN),
        ({"s3Bucket": "logs", "s3ObjectKey": []}, UNKNOWN),
        ({"s3Bucket": "logs", "s3ObjectKey": 7}, UNKNOWN),
        ({"s3Bucket": "logs", "s3ObjectKey": "k" * 1025}, UNKNOWN),
        ({"source": "aws.s3", "detail-type": "Object Created", "detail": {}}, UNKNOWN),
        ({"source": "aws.iam", "detail-type": "AWS API Call via CloudTrail", "detail": {"eventName": "X"}}, UNKNOWN),
    ],
)
def test_every_shape_is_understood_bare_or_in_an_envelope(said: Any, notice: Notice, wrap: Any) -> None:
    assert parse(wrap(said if isinstance(said, str) else json.dumps(said))) == notice


def test_envelopes_do_not_go_on_for_ever() -> None:
    assert parse(envelope(envelope(envelope(json.dumps({"s3Bucket": "logs", "s3ObjectKey": LOG}))))) == UNKNOWN


def confirmation(
    topic: Any = TOPIC, url: Any = "https://sns.eu-west-1.amazonaws.com/?Action=Confirm", **more: Any
) -> str:
    said = {"Type": "SubscriptionConfirmation", "TopicArn": topic, "Token": "t", "SubscribeURL": url}
    return json.dumps(said | more)


@pytest.mark.parametrize(
    ("topic", "url"),
    [
        (TOPIC, "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"),
        ("arn:aws-cn:sns:cn-north-1:1:t", "https://sns.cn-north-1.amazonaws.com.cn/"),
        ("arn:aws-us-gov:sns:us-gov-west-1:1:t", "https://sns.us-gov-west-1.amazonaws.com/"),
    ],
)
def test_a_confirmation_is_taken_from_the_topic_s_own_region(topic: str, url: str) -> None:
    assert parse(confirmation(topic, url)) == Notice("confirmation", topic_arn=topic, token="t")


@pytest.mark.parametrize(
    ("topic", "url"),
    [
        (TOPIC, "http://sns.eu-west-1.amazonaws.com/"),
        (TOPIC, "https://sns.us-east-1.amazonaws.com/"),
        (TOPIC, "https://sns.eu-west-1.amazonaws.com.example.net/"),
        (TOPIC, "https://sns.eu-west-1.amazonaws.com@example.net/"),
        (TOPIC, "https://example.net/sns.eu-west-1.amazonaws.com"),
        (TOPIC, "https://sns.eu-west-1.amazonaws.com:8443/"),
        (TOPIC, "https://169.254.169.254/latest/meta-data/"),
        (TOPIC, "https://[sns.eu-west-1.amazonaws.com/"),
        (TOPIC, None),
        ("arn:aws:sqs:eu-west-1:1:t", "https://sns.eu-west-1.amazonaws.com/"),
        ("cloudtrail", "https://sns.eu-west-1.amazonaws.com/"),
        (None, "https://sns.eu-west-1.amazonaws.com/"),
    ],
)
def test_any_other_confirmation_is_not(topic: Any, url: Any) -> None:
    assert parse(confirmation(topic, url)) == UNKNOWN


def test_a_confirmation_without_a_token_is_not_and_a_farewell_is_told() -> None:
    assert parse(confirmation(Token=None)) == UNKNOWN
    assert parse(json.dumps({"Type": "UnsubscribeConfirmation", "TopicArn": TOPIC})).kind == "unsubscribed"


_names = [
    *("Type", "Message", "Records", "s3", "bucket", "object", "key", "name", "eventSource", "eventName"),
    *("s3Bucket", "s3ObjectKey", "source", "detail-type", "detail", "TopicArn", "SubscribeURL", "Token"),
]
_values = ["aws:s3", "aws.s3", "Object Created", "ObjectCreated:Put", "Notification", "SubscriptionConfirmation", LOG]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(_values),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_names), inner, max_size=5),
    max_leaves=12,
)


@given(_json.map(json.dumps) | st.text())
def test_nothing_in_a_message_raises(body: str) -> None:
    assert all(isinstance(part, str) and part for file in parse(body).files for part in file)


def test_published_examples_are_understood(shared_data: Path) -> None:
    folder = shared_data / "raw/s3_notifications"
    if not folder.is_dir():
        pytest.skip("no examples of notifications there")
    kinds: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        said = json.loads(path.read_text())
        records = said.get("Records", [])
        # Those of SQS and SNS are as Lambda gets them; the queue itself holds the inner part.
        bodies = [record["body"] for record in records if "body" in record]
        bodies += [json.dumps(record["Sns"]) for record in records if "Sns" in record]
        notices = [parse(body) for body in bodies or [json.dumps(said)]]
        kinds[path.stem] = [notice.kind for notice in notices]
        if "plus-key" in path.stem:
            assert notices[0].files == (("ct-siem-sync", "my+file.json.gz"),)
        if "urlencoded" in path.stem:
            assert notices[0].files == (("ct-siem-sync", "my file=a.json.gz"),)
    assert kinds.pop("sqs-batch-partial-garbage") == ["files", "unknown", "files"]
    counted = Counter(kind for found in kinds.values() for kind in found)
    assert set(counted) == {"files", "other_event", "test"}
    assert [kinds[name] for name in ("s3-test-event", "sns-s3-test-event")] == [["test"], ["test"]]
