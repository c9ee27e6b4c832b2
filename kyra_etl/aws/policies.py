"""The documents that a customer puts in place: who may do what, and what each permission is for.

Pure. The default policy is all that collecting, `kyra check` and the initial sync need; `ADDITIONS` are the optional
permissions, each with its reason. Tests watch the wire: no other call is made with the customer's role.
`kyra_etl.aws.commands` and `kyra_etl.aws.templates` put the documents in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from kyra_etl.errors import UsageError
from kyra_etl.model import Integration

Document = Mapping[str, Any]

POLICY_NAME = "KYRAMDRCloudTrailReadOnly"
SENSOR = "KYRACloudSensor"
"""The role of our account under which kyra-etl runs: the one that the customer's role trusts."""

ROLE_NAME = "kyra-etl"
"""The customer's role, where the integration does not name one."""

BUCKET_ACTIONS = ("s3:GetObject", "s3:ListBucket")
TOPIC_ACTIONS = ("sns:Subscribe", "sns:ConfirmSubscription")
TRAIL_ACTIONS = ("cloudtrail:DescribeTrails", "cloudtrail:GetTrailStatus", "cloudtrail:LookupEvents")
DEFAULT_ACTIONS = frozenset((*BUCKET_ACTIONS, *TOPIC_ACTIONS, *TRAIL_ACTIONS))


@dataclass(frozen=True, slots=True)
class Addition:
    """A permission that the role can do without, and what is missing then."""

    sid: str
    actions: tuple[str, ...]
    reason: str


ADDITIONS: Mapping[str, Addition] = {
    "kms": Addition(
        "AllowLogFileDecryption",
        ("kms:Decrypt",),
        "Log files that are encrypted with a KMS key of yours cannot be read without it. The key's own policy has to"
        " allow it too.",
    ),
    "event-selectors": Addition(
        "AllowEventSelectors",
        ("cloudtrail:GetEventSelectors",),
        "`kyra check` then sees whether the trail records all management events. A trail that leaves out writes hides"
        " what attackers do.",
    ),
    "public-keys": Addition(
        "AllowDigestPublicKeys",
        ("cloudtrail:ListPublicKeys",),
        "CloudTrail signs its digest files. Whoever wants to prove that no log file was altered needs its public keys.",
    ),
    "queue": Addition(
        "AllowNotices",
        ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
        "Only for a queue of notices in the role's own account: messages are received, then deleted.",
    ),
}
CHOSEN = ("event-selectors", "public-keys")
"""The additions a user chooses; the others follow from the trail's key and the queue."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the documents name. Templates put references of their own in."""

    partition: str
    bucket: str
    folder: str = ""
    """What stands before AWSLogs/, with its slash."""
    topic_arn: str | None = None
    queue_arn: str | None = None
    key_arns: tuple[str, ...] = ()
    additions: tuple[str, ...] = ()


def terms(integration: Integration, kms_key_arns: Sequence[str] = ()) -> Terms:
    """The integration's own names. The queue counts only if it is in the role's account."""
    theirs = queue_arn(integration.queue_url) if integration.queue_url else None
    role_account = (integration.role_arn or "::::").split(":")[4]
    return Terms(
        partition=partition_of(integration),
        bucket=integration.bucket,
        folder=_literal(f"{integration.prefix}/" if integration.prefix else ""),
        topic_arn=integration.sns_topic_arn,
        queue_arn=theirs if theirs and theirs.split(":")[4] == role_account else None,
        key_arns=tuple(kms_key_arns),
        additions=integration.additions,
    )


def documents(
    integration: Integration, *, trusted: str | None = None, kms_key_arns: Sequence[str] = ()
) -> dict[str, Document]:
    """Every document the integration needs, by name: permissions, trust, key, topic, queue, queue-attributes.

    `trusted` is who assumes the role: the account kyra-etl runs in, or an ARN; without it there is no trust policy.
    `kms_key_arns` are the keys that encrypt the log files (the trails' `kms_key_id`). The trust policy holds the
    external id in the clear. Raises UsageError.
    """
    found: dict[str, Document] = {"permissions": permission_policy(integration, kms_key_arns=kms_key_arns)}
    if trusted is not None:
        found["trust"] = trust_policy(integration, trusted)
    if kms_key_arns:
        found["key"] = key_statement(integration)
    if integration.sns_topic_arn is not None:
        found["topic"] = topic_policy(integration)
    if integration.queue_url is not None and integration.sns_topic_arn is not None:
        found["queue"] = queue_policy(integration)
        # The form that `aws sqs set-queue-attributes` takes: the policy as text inside a map.
        found["queue-attributes"] = {"Policy": json.dumps(found["queue"])}
    return found


