"""The aws-cli commands that put the documents of `kyra_etl.aws.policies` in place. Pure.

They come in sections: first what the integration needs, then what somebody needs who has no trail yet. Each command
writes the documents it uses to files in the current folder.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kyra_etl.aws import policies
from kyra_etl.aws.policies import Document
from kyra_etl.model import Integration

TRAIL_NAME = "all-management-events"
HOME = {"aws": "us-east-1", "aws-us-gov": "us-gov-west-1", "aws-cn": "cn-north-1"}
"""Where a trail is made when nothing says otherwise."""


@dataclass(frozen=True, slots=True)
class Section:
    """Commands that belong together, to be pasted in this order; `needed` for collecting at all."""

    title: str
    commands: tuple[str, ...]
    needed: bool = True


def commands(integration: Integration, wanted: Mapping[str, Document]) -> list[str]:
    """The commands that put `policies.documents(...)` in place."""
    return [command for section in sections(integration, wanted) if section.needed for command in section.commands]


def sections(integration: Integration, wanted: Mapping[str, Document]) -> list[Section]:
    """Every section of commands for the integration; `wanted` are its documents."""
    found = [Section("The role, with the rights to read", tuple(_role(integration, wanted)))]
    if "key" in wanted:
        title = "The key: add the statement in key.json to key-policy.json between these two commands"
        found.append(Section(title, tuple(_key(wanted))))
    if "topic" in wanted:
        found.append(Section("Notices of new log files", tuple(_notices(integration, wanted))))
    found.append(Section("If there is no trail yet: a bucket and a trail", tuple(_trail(integration)), needed=False))
    if integration.organization_id is not None:
        title = "For the whole organization: the same, with this trail; run it in the management account"
        found.append(Section(title, tuple(_organization_trail(integration)), needed=False))
    else:
        how = f"kyra integration change {integration.name} --organization o-..., then this command again"
        found.append(Section(f"For a whole organization: {how}", (), needed=False))
    title = (
        "If reads and writes of objects, and calls of functions, are to be recorded too (AWS charges for data events)"
    )
    found.append(Section(title, tuple(_data_events(integration)), needed=False))
    return found


def script(found: Iterable[Section]) -> str:
    """The sections as text for a shell; those that are not needed come last, as comments."""
    blocks = []
    for section in found:
        text = "\n".join(section.commands)
        if not section.needed:
            text = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
        blocks.append(f"# ── {section.title} ──\n{text}")
    return "\n\n".join(blocks)


def left_out(wanted: Mapping[str, Document]) -> str:
    """The additions that the permissions leave out, each with its reason, as text."""
    there = {statement["Sid"] for statement in wanted["permissions"]["Statement"]}
    found = [
        textwrap.fill(f"{', '.join(one.actions)}: {one.reason}", 98, initial_indent="- ", subsequent_indent="  ")
        for one in policies.ADDITIONS.values()
        if one.sid not in there
    ]
    return "\n".join(["Left out, because it is optional:", *found]) if found else ""


def trail_arn(integration: Integration) -> str:
    """The ARN that the trail made by these commands has."""
    names = policies.terms(integration)
    account = integration.account_id or "ACCOUNT"
    return f"arn:{names.partition}:cloudtrail:{_region(integration)}:{account}:trail/{TRAIL_NAME}"


def _role(integration: Integration, wanted: Mapping[str, Document]) -> Iterable[str]:
    path, name = policies.role_of(integration)
    if "trust" in wanted:
        with_path = "" if path == "/" else f" --path {shlex.quote(path)}"
        yield _file("trust", wanted["trust"])
        yield f"aws iam create-role --role-name {name}{with_path} --assume-role-policy-document file://trust.json"
    yield _file("permissions", wanted["permissions"])
    yield (
        f"aws iam put-role-policy --role-name {name} --policy-name {policies.POLICY_NAME}"
        " --policy-document file://permissions.json"
    )


def _key(wanted: Mapping[str, Document]) -> Iterable[str]:
    yield _file("key", wanted["key"])
    for statement in wanted["permissions"]["Statement"]:
        if statement["Sid"] == policies.ADDITIONS["kms"].sid:
            for key in map(shlex.quote, statement["Resource"]):
                yield f"aws kms get-key-policy --key-id {key} --policy-name default --output text > key-policy.json"
                yield f"aws kms put-key-policy --key-id {key} --policy-name default --policy file://key-policy.json"


def _notices(integration: Integration, wanted: Mapping[str, Document]) -> Iterable[str]:
    topic = shlex.quote(integration.sns_topic_arn or "")
    yield _file("topic", wanted["topic"])
    yield (
        f"aws sns set-topic-attributes --topic-arn {topic} --attribute-name Policy --attribute-value file://topic.json"
    )
    if "queue" in wanted:
        url = integration.queue_url or ""
        yield _file("queue-attributes", wanted["queue-attributes"])
        yield f"aws sqs set-queue-attributes --queue-url {shlex.quote(url)} --attributes file://queue-attributes.json"
        yield (
            f"aws sns subscribe --region {(integration.sns_topic_arn or '').split(':')[3]} --topic-arn {topic}"
            f" --protocol sqs --notification-endpoint {policies.queue_arn(url)}"
        )


def _trail(integration: Integration) -> Iterable[str]:
    bucket, region = shlex.quote(integration.bucket), _region(integration)
    place = "" if region == "us-east-1" else f" --create-bucket-configuration LocationConstraint={region}"
    owners = [integration.account_id or "ACCOUNT", integration.organization_id]
    names = policies.terms(integration)
    yield f"aws s3api create-bucket --bucket {bucket} --region {region}{place}"
    yield _file("bucket", policies.bucket_policy(names, trail_arn(integration), [one for one in owners if one]))
    yield f"aws s3api put-bucket-policy --bucket {bucket} --policy file://bucket.json"
    if integration.organization_id is None:
        yield _create_trail(integration)
        yield f"aws cloudtrail start-logging --region {region} --name {TRAIL_NAME}"


def _organization_trail(integration: Integration) -> Iterable[str]:
    yield "aws organizations enable-aws-service-access --service-principal cloudtrail.amazonaws.com"
    yield f"{_create_trail(integration)} --is-organization-trail"
    yield f"aws cloudtrail start-logging --region {_region(integration)} --name {TRAIL_NAME}"


def _create_trail(integration: Integration) -> str:
    prefix = f" --s3-key-prefix {shlex.quote(integration.prefix)}" if integration.prefix else ""
    topic = f" --sns-topic-name {shlex.quote(integration.sns_topic_arn)}" if integration.sns_topic_arn else ""
    return (
        f"aws cloudtrail create-trail --region {_region(integration)} --name {TRAIL_NAME}"
        f" --s3-bucket-name {shlex.quote(integration.bucket)}{prefix}{topic}"
        " --is-multi-region-trail --enable-log-file-validation"
    )


def _data_events(integration: Integration) -> Iterable[str]:
    yield _file("selectors", policies.selectors(policies.terms(integration)))
    yield (
        f"aws cloudtrail put-event-selectors --region {_region(integration)} --trail-name {TRAIL_NAME}"
        " --advanced-event-selectors file://selectors.json"
    )


def _region(integration: Integration) -> str:
    return integration.region or HOME[policies.partition_of(integration)]


def _file(name: str, document: object) -> str:
    return f"cat > {name}.json <<'JSON'\n{json.dumps(document, indent=2)}\nJSON"
