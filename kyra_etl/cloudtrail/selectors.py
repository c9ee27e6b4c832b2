"""Event selectors: which events a trail records, as the document that PutEventSelectors takes.

Always the advanced form: the basic one cannot leave out a bucket. A document replaces all selectors of its trail, so
each names everything that is to be recorded.
https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_AdvancedEventSelector.html
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RESOURCE_TYPES = {
    "s3.amazonaws.com": "AWS::S3::Object",
    "lambda.amazonaws.com": "AWS::Lambda::Function",
    "dynamodb.amazonaws.com": "AWS::DynamoDB::Table",
    "sqs.amazonaws.com": "AWS::SQS::Queue",
    "sns.amazonaws.com": "AWS::SNS::Topic",
    "kinesis.amazonaws.com": "AWS::Kinesis::Stream",
    "cognito-identity.amazonaws.com": "AWS::Cognito::IdentityPool",
    "s3express.amazonaws.com": "AWS::S3Express::Object",
    "s3-outposts.amazonaws.com": "AWS::S3Outposts::Object",
    "ebs.amazonaws.com": "AWS::EC2::Snapshot",
}
"""The resources.type of each service's data events, where a record's own resources do not say."""

NOISY = ("kms.amazonaws.com", "rdsdata.amazonaws.com")
"""The sources of management events that a trail can leave out."""


@dataclass(frozen=True, slots=True)
class Management:
    """Management events; `writes_only` leaves reads out, `without` whole sources (of `NOISY`)."""

    writes_only: bool = False
    without: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Data:
    """Data events on resources of one type; `without` are beginnings of ARNs to leave out, `only` those to keep."""

    type: str
    writes_only: bool = False
    without: Sequence[str] = ()
    only: Sequence[str] = ()


def document(trail: str, management: Management | None, data: Sequence[Data]) -> dict[str, Any]:
    """The request of PutEventSelectors: {TrailName, AdvancedEventSelectors}."""
    selectors = [] if management is None else [_management(management)]
    return {"TrailName": trail, "AdvancedEventSelectors": [*selectors, *map(_data, data)]}


def command(document: dict[str, Any]) -> str:
    """The aws-cli command that puts it in place, in one line."""
    return f"aws cloudtrail put-event-selectors --cli-input-json {shlex.quote(json.dumps(document))}"


def _management(wanted: Management) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [{"Field": "eventCategory", "Equals": ["Management"]}]
    if wanted.writes_only:
        fields.append({"Field": "readOnly", "Equals": ["false"]})
    if wanted.without:
        fields.append({"Field": "eventSource", "NotEquals": list(wanted.without)})
    return {"Name": "Management events", "FieldSelectors": fields}


def _data(wanted: Data) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": [wanted.type]},
    ]
    if wanted.writes_only:
        fields.append({"Field": "readOnly", "Equals": ["false"]})
    if wanted.only or wanted.without:
        which = {"StartsWith": list(wanted.only)} if wanted.only else {"NotStartsWith": list(wanted.without)}
        fields.append({"Field": "resources.ARN", **which})
    return {"Name": f"Data events of {wanted.type}", "FieldSelectors": fields}
