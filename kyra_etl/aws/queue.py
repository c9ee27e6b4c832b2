"""The queue of notices: SQS, and the subscription that fills it.

Whoever owns the queue is asked for by their own credentials: the role's if the queue is in the role's account, else
ours. The customer's topic is only ever subscribed to, by the owner of the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config

from kyra_etl.aws.mapping import translated
from kyra_etl.aws.policies import queue_arn
from kyra_etl.aws.session import Session
from kyra_etl.errors import CollectError, UsageError
from kyra_etl.model import Integration, Message

BATCH = 10
"""Messages that SQS hands over, or deletes, at a time."""

_SUBJECT = "the queue of notices"

_PAGES = 100
"""How many pages of subscriptions, of a hundred each, are looked through."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue's policy as text, None without one, and about how many messages wait."""

    policy: str | None
    messages: int


def open_queue(integration: Integration, *, endpoint_url: str | None = None) -> SqsQueue | None:
    """The integration's queue, if it has one; talks to nobody until it is used."""
    return SqsQueue(Session(integration, endpoint_url=endpoint_url)) if integration.queue_url else None


class SqsQueue:
    """The queue of a session's integration. Raises AccessError, TransientError or CollectError."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._url = session.integration.queue_url or ""
        self._region, self._account = queue_arn(self._url).split(":")[3:5]

    def __repr__(self) -> str:
        return f"SqsQueue({self.session.integration.name!r})"

    def receive(self, wait_seconds: int) -> list[Message]:
        """At most ten messages; waits for the first as long as told, at most 20 seconds."""
        with translated("ReceiveMessage", _SUBJECT, self.session.secrets):
            answer = self._client().receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=wait_seconds
            )
        return [Message(one["MessageId"], one["Body"], one["ReceiptHandle"]) for one in answer.get("Messages", ())]

    def delete(self, messages: Sequence[Message]) -> None:
        """Take messages out of the queue for good. One that cannot be deleted comes again, which does no harm."""
        with translated("DeleteMessage", _SUBJECT, self.session.secrets):
            for start in range(0, len(messages), BATCH):
                some = [
                    {"Id": str(number), "ReceiptHandle": message.receipt}
                    for number, message in enumerate(messages[start : start + BATCH])
                ]
                self._client().delete_message_batch(QueueUrl=self._url, Entries=some)

    def confirm(self, topic_arn: str, token: str) -> None:
        """Confirm a subscription with SNS in the topic's region, by token: no address out of a message is visited."""
        with translated("ConfirmSubscription", f"topic {topic_arn}", (*self.session.secrets, token)):
            client = boto3.Session(botocore_session=botocore.session.Session()).client(
                "sns",
                region_name=topic_arn.split(":")[3],
                endpoint_url=self.session.endpoint_url,
                config=Config(signature_version=UNSIGNED, connect_timeout=10, read_timeout=30),
            )
            client.confirm_subscription(TopicArn=topic_arn, Token=token)

    def subscribe(self) -> str:
        """Subscribe the queue to the integration's topic, in the topic's region; the subscription's ARN.

        Safe to repeat. Raises UsageError without a topic, or where the customer owns the queue and has to do it.
        """
        topic = self.session.integration.sns_topic_arn
        if topic is None:
            raise UsageError("The integration has no topic to subscribe the queue to.", "Add it with --sns-topic-arn.")
        if not self.is_ours:
            raise UsageError(
                "The queue belongs to the customer's account, where kyra-etl only reads.",
                "`kyra integration policy` prints the command that subscribes it.",
            )
        with translated("Subscribe", f"topic {topic}", self.session.secrets):
            client = self.session.own_client("sns", topic.split(":")[3])
            answer: str = client.subscribe(
                TopicArn=topic, Protocol="sqs", Endpoint=queue_arn(self._url), ReturnSubscriptionArn=True
            )["SubscriptionArn"]
        if not answer.startswith("arn:"):
            raise CollectError(f"Topic {topic} did not subscribe the queue.", "Ask the topic's owner.")
        return answer

    def state(self) -> QueueState:
        """Who may send to the queue, and how much waits in it. Needs sqs:GetQueueAttributes."""
        with translated("GetQueueAttributes", _SUBJECT, self.session.secrets):
            found = self._client().get_queue_attributes(
                QueueUrl=self._url, AttributeNames=["Policy", "ApproximateNumberOfMessages"]
            )
        held = found.get("Attributes", {})
        return QueueState(held.get("Policy"), int(held.get("ApproximateNumberOfMessages", 0)))

    def subscription(self) -> str | None:
        """The ARN of the queue's subscription to the topic, among ours; a word without "arn:" while it waits.

        Needs sns:ListSubscriptions on our side, and nothing of the customer's.
        """
        topic, queue = self.session.integration.sns_topic_arn or "", queue_arn(self._url)
        with translated("ListSubscriptions", "our subscriptions", self.session.secrets):
            pages = self.session.own_client("sns", topic.split(":")[3]).get_paginator("list_subscriptions").paginate()
            for page in islice(pages, _PAGES):
                for one in page["Subscriptions"]:
                    if (one["TopicArn"], one["Endpoint"]) == (topic, queue):
                        return str(one["SubscriptionArn"])
        return None

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to our side, not to the role's account."""
        role = self.session.integration.role_arn
        return role is None or role.split(":")[4] != self._account

    def _client(self) -> Any:
        if self.is_ours:
            return self.session.own_client("sqs", self._region)
        return self.session.client("sqs", self._region)
