"""Notices over HTTP: topic → queue → hints → lake, with everything that goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from kyra_etl import hints
from kyra_etl.aws import policies
from kyra_etl.aws.bucket import open_bucket
from kyra_etl.aws.queue import SqsQueue, open_queue
from kyra_etl.aws.session import Session
from kyra_etl.errors import AccessError, CollectError, TransientError, UsageError
from kyra_etl.lake import open_lake
from kyra_etl.model import Integration, Limits, Message, RunReport
from kyra_etl.state import State
from kyra_etl.sync import sync
from tests.aws.conftest import BUCKET, CUSTOMER, Answer, Customer, utc_now
from tests.aws.test_notices import confirmation, envelope, event_bridge, s3_event
from tests.wire import Wire

OURS = "123456789012"
TODAY = utc_now().date()


def key(number: int, back: int = 0) -> str:
    day = TODAY - timedelta(days=back)
    folder = f"AWSLogs/{CUSTOMER}/CloudTrail/eu-west-1/{day:%Y/%m/%d}"
    return f"{folder}/{CUSTOMER}_CloudTrail_eu-west-1_{day:%Y%m%d}T{number:04d}Z_AbCdEfGhIjKlMnOp.json.gz"


def notice(*keys: str, bucket: str = BUCKET) -> str:
    """CloudTrail's own message."""
    return json.dumps({"s3Bucket": bucket, "s3ObjectKey": list(keys)})