def permission_policy(integration: Integration, *, kms_key_arns: Sequence[str] = ()) -> Document:
    """What the role may do: read log files, subscribe to the topic if there is one, look at trails; and additions."""
    return policy(*statements(terms(integration, kms_key_arns)))


def statements(names: Terms) -> list[Document]:
    """The statements of the permission policy, the default ones first."""
    bucket = f"arn:{names.partition}:s3:::{names.bucket}"
    found = [_allow("AllowCloudTrailBucketAccess", BUCKET_ACTIONS, [bucket, f"{bucket}/{names.folder}AWSLogs/*"])]
    if names.topic_arn is not None:
        found.append(_allow("AllowSNSSubscription", TOPIC_ACTIONS, names.topic_arn))
    found.append(_allow("AllowCloudTrailDescribe", TRAIL_ACTIONS, "*"))  # these know no narrower resource
    if names.key_arns:
        found.append(_added("kms", list(names.key_arns)))
    found += [_added(name, "*") for name in CHOSEN if name in names.additions]
    if names.queue_arn is not None:
        found.append(_added("queue", names.queue_arn))
    return found


def trust_policy(integration: Integration, trusted: str) -> Document:
    """Who may assume the role, and only with the external id: an ARN, or role KYRACloudSensor of an account."""
    if integration.external_id is None:
        raise UsageError(
            f"Integration {integration.name} has no external id, so its role's trust could not be tied to it.",
            "Add it again: without --external-id one is made.",
        )
    account = re.fullmatch(r"[0-9]{12}", trusted) is not None
    principal = f"arn:{partition_of(integration)}:iam::{trusted}:role/{SENSOR}" if account else trusted
    return trust(principal, integration.external_id)


def trust(principal: str, external_id: str) -> Document:
    """The trust policy itself."""
    return policy(
        {
            "Sid": "AssumeWithExternalId",
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
        }
    )


def key_statement(integration: Integration) -> Document:
    """To be added to the policy of the KMS key: the role may decrypt. "*" means the key itself there."""
    account = integration.account_id or "ACCOUNT"
    role = integration.role_arn or f"arn:{partition_of(integration)}:iam::{account}:role/{ROLE_NAME}"
    return {
        "Sid": ADDITIONS["kms"].sid,
        "Effect": "Allow",
        "Principal": {"AWS": role},
        "Action": list(ADDITIONS["kms"].actions),
        "Resource": "*",
    }


def topic_policy(integration: Integration) -> Document:
    """The SNS topic's policy: CloudTrail may publish, and a queue of another account may be subscribed by its owner."""
    topic = integration.sns_topic_arn or ""
    owner = topic.split(":")[4]
    trails = f"arn:{partition_of(integration)}:cloudtrail:*:{integration.account_id or owner}:trail/*"
    found = [
        _service("CloudTrailPublishes", "cloudtrail.amazonaws.com", "sns:Publish", topic, "ArnLike", trails),
    ]
    if integration.queue_url is not None:
        queue_owner = queue_arn(integration.queue_url).split(":")[4]
        if queue_owner != owner:
            found.append(
                {
                    "Sid": "QueueOwnerSubscribes",
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:{partition_of(integration)}:iam::{queue_owner}:root"},
                    "Action": "sns:Subscribe",
                    "Resource": topic,
                    "Condition": {"StringEquals": {"sns:Protocol": "sqs"}},
                }
            )
    return policy(*found)


def queue_policy(integration: Integration) -> Document:
    """The SQS queue's policy: the topic may send, nobody else."""
    queue, topic = queue_arn(integration.queue_url or ""), integration.sns_topic_arn or ""
    return policy(_service("TopicSends", "sns.amazonaws.com", "sqs:SendMessage", queue, "ArnEquals", topic))


