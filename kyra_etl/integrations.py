"""Make an Integration of what a user gives, or say which value is wrong and what a right one looks like.

External ids and queue URLs are never repeated in an error.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from kyra_etl.aws.policies import CHOSEN
from kyra_etl.errors import UsageError
from kyra_etl.folder import FolderBucket
from kyra_etl.model import Integration

RESERVED = "local"
"""The name `kyra load` uses for local files."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_PARTITION = r"(?:aws|aws-us-gov|aws-cn)"
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]")
_ROLE = re.compile(rf"arn:{_PARTITION}:iam::([0-9]{{12}}):role/(?:[!-.0-~]+/)*[A-Za-z0-9+=,.@_-]{{1,64}}")
_TOPIC = re.compile(rf"arn:{_PARTITION}:sns:{_REGION.pattern}:[0-9]{{12}}:[A-Za-z0-9_-]{{1,256}}")
_QUEUE_HOST = (
    rf"https://(?:sqs(?:-fips)?\.{_REGION.pattern}\.amazonaws\.com(?:\.cn)?"
    rf"|(?:{_REGION.pattern}\.)?queue\.amazonaws\.com(?:\.cn)?)"
)
_LOCAL_HOST = r"http://(?:localhost|127\.0\.0\.1)(?::[0-9]+)?"
_QUEUE = re.compile(rf"(?:{_QUEUE_HOST}|{_LOCAL_HOST})/[0-9]{{12}}/[A-Za-z0-9_-]{{1,80}}(?:\.fifo)?/?")
_BUCKET = re.compile(r"(?!xn--|sthree-)(?!.*(?:\.\.|-\.|\.-))(?![0-9.]+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")
_ORGANIZATION = re.compile(r"o-[a-z0-9]{10,32}")
_MAX_PREFIX = 200


def make_integration(
    name: str,
    *,
    bucket: str,
    now: datetime,
    account_id: str | None = None,
    role_arn: str | None = None,
    external_id: str | None = None,
    region: str | None = None,
    prefix: str | None = None,
    sns_topic_arn: str | None = None,
    queue_url: str | None = None,
    organization_id: str | None = None,
    additions: Sequence[str] = (),
) -> Integration:
    """A valid integration, created `now` (naive UTC). Raises UsageError, with an example of a right value.

    Empty texts count as not given. Without `external_id` one is made; without `account_id` the role's account is taken.
    `bucket` may be `file:///folder`, which then needs nothing else. `additions` are of
    `kyra_etl.aws.policies.CHOSEN`: optional permissions that the role has.
    """
    role_arn, region = role_arn or None, region or None
    _must(_NAME, name, "NAME", "lower-case letters, digits, - and _", "production")
    if name == RESERVED:
        raise UsageError(f"The name {RESERVED!r} is kept for local files.", "Choose another, for example production.")
    if bucket.startswith("file:"):
        return _folder(
            name,
            bucket,
            account_id,
            now,
            {
                "--role-arn": role_arn,
                "--external-id": external_id,
                "--region": region,
                "--sns-topic-arn": sns_topic_arn,
                "--queue-url": queue_url,
                "--organization": organization_id,
                "--also": ", ".join(additions),
            },
            prefix,
        )
    _check_bucket(bucket)
    if account_id:
        _must(_ACCOUNT, account_id, "--account-id", "12 digits", "012345678901")
    if role_arn:
        _must(_ROLE, role_arn, "--role-arn", "the ARN of an IAM role", "arn:aws:iam::012345678901:role/kyra-etl")
    if region:
        _must(_REGION, region, "--region", "an AWS region", "eu-west-1")
    if sns_topic_arn:
        example = "arn:aws:sns:eu-west-1:012345678901:cloudtrail"
        _must(_TOPIC, sns_topic_arn, "--sns-topic-arn", "the ARN of an SNS topic", example)
    if organization_id:
        _must(_ORGANIZATION, organization_id, "--organization", "an organization's id", "o-a1b2c3d4e5")
    for addition in additions:
        if addition not in CHOSEN:
            raise UsageError(f"--also must be {' or '.join(CHOSEN)}, not {addition!r}.", f"For example {CHOSEN[0]}.")
    _secret(_QUEUE, queue_url, "--queue-url", "https://sqs.eu-west-1.amazonaws.com/012345678901/cloudtrail")
    _secret(_EXTERNAL_ID, external_id, "--external-id", "2 to 1224 letters, digits and _ + = , . @ : / -")
    return Integration(
        name=name,
        bucket=bucket,
        account_id=account_id or (role_arn.split(":")[4] if role_arn else None),
        role_arn=role_arn,
        external_id=external_id or new_external_id(),
        region=region,
        prefix=_clean_prefix(prefix),
        sns_topic_arn=sns_topic_arn or None,
        queue_url=queue_url or None,
        created_at=now,
        organization_id=organization_id or None,
        additions=tuple(name for name in CHOSEN if name in additions),
    )


