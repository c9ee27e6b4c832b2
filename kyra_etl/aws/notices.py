"""What a message in the queue says: pure, and surprised by nothing.

| message                                   | kind           | what becomes of it                                      |
|-------------------------------------------|----------------|---------------------------------------------------------|
| CloudTrail's own, S3's, EventBridge's     | files          | hints; deleted when the ledger has them                 |
| S3's about objects deleted, restored …    | other_event    | deleted                                                 |
| S3's test event                           | test           | deleted                                                 |
| "CloudTrail validation message."          | validation     | deleted                                                 |
| SNS's request to confirm a subscription   | confirmation   | confirmed if it is for our topic, never by visiting it  |
| SNS's farewell                            | unsubscribed   | deleted, and counted: nothing more will come            |
| anything else                             | unknown        | stays, for the queue's own dead-letter policy           |

Each comes as it is or in an SNS envelope. A notice is only a hint: the file is looked up before anything is believed.
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/configure-sns-notifications-for-cloudtrail.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_plus, urlsplit

Kind = Literal["files", "other_event", "test", "validation", "confirmation", "unsubscribed", "unknown"]

VALIDATION = "CloudTrail validation message."

_ENVELOPES = 2
"""An SNS envelope in the message, and at most one more in that."""

_LONGEST_KEY = 1024


@dataclass(frozen=True, slots=True)
class Notice:
    """A message understood. `files` are (bucket, key); the last two are those of a confirmation."""

    kind: Kind
    files: tuple[tuple[str, str], ...] = ()
    topic_arn: str | None = None
    token: str | None = None


UNKNOWN = Notice("unknown")


def parse(body: str) -> Notice:
    """Understand a message's body. Never raises."""
    return _parse(body, _ENVELOPES)


def _parse(body: str, envelopes: int) -> Notice:
    if body.strip().strip('"') == VALIDATION:
        return Notice("validation")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return UNKNOWN
    if not isinstance(said, dict):
        return UNKNOWN
    match said:
        case {"Type": "Notification", "Message": str(inner)}:
            return _parse(inner, envelopes - 1) if envelopes else UNKNOWN
        case {"Type": "SubscriptionConfirmation"}:
            return _confirmation(said)
        case {"Type": "UnsubscribeConfirmation"}:
            return Notice("unsubscribed", topic_arn=str(said.get("TopicArn")))
        case {"s3Bucket": str(bucket), "s3ObjectKey": [*keys]}:
            return _files((bucket, key) for key in keys)
        case {"s3Bucket": str(bucket), "s3ObjectKey": key}:
            return _files([(bucket, key)])
        case {"Event": "s3:TestEvent"}:
            return Notice("test")
        case {"source": "aws.s3", "detail-type": "Object Created", "detail": dict(detail)}:
            # Keys are as they are here; S3's own events quote them.
            return _files([(_at(detail, "bucket", "name"), _at(detail, "object", "key"))])
        case {"source": "aws.s3", "detail-type": str()}:
            return Notice("other_event")
        case {"Records": [*records]} if records:
            return _records(records)
    return UNKNOWN


def _records(records: list[Any]) -> Notice:
    """S3's event notifications. A CloudTrail log file has `Records` too, of another kind."""
    if not all(isinstance(record, dict) and record.get("eventSource") == "aws:s3" for record in records):
        return UNKNOWN
    created = [record for record in records if str(record.get("eventName")).startswith("ObjectCreated:")]
    if not created:
        return Notice("other_event")
    named = ((_at(record, "s3", "bucket", "name"), _at(record, "s3", "object", "key")) for record in created)
    return _files((bucket, unquote_plus(key) if isinstance(key, str) else key) for bucket, key in named)


def _files(named: Any) -> Notice:
    """The files that are named well; a message that names another one badly is still not understood."""
    found = list(named)
    good = tuple(dict.fromkeys((bucket, key) for bucket, key in found if _is_name(bucket) and _is_name(key)))
    return Notice("files" if found and all(_is_name(part) for one in found for part in one) else "unknown", good)


def _confirmation(said: dict[str, Any]) -> Notice:
    """Only from SNS itself, in the topic's own region and partition."""
    topic, token, url = said.get("TopicArn"), said.get("Token"), said.get("SubscribeURL")
    if not (isinstance(topic, str) and isinstance(token, str) and isinstance(url, str) and token):
        return UNKNOWN
    parts = topic.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "sns":
        return UNKNOWN
    host = f"sns.{parts[3]}.amazonaws.com" + (".cn" if parts[1] == "aws-cn" else "")
    try:
        address = urlsplit(url)
        genuine = address.scheme == "https" and address.netloc == host
    except ValueError:
        return UNKNOWN
    return Notice("confirmation", topic_arn=topic, token=token) if genuine else UNKNOWN


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_KEY