def lets_send(document: str | None, service: str | None, source_arn: str | None) -> bool:
    """Whether a queue's policy lets a service send for that source; with None, any service for any source."""
    try:
        found = json.loads(document or "{}").get("Statement", [])
    except (ValueError, AttributeError):
        return False
    return any(_lets_send(one, service, source_arn) for one in (found if isinstance(found, list) else [found]))


def _lets_send(statement: Document, service: str | None, source_arn: str | None) -> bool:
    principal = statement.get("Principal")
    who = (
        _listed(principal.get("Service")) + _listed(principal.get("AWS"))
        if isinstance(principal, dict)
        else [principal]
    )
    actions = [str(one).lower() for one in _listed(statement.get("Action"))]
    if statement.get("Effect") != "Allow" or not {"sqs:sendmessage", "sqs:*", "*"} & set(actions):
        return False
    if service is None:
        return True
    sources = [
        pattern
        for condition in (statement.get("Condition") or {}).values()
        for key, patterns in condition.items()
        if key.lower() == "aws:sourcearn"
        for pattern in _listed(patterns)
    ]
    welcome = {"*", service} & set(who)
    return bool(welcome) and (not sources or any(fnmatchcase(source_arn or "", one) for one in sources))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def bucket_policy(names: Terms, trail_arn: str, owners: Sequence[str]) -> Document:
    """The policy of a trail's bucket: CloudTrail writes below AWSLogs/ of these accounts and organizations."""
    bucket, service = f"arn:{names.partition}:s3:::{names.bucket}", "cloudtrail.amazonaws.com"
    write = _service("AWSCloudTrailWrite", service, "s3:PutObject", "", "StringEquals", trail_arn)
    ours = {"aws:SourceArn": trail_arn, "s3:x-amz-acl": "bucket-owner-full-control"}
    folders = [f"{bucket}/{names.folder}AWSLogs/{owner}/*" for owner in owners]
    return policy(
        _service("AWSCloudTrailAclCheck", service, "s3:GetBucketAcl", bucket, "StringEquals", trail_arn),
        {**write, "Resource": folders if len(folders) > 1 else folders[0], "Condition": {"StringEquals": ours}},
    )


def selectors(names: Terms) -> list[Document]:
    """Advanced event selectors: all management events, and data events of S3 objects and functions.

    The log bucket itself is left out: its own deliveries would be recorded without end.
    """
    bucket = f"arn:{names.partition}:s3:::{names.bucket}/"
    data = {"Field": "eventCategory", "Equals": ["Data"]}
    objects = [data, {"Field": "resources.type", "Equals": ["AWS::S3::Object"]}]
    functions = [data, {"Field": "resources.type", "Equals": ["AWS::Lambda::Function"]}]
    return [
        {"Name": "Management events", "FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]},
        {
            "Name": "S3 objects outside the log bucket",
            "FieldSelectors": [*objects, {"Field": "resources.ARN", "NotStartsWith": [bucket]}],
        },
        {"Name": "Lambda invocations", "FieldSelectors": functions},
    ]


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


def role_of(integration: Integration) -> tuple[str, str]:
    """Path and name of the integration's role, or of the one to make."""
    if integration.role_arn is None:
        return "/", ROLE_NAME
    before, _, name = integration.role_arn.split(":role", 1)[1].rpartition("/")
    return f"{before}/", name


def policy(*found: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(found)}


def _literal(text: str) -> str:
    """Text that IAM takes as it is, not as a pattern."""
    return re.sub(r"[*?$]", lambda found: f"${{{found[0]}}}", text)


def _added(name: str, resource: object) -> Document:
    return _allow(ADDITIONS[name].sid, ADDITIONS[name].actions, resource)


def _allow(sid: str, actions: Sequence[str], resource: object) -> Document:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}


def _service(sid: str, service: str, action: str, resource: str, how: str, source_arn: str) -> Document:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": action,
        "Resource": resource,
        "Condition": {how: {"aws:SourceArn": source_arn}},
    }