def changed(integration: Integration, **given: Any) -> Integration:
    """The integration with other values; an empty text takes one back, None leaves it. Raises UsageError."""
    kept = {
        field.name: getattr(integration, field.name)
        for field in fields(integration)
        if field.name not in ("created_at", "paused")
    }
    if integration.role_arn and integration.account_id == integration.role_arn.split(":")[4]:
        kept["account_id"] = None  # it came from the role's ARN, and does so again
    new = kept | {name: value for name, value in given.items() if value is not None}
    return make_integration(**new, now=integration.created_at or datetime.min)


def new_external_id() -> str:
    """An external id nobody can guess: 192 random bits, in characters STS takes."""
    return f"kyra-{secrets.token_urlsafe(24)}"


def _folder(
    name: str, url: str, account_id: str | None, now: datetime, unneeded: dict[str, str | None], prefix: str | None
) -> Integration:
    FolderBucket.at(url)
    for option, value in unneeded.items():
        if value:
            raise UsageError(f"{option} means nothing for a folder.", f"Leave it out: --bucket {url} is enough.")
    if account_id:
        _must(_ACCOUNT, account_id, "--account-id", "12 digits", "012345678901")
    return Integration(
        name=name, bucket=url, account_id=account_id or None, prefix=_clean_prefix(prefix), created_at=now
    )


def _check_bucket(bucket: str) -> None:
    if bucket.startswith(("s3://", "arn:")):
        bare, _, prefix = bucket.removeprefix("s3://").rpartition(":::")[2].partition("/")
        also = f" --prefix {cut}" if (cut := prefix.partition("AWSLogs")[0].strip("/")) else ""
        raise UsageError(f"--bucket takes a name, not {bucket!r}.", f"Write --bucket {bare}{also}.")
    _must(_BUCKET, bucket, "--bucket", "3 to 63 lower-case letters, digits, dots and dashes", "example-cloudtrail-logs")


def _clean_prefix(prefix: str | None) -> str:
    """Without slashes around it. Raises UsageError when it reaches into AWSLogs/, or could not be a trail's."""
    clean = (prefix or "").strip("/")
    parts = clean.split("/")
    if "AWSLogs" in parts:
        before = "/".join(parts[: parts.index("AWSLogs")])
        right = f"Write --prefix {before}." if before else "Leave --prefix out."
        raise UsageError(f"--prefix is what stands before AWSLogs/, not {prefix!r}.", right)
    if len(clean) > _MAX_PREFIX or not clean.isprintable() or "" in parts[1:] or not {".", ".."}.isdisjoint(parts):
        raise UsageError(
            f"--prefix {clean[:40]!r} cannot be a trail's prefix.",
            f"Give the trail's S3KeyPrefix, up to {_MAX_PREFIX} characters, for example org/trail.",
        )
    return clean


def _must(pattern: re.Pattern[str], value: str, option: str, what: str, example: str) -> None:
    if not pattern.fullmatch(value):
        raise UsageError(f"{option} must be {what}, not {value!r}.", f"For example {example}.")


def _secret(pattern: re.Pattern[str], value: str | None, option: str, example: str) -> None:
    if value and not pattern.fullmatch(value):
        raise UsageError(f"{option} is not of the right form (it is not shown: it is a secret).", f"Right: {example}.")
