"""Test Connection: one probe for each thing that has to work, each with its remedy and the permission it needs.

A probe that fails stops only those that could not work without it; these are then not asked (`passed` is None).
A probe that passed and still has a remedy is a warning: log files come in, but something should be changed.

| probe        | asks                                                              | permission                   |
|--------------|-------------------------------------------------------------------|------------------------------|
| identity     | has this machine AWS credentials                                  |                              |
| clock        | does this machine's clock agree with the S3 server's              |                              |
| assume_role  | may it assume the role with the external id                       | sts:AssumeRole, by its trust |
| external_id  | does the role refuse callers with another one, or with none       | sts:AssumeRole, by its trust |
| bucket       | is there such a bucket, and where                                 | s3:ListBucket                |
| list         | may the log folder be listed                                      | s3:ListBucket                |
| layout       | accounts, organization, regions, the newest log file and its age  | s3:ListBucket                |
| read         | may the newest log file be fetched                                | s3:GetObject                 |
| decode       | is it a CloudTrail log file                                       |                              |
| kms          | may it be decrypted, where a KMS key encrypts it                  | kms:Decrypt                  |
| trail        | does a trail deliver to the bucket, under the prefix              | cloudtrail:DescribeTrails    |
| regions      | from all regions                                                  | cloudtrail:DescribeTrails    |
| validation   | with digest files, which prove that log files are genuine         | cloudtrail:DescribeTrails    |
| logging      | is it logging                                                     | cloudtrail:GetTrailStatus    |
| delivery     | when did it last deliver, and with which error                    | cloudtrail:GetTrailStatus    |
| selectors    | does it record all management events that change something        | cloudtrail:GetEventSelectors |
| lookup       | may the event history be read, for the initial sync               | cloudtrail:LookupEvents      |
| topic        | does the trail notify the topic                                   | cloudtrail:DescribeTrails    |
| queue        | does the queue let the topic send                                 | sqs:GetQueueAttributes       |
| subscription | is the queue subscribed to the topic                              | sns:ListSubscriptions, ours  |
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from kyra_etl.aws.bucket import S3Bucket
from kyra_etl.check import access, files, notices, trails
from kyra_etl.check.asking import Look, NotAsked, SaveTrails, Warned
from kyra_etl.errors import KyraError
from kyra_etl.model import Integration, Limits, Probe
from kyra_etl.ports import LogBucket

Question = Callable[[Look], str | Warned]

QUESTIONS: tuple[tuple[str, str, Question], ...] = (
    ("identity", "", access.identity),
    ("clock", "", access.clock),
    ("assume_role", "sts:AssumeRole", access.assume_role),
    ("external_id", "sts:AssumeRole", access.external_id),
    ("bucket", "s3:ListBucket", files.bucket),
    ("list", "s3:ListBucket", files.list_),
    ("layout", "s3:ListBucket", files.layout),
    ("read", "s3:GetObject", files.read),
    ("decode", "", files.decoded),
    ("kms", "kms:Decrypt", files.kms),
    ("trail", "cloudtrail:DescribeTrails", trails.trail),
    ("regions", "cloudtrail:DescribeTrails", trails.regions),
    ("validation", "cloudtrail:DescribeTrails", trails.validation),
    ("logging", "cloudtrail:GetTrailStatus", trails.logging),
    ("delivery", "cloudtrail:GetTrailStatus", trails.delivery),
    ("selectors", "cloudtrail:GetEventSelectors", trails.selectors),
    ("lookup", "cloudtrail:LookupEvents", trails.lookup),
    ("topic", "cloudtrail:DescribeTrails", notices.topic),
    ("queue", "sqs:GetQueueAttributes", notices.queue),
    ("subscription", "sns:ListSubscriptions", notices.subscription),
)
"""Every probe: its name, the permission it needs, and the function that asks. In the order they are asked."""

NAMES = tuple(name for name, _, _ in QUESTIONS)


def check(
    integration: Integration,
    *,
    bucket: LogBucket,
    now: datetime,
    max_bytes: int = Limits().max_object_bytes,
    save_trails: SaveTrails | None = None,
) -> list[Probe]:
    """Every probe of `NAMES`, in that order; never raises a KyraError.

    `bucket` is the integration's, as syncs use it: over AWS the same session answers the questions about role and
    trails, over a folder those are not asked. `save_trails` gets the trails that deliver to the bucket, as rows of the
    relation `trails`, when they could be seen.
    """
    session = bucket.session if isinstance(bucket, S3Bucket) else None
    look = Look(integration, bucket, session, now, max_bytes, save_trails)
    return [_ask(look, name, permission, question) for name, permission, question in QUESTIONS]


def _ask(look: Look, name: str, permission: str, question: Question) -> Probe:
    try:
        answer = question(look)
    except NotAsked as reason:
        return Probe(name, None, str(reason), reason.remedy, permission)
    except KyraError as error:
        look.failed[name] = error
        return Probe(name, False, error.message, error.remedy, permission)
    if isinstance(answer, Warned):
        return Probe(name, True, answer.detail, answer.remedy, permission)
    return Probe(name, True, answer, "", permission)