class House:
    """The customer's bucket and topic, our queue, one lake and one state."""

    def __init__(self, customer: Customer, integration: Integration, tmp_path: Path) -> None:
        self.customer = customer
        self.sqs = boto3.client("sqs", region_name="us-east-1")
        self.url: str = self.sqs.create_queue(QueueName="notices", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
        self.sns = customer.client("sns", "eu-west-1")
        topic = self.sns.create_topic(Name="cloudtrail")["TopicArn"]
        self.integration = replace(integration, sns_topic_arn=topic, queue_url=self.url)
        self.state = State.open(f"sqlite:///{tmp_path}/state.db")
        self.lake = open_lake(str(tmp_path / "lake"))

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def left(self) -> int:
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages"])
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    def sync(self, **more: Any) -> RunReport:
        parts: dict[str, Any] = {"bucket": open_bucket(self.integration), "queue": open_queue(self.integration)}
        return sync(
            self.integration,
            **parts | more,
            lake=self.lake,
            state=self.state,
            corpus=None,
            limits=Limits(),
            clock=utc_now,
        )


@pytest.fixture
def house(
    customer: Customer, integration: Integration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    monkeypatch.setattr(hints, "WAIT_SECONDS", 0)
    made = House(customer, integration, tmp_path)
    yield made
    made.state.close()


def test_what_a_notice_names_is_loaded_as_hinted_and_what_none_names_as_listed(house: House) -> None:
    house.customer.put(key(100), key(105), key(110), key(115), key(120))
    house.send(
        notice(key(100)),
        envelope(notice(key(105))),
        json.dumps({"Records": [s3_event(key(110).replace("/", "%2F"), bucket=BUCKET)]}),
    )

    report = house.sync()

    assert (report.hinted, report.listed, report.loaded) == (3, 2, 5)
    assert report.notices == {"files": 3}
    assert house.left() == 0
    assert (house.sync().hinted, house.sync().already_loaded) == (0, 5)


def test_one_lost_twice_told_or_wrong_changes_nothing_in_the_lake(house: House) -> None:
    house.customer.put(key(100), key(105))
    bridged = event_bridge(key(100))
    bridged["detail"]["bucket"]["name"] = BUCKET
    house.send(
        notice(key(100)),
        notice(key(100), key(100)),
        json.dumps(bridged),
        notice(key(2359)),  # never was there
        notice(key(105), bucket="somebody-elses"),
        notice(key(105).replace("/CloudTrail/", "/CloudTrail-Digest/")),
        notice("other/prefix/AWSLogs/../x.json.gz"),
        "CloudTrail validation message.",
        json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"}),
    )

    report = house.sync()

    assert (report.hinted, report.loaded, report.pending, report.gone) == (1, 2, 0, 0)
    assert report.notices == {"files": 7, "test": 1, "validation": 1}
    assert house.left() == 0
    house.send(notice(key(100)))
    assert (house.sync().hinted, house.left()) == (0, 0), "loaded already: nothing to hint at"


def test_what_is_not_understood_stays_for_the_dead_letter_queue_and_is_counted(house: House) -> None:
    house.customer.put(key(100))
    garbage = ["{{{", json.dumps({"Records": [{"eventName": "CreateUser"}]}), confirmation("arn:aws:sns:eu-west-1:1:x")]
    house.send(*garbage, notice(key(100)))

    report = house.sync()

    assert report.notices == {"files": 1, "unknown": 3}
    assert (report.hinted, house.left()) == (1, 3)


def test_a_late_file_that_a_notice_names_need_not_wait_for_the_sweep(house: House) -> None:
    house.customer.put(*(key(100, back) for back in range(12)))
    house.sync()
    late = key(1, 9)
    house.customer.put(late)
    house.send(notice(late))

    assert house.sync().hinted == 1


class Crash(BaseException):
    """The process was killed."""


def test_a_message_is_deleted_only_when_the_ledger_has_what_it_names(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.customer.put(key(100))
    house.send(notice(key(100)))

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    with monkeypatch.context() as broken:
        broken.setattr(house.state.ledger, "observe", crash)
        with pytest.raises(Crash):
            house.sync()
    assert house.left() == 1
    with monkeypatch.context() as broken:
        broken.setattr(SqsQueue, "delete", crash)
        with pytest.raises(Crash):
            house.sync()
    assert (house.left(), house.state.ledger.counts(house.integration.name)["pending"]) == (1, 1)

    report = house.sync()

    assert (report.loaded, report.carried + report.hinted, house.left()) == (1, 1, 0)


def test_what_cannot_be_looked_up_now_comes_again(house: House) -> None:
    house.customer.put(key(100), key(100, 1))
    house.send(notice(key(100)), notice(key(100, 1)))
    bucket = open_bucket(house.integration)
    files = bucket.files

    def refused(prefix: str, start_after: str = "") -> Any:
        if prefix.endswith(f"{TODAY:%Y/%m/%d}/"):
            raise TransientError("S3 asks us to slow down.")
        return files(prefix, start_after)

    bucket.files = refused  # type: ignore[method-assign]
    with pytest.raises(TransientError):
        house.sync(bucket=bucket)

    assert house.left() == 1
    (run,) = house.state.runs.recent()
    assert (run["state"], run["report"]["hinted"], run["report"]["loaded"]) == ("failed", 1, 2), "listing found both"
    assert house.sync().notices == {"files": 1}


def test_a_queue_that_fails_keeps_nothing_from_being_listed(house: House) -> None:
    house.customer.put(key(100))
    house.sqs.delete_queue(QueueUrl=house.url)

    with pytest.raises(CollectError, match="queue of notices does not exist") as error:
        house.sync()

    assert house.url not in str(error.value)
    assert house.state.ledger.counts(house.integration.name)["loaded"] == 1


def test_many_notices_of_one_folder_cost_one_request(house: House, wire: Wire) -> None:
    house.customer.put(*(key(number) for number in range(100, 140)))
    house.send(*(notice(key(number)) for number in range(100, 140)))
    house.sqs.set_queue_attributes(QueueUrl=house.url, Attributes={"VisibilityTimeout": "30"})
    wire.calls.clear()
    run_id = house.state.runs.start("sync", house.integration.name, utc_now())
    queue = open_queue(house.integration)
    assert queue is not None

    heard = hints.take_notices(
        run_id, house.integration, queue, bucket=open_bucket(house.integration), state=house.state, clock=utc_now
    )

    assert (heard.hinted, heard.missing, heard.requests) == (40, 0, 1)
    assert wire.actions.count("s3:ListBucket") == 2, "one tells the region"
    assert wire.actions.count("sqs:DeleteMessage") == 4
    assert set(wire.actions) <= policies.DEFAULT_ACTIONS | {"sts:AssumeRole", *policies.ADDITIONS["queue"].actions}


# ── who asks, and the subscription ──


@pytest.mark.additions("queue")
def test_our_queue_is_asked_as_ourselves_and_the_customer_s_as_the_role(house: House, wire: Wire) -> None:
    wire.calls.clear()
    assert open_queue(house.integration).receive(0) == []  # type: ignore[union-attr]
    assert wire.actions == ["sqs:ReceiveMessage"]

    theirs = house.customer.client("sqs").create_queue(QueueName="theirs")["QueueUrl"]
    assert f"/{CUSTOMER}/" in theirs
    wire.calls.clear()
    assert open_queue(replace(house.integration, queue_url=theirs)).receive(0) == []  # type: ignore[union-attr]
    assert wire.actions == ["sts:AssumeRole", "sqs:ReceiveMessage"]


def test_the_queue_is_subscribed_in_the_topic_s_region_and_hears_of_files(house: House) -> None:
    # The look-alike carries messages within one account only: here the topic is ours, too.
    sns = boto3.client("sns", region_name="eu-west-1")
    topic = sns.create_topic(Name="cloudtrail")["TopicArn"]
    house.integration = replace(house.integration, sns_topic_arn=topic)
    queue = SqsQueue(Session(house.integration))
    arn = queue.subscribe()
    assert arn.startswith(f"{topic}:")
    assert queue.subscribe() == arn

    house.customer.put(key(100))
    sns.publish(TopicArn=topic, Message=notice(key(100)))

    assert house.sync().hinted == 1


def test_a_customer_s_topic_is_subscribed_to_by_ourselves(house: House, wire: Wire) -> None:
    wire.calls.clear()
    assert SqsQueue(Session(house.integration)).subscribe().startswith(f"{house.integration.sns_topic_arn}:")
    assert wire.actions == ["sns:Subscribe"]


def test_only_a_queue_of_ours_is_subscribed_and_only_to_a_topic(house: House) -> None:
    with pytest.raises(UsageError, match="no topic"):
        SqsQueue(Session(replace(house.integration, sns_topic_arn=None))).subscribe()
    theirs = replace(house.integration, queue_url=f"https://sqs.eu-west-1.amazonaws.com/{CUSTOMER}/logs")
    with pytest.raises(UsageError, match="belongs to the customer"):
        SqsQueue(Session(theirs)).subscribe()
    nowhere = replace(house.integration, sns_topic_arn=f"arn:aws:sns:eu-west-1:{CUSTOMER}:nowhere")
    with pytest.raises(CollectError, match="does not exist"):
        SqsQueue(Session(nowhere)).subscribe()


def test_a_subscription_to_our_topic_is_confirmed_by_token_and_no_address_is_visited(
    house: House, scripted: Callable[[Callable[[str, str], Answer]], str]
) -> None:
    asked: list[tuple[str, str]] = []

    def answer(method: str, path: str) -> Answer:
        asked.append((method, path))
        body = "<ConfirmSubscriptionResponse><ConfirmSubscriptionResult/></ConfirmSubscriptionResponse>"
        return Answer(body=body.encode())

    topic = str(house.integration.sns_topic_arn)
    queue = SqsQueue(Session(house.integration, endpoint_url=scripted(answer)))
    queue.receive = lambda wait: messages.pop() if messages else []  # type: ignore[method-assign]
    deleted: list[str] = []
    queue.delete = lambda some: deleted.extend(one.id for one in some)  # type: ignore[method-assign]
    messages = [[Message("other", confirmation(topic.replace(CUSTOMER, OURS)))], [Message("mine", confirmation(topic))]]
    run_id = house.state.runs.start("sync", house.integration.name, utc_now())

    heard = hints.take_notices(
        run_id, house.integration, queue, bucket=open_bucket(house.integration), state=house.state, clock=utc_now
    )

    assert heard.kinds == {"confirmation": 1, "unknown": 1}
    assert asked == [("POST", "/")]
    assert deleted == ["mine"]


def test_a_refusal_is_told_without_the_queue_s_address(
    house: House, scripted: Callable[[Callable[[str, str], Answer]], str]
) -> None:
    denied = json.dumps({"__type": "com.amazonaws.sqs#AccessDenied", "message": f"no access to {house.url}"})
    url = scripted(lambda method, path: Answer(403, body=denied.encode()))
    with pytest.raises(AccessError, match="sqs:ReceiveMessage is denied") as error:
        SqsQueue(Session(house.integration, endpoint_url=url)).receive(0)
    assert house.url not in f"{error.value} {SqsQueue(Session(house.integration))!r}"


def test_an_integration_without_a_queue_has_none(integration: Integration) -> None:
    assert open_queue(integration) is None
