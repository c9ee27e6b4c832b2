"""What a customer puts in place for an integration: policy documents and the aws-cli commands that apply them.

Pure. `ACTIONS` is the promise: kyra-etl makes no other calls on the customer's side (tests watch the wire for it).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kyra_etl.errors import UsageError
from kyra_etl.model import Integration

Document = Mapping[str, Any]

BUCKET_ACTIONS = ("s3:ListBucket",)
OBJECT_ACTIONS = ("s3:GetObject",)
TRAIL_ACTIONS = ("cloudtrail:DescribeTrails", "cloudtrail:GetTrailStatus", "cloudtrail:LookupEvents")
KEY_ACTIONS = ("kms:Decrypt",)
QUEUE_ACTIONS = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
ACTIONS = frozenset((*BUCKET_ACTIONS, *OBJECT_ACTIONS, *TRAIL_ACTIONS, *KEY_ACTIONS, *QUEUE_ACTIONS))

ROLE_NAME = "kyra-etl"
POLICY_NAME = "kyra-etl-read"


def documents(
    integration: Integration, *, trusted: str | None = None, kms_key_arns: Sequence[str] = ()
) -> dict[str, Document]:
    """Every document the integration needs, by name: permissions, trust, topic, queue, queue-attributes.

    `trusted` is who assumes the role: the account kyra-etl runs in, or an ARN; without it there is no trust policy.
    `kms_key_arns` are the keys that encrypt the log files (the trails' `kms_key_id`). The trust policy holds the
    external id in the clear. Raises UsageError.
    """
    found: dict[str, Document] = {"permissions": permission_policy(integration, kms_key_arns=kms_key_arns)}
    if trusted is not None:
        found["trust"] = trust_policy(integration, trusted)
    if integration.sns_topic_arn is not None:
        found["topic"] = topic_policy(integration)
    if integration.queue_url is not None and integration.sns_topic_arn is not None:
        found["queue"] = queue_policy(integration)
        # The form that `aws sqs set-queue-attributes` takes: the policy as text inside a map.
        found["queue-attributes"] = {"Policy": json.dumps(found["queue"])}
    return found


def permission_policy(integration: Integration, *, kms_key_arns: Sequence[str] = ()) -> Document:
    """What the role may do: list and read log files, look at trails; decrypt and take notices where there are any."""
    partition, root = partition_of(integration), _literal(f"{integration.prefix}/AWSLogs/".lstrip("/"))
    bucket = f"arn:{partition}:s3:::{integration.bucket}"
    statements = [
        _allow("ListLogFiles", BUCKET_ACTIONS, bucket, {"StringLike": {"s3:prefix": f"{root}*"}}),
        _allow("ReadLogFiles", OBJECT_ACTIONS, f"{bucket}/{root}*"),
        _allow("SeeTrails", TRAIL_ACTIONS, "*"),  # CloudTrail has no narrower resource for these
    ]
    if kms_key_arns:
        statements.append(_allow("DecryptLogFiles", KEY_ACTIONS, list(kms_key_arns)))
    if integration.queue_url is not None:
        statements.append(_allow("TakeNotices", QUEUE_ACTIONS, queue_arn(integration.queue_url)))
    return _policy(*statements)


def trust_policy(integration: Integration, trusted: str) -> Document:
    """Who may assume the role: `trusted` (an account id or an ARN), and only with the external id."""
    if integration.external_id is None:
        raise UsageError(
            f"Integration {integration.name} has no external id, so its role's trust could not be tied to it.",
            "Add it again: without --external-id one is made.",
        )
    account = re.fullmatch(r"[0-9]{12}", trusted) is not None
    principal = f"arn:{partition_of(integration)}:iam::{trusted}:root" if account else trusted
    return _policy(
        {
            "Sid": "AssumeWithExternalId",
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": integration.external_id}},
        }
    )


def topic_policy(integration: Integration) -> Document:
    """The SNS topic's policy: CloudTrail may publish, and a queue of another account may be subscribed by its owner."""
    topic = integration.sns_topic_arn or ""
    owner = topic.split(":")[4]
    trails = f"arn:{partition_of(integration)}:cloudtrail:*:{integration.account_id or owner}:trail/*"
    statements = [
        _service("CloudTrailPublishes", "cloudtrail.amazonaws.com", "sns:Publish", topic, "ArnLike", trails),
    ]
    if integration.queue_url is not None:
        queue_owner = queue_arn(integration.queue_url).split(":")[4]
        if queue_owner != owner:
            statements.append(
                {
                    "Sid": "QueueOwnerSubscribes",
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:{partition_of(integration)}:iam::{queue_owner}:root"},
                    "Action": "sns:Subscribe",
                    "Resource": topic,
                    "Condition": {"StringEquals": {"sns:Protocol": "sqs"}},
                }
            )
    return _policy(*statements)


def queue_policy(integration: Integration) -> Document:
    """The SQS queue's policy: the topic may send, nobody else."""
    queue, topic = queue_arn(integration.queue_url or ""), integration.sns_topic_arn or ""
    return _policy(_service("TopicSends", "sns.amazonaws.com", "sqs:SendMessage", queue, "ArnEquals", topic))


def commands(integration: Integration, wanted: Mapping[str, Document]) -> list[str]:
    """Shell commands that put `documents(...)` in place, one string each, to be pasted in this order.

    The first ones write the documents to files in the current folder.
    """
    path, name = _role(integration)
    lines = [f"cat > {what}.json <<'JSON'\n{json.dumps(wanted[what], indent=2)}\nJSON" for what in _files(wanted)]
    if "trust" in wanted:
        with_path = "" if path == "/" else f" --path {shlex.quote(path)}"
        lines.append(
            f"aws iam create-role --role-name {name}{with_path} --assume-role-policy-document file://trust.json"
        )
    lines.append(
        f"aws iam put-role-policy --role-name {name} --policy-name {POLICY_NAME}"
        " --policy-document file://permissions.json"
    )
    topic = shlex.quote(integration.sns_topic_arn or "")
    if "topic" in wanted:
        lines.append(
            f"aws sns set-topic-attributes --topic-arn {topic} --attribute-name Policy"
            " --attribute-value file://topic.json"
        )
    if "queue" in wanted:
        url = integration.queue_url or ""
        lines.append(
            f"aws sqs set-queue-attributes --queue-url {shlex.quote(url)} --attributes file://queue-attributes.json"
        )
        lines.append(
            f"aws sns subscribe --region {(integration.sns_topic_arn or '').split(':')[3]} --topic-arn {topic}"
            f" --protocol sqs --notification-endpoint {queue_arn(url)}"
        )
    return lines


def partition_of(integration: Integration) -> str:
    """The AWS partition the integration lives in: aws, aws-us-gov or aws-cn."""
    for arn in (integration.role_arn, integration.sns_topic_arn):
        if arn:
            return arn.split(":")[1]
    region = integration.region or ""
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    return "aws-cn" if region.startswith("cn-") else "aws"


def queue_arn(url: str) -> str:
    """The ARN of a queue: ("https://sqs.eu-west-1.amazonaws.com/111122223333/logs") → "arn:aws:sqs:eu-west-1:…"."""
    account, name = url.rstrip("/").rsplit("/", 2)[1:]
    host = re.search(r"//(?:sqs(?:-fips)?\.)?([a-z]{2,4}(?:-[a-z]+)+-\d)\.", url)
    region = host[1] if host else "us-east-1"  # the oldest form has no region: https://queue.amazonaws.com/…
    partition = "aws-us-gov" if region.startswith("us-gov-") else "aws-cn" if region.startswith("cn-") else "aws"
    return f"arn:{partition}:sqs:{region}:{account}:{name}"


def _role(integration: Integration) -> tuple[str, str]:
    """Path and name of the integration's role, or of the one to make."""
    if integration.role_arn is None:
        return "/", ROLE_NAME
    before, _, name = integration.role_arn.split(":role", 1)[1].rpartition("/")
    return f"{before}/", name


def _literal(text: str) -> str:
    """Text that IAM takes as it is, not as a pattern."""
    return re.sub(r"[*?$]", lambda found: f"${{{found[0]}}}", text)


def _files(wanted: Mapping[str, Document]) -> list[str]:
    return [name for name in wanted if name != "queue" or "queue-attributes" not in wanted]


def _policy(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(sid: str, actions: Sequence[str], resource: object, condition: Document | None = None) -> Document:
    statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})


def _service(sid: str, service: str, action: str, resource: str, how: str, source_arn: str) -> Document:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": action,
        "Resource": resource,
        "Condition": {how: {"aws:SourceArn": source_arn}},
    }
