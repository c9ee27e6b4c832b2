"""A queue of notices about what is delivered: some are lost, some come twice, some are garbage, all may come again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote_plus

from kyra_etl.errors import AccessError, KyraError, TransientError
from kyra_etl.model import Message
from tests.simulation.bucket import Delivery
from tests.simulation.process import Process

HIDDEN = timedelta(minutes=5)
"""How long a received message is kept from others; then it comes again, unless it was deleted."""

AT_ONCE = 10

ASKING: dict[str, Callable[[], KyraError]] = {
    "500": lambda: TransientError("SQS failed on its side."),
    "403": lambda: AccessError("The queue refuses."),
}


@dataclass
class _Notice:
    body: str
    due: datetime
    deleted: bool = False


class Notices:
    """What the queue holds, for all who ask it."""

    def __init__(self, bucket: str, deliveries: Iterable[Delivery], rng: random.Random) -> None:
        self.waiting: list[_Notice] = []
        for each in deliveries:
            for _ in range(rng.choice((0, 1, 1, 2))):
                body = _body(bucket, each.key, rng)
                self.waiting.append(_Notice(body, each.at + timedelta(seconds=rng.choice((0, 1, 90)))))


class SimQueue:
    """The queue as one process sees it."""

    def __init__(self, notices: Notices, process: Process) -> None:
        self._notices, self._process = notices, process

    def receive(self, wait_seconds: int) -> list[Message]:
        with self._process.stepping("receive"):
            self._process.fault("queue", ASKING)
            now = self._process.fate.timeline.now
            ready = [
                (number, each)
                for number, each in enumerate(self._notices.waiting)
                if not each.deleted and each.due <= now
            ][:AT_ONCE]
            for _, each in ready:
                each.due = now + HIDDEN
        return [Message(str(number), each.body, str(number)) for number, each in ready]

    def delete(self, messages: Sequence[Message]) -> None:
        with self._process.stepping("delete message"):
            self._process.fault("queue", ASKING)
            for message in messages:
                self._notices.waiting[int(message.id)].deleted = True

    def confirm(self, topic_arn: str, token: str) -> None:
        raise AssertionError("nobody asked for a subscription to be confirmed")


def _body(bucket: str, key: str, rng: random.Random) -> str:
    kind = rng.choices(("cloudtrail", "s3", "enveloped", "wrong", "garbage"), (5, 3, 3, 1, 1))[0]
    ours = json.dumps({"s3Bucket": bucket, "s3ObjectKey": [key]})
    if kind == "s3":
        record = {
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}},
        }
        return json.dumps({"Records": [record]})
    if kind == "enveloped":
        return json.dumps({"Type": "Notification", "Message": ours})
    if kind == "wrong":
        return json.dumps({"s3Bucket": bucket, "s3ObjectKey": [key.replace(".json", "-never.json"), key]})
    if kind == "garbage":
        return rng.choice(("CloudTrail validation message.", "{", '{"Event": "s3:TestEvent"}', key))
    return ours
