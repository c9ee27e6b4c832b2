"""CloudTrail log files from a seed, as an organization of some size would deliver them.

    python benchmarks/generate.py FOLDER [--events 100000] [--accounts 12] [--days 5] [--seed 1]
    python benchmarks/generate.py FOLDER --document 500        # one log file of 500 MB of JSON

Realistic where it decides the cost of loading: file sizes are skewed (most hold dozens of records, a few thousands),
sessions make many calls each, parameters have the shapes and sizes of some thirty calls, a file holds stragglers of the
day before, some numbers are longer than any machine's, and some records carry fields nobody has documented.

Beside the folder stands `FOLDER.manifest.json`: the number of events and of the unknown fields, and the bytes of each
free-form part with a sum that no other text, and none in another event, gives: a benchmark can tell that what it timed
was right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from isal import igzip

FIRST = datetime(2026, 3, 2)
REGIONS = ("us-east-1", "eu-central-1", "eu-west-1", "us-west-2", "ap-southeast-2")
ORGANIZATION = "o-b3nchmark0"

PARTS = ("userIdentity", "requestParameters", "responseElements", "additionalEventData", "resources", "tlsDetails")

Random = random.Random
Make = Callable[[Random], str]


def _hex(rng: Random, digits: int) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


def _uuid(rng: Random) -> str:
    text = _hex(rng, 32)
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _bucket(rng: Random) -> str:
    return f"acme-{rng.choice(('logs', 'reports', 'artifacts', 'backup'))}-{rng.randrange(40)}"


def _instances(rng: Random) -> str:
    items = ",".join(f'{{"instanceId":"i-0{_hex(rng, 16)}"}}' for _ in range(rng.randrange(1, 6)))
    return f'{{"instancesSet":{{"items":[{items}]}},"filterSet":{{}}}}'


def _run_answer(rng: Random) -> str:
    return (
        f'{{"requestId":"{_uuid(rng)}","reservationId":"r-0{_hex(rng, 16)}","ownerId":"111122223333","groupSet":{{}},'
        f'"instancesSet":{{"items":[{{"instanceId":"i-0{_hex(rng, 16)}","imageId":"ami-0{_hex(rng, 16)}",'
        f'"instanceState":{{"code":0,"name":"pending"}},"instanceType":"m7g.large","amiLaunchIndex":0,'
        f'"placement":{{"availabilityZone":"eu-central-1a","tenancy":"default"}},"monitoring":{{"state":"pending"}},'
        f'"subnetId":"subnet-0{_hex(rng, 16)}","vpcId":"vpc-0{_hex(rng, 16)}","privateIpAddress":"10.0.3.17"}}]}}}}'
    )


def _credentials(rng: Random) -> str:
    return (
        f'{{"credentials":{{"accessKeyId":"ASIA{_hex(rng, 16).upper()}","sessionToken":"{_hex(rng, 240)}",'
        f'"expiration":"Mar 2, 2026, 7:00:00 AM"}},"assumedRoleUser":{{"assumedRoleId":"AROA{_hex(rng, 17).upper()}:ci"'
        f',"arn":"arn:aws:sts::111122223333:assumed-role/deploy/ci"}}}}'
    )


def _none(rng: Random) -> str:
    return "null"


# name, service, reads only, weight, requestParameters, responseElements
CALLS: tuple[tuple[str, str, bool, int, Make, Make], ...] = (
    ("DescribeInstances", "ec2", True, 90, _instances, _none),
    ("DescribeSecurityGroups", "ec2", True, 30, lambda r: '{"securityGroupSet":{},"filterSet":{}}', _none),
    ("DescribeVolumes", "ec2", True, 30, lambda r: '{"volumeSet":{},"filterSet":{},"maxResults":500}', _none),
    ("RunInstances", "ec2", False, 8, _instances, _run_answer),
    ("TerminateInstances", "ec2", False, 6, _instances, _instances),
    ("CreateTags", "ec2", False, 6,
     lambda r: f'{{"resourcesSet":{{"items":[{{"resourceId":"i-0{_hex(r, 16)}"}}]}},"tagSet":{{"items":[{{"key":"team",'
     f'"value":"payments"}},{{"key":"cost","value":"{r.randrange(9999)}"}}]}}}}', lambda r: '{"_return":true}'),
    ("AssumeRole", "sts", True, 120,
     lambda r: f'{{"roleArn":"arn:aws:iam::111122223333:role/deploy-{r.randrange(30)}","roleSessionName":"ci-'
     f'{r.randrange(10**6)}","durationSeconds":900}}', _credentials),
    ("GetCallerIdentity", "sts", True, 25, _none, _none),
    ("GetObject", "s3", True, 60,
     lambda r: f'{{"bucketName":"{_bucket(r)}","Host":"s3.amazonaws.com","key":"2026/03/{_hex(r, 24)}.csv"}}',
     _none),
    ("PutObject", "s3", False, 40,
     lambda r: f'{{"bucketName":"{_bucket(r)}","Host":"s3.eu-central-1.amazonaws.com","key":"in/{_hex(r, 24)}.json",'
     f'"x-amz-storage-class":"STANDARD_IA"}}', lambda r: '{"x-amz-server-side-encryption":"aws:kms"}'),
    ("ListObjects", "s3", True, 30,
     lambda r: f'{{"list-type":"2","bucketName":"{_bucket(r)}","prefix":"in/","Host":"s3.amazonaws.com"}}', _none),
    ("GetBucketAcl", "s3", True, 20, lambda r: f'{{"bucketName":"{_bucket(r)}","acl":""}}', _none),
    ("Decrypt", "kms", True, 150,
     lambda r: f'{{"encryptionAlgorithm":"SYMMETRIC_DEFAULT","encryptionContext":{{"aws:s3:arn":"arn:aws:s3:::'
     f'{_bucket(r)}/{_hex(r, 16)}"}}}}', _none),
    ("GenerateDataKey", "kms", True, 80,
     lambda r: f'{{"keyId":"arn:aws:kms:eu-central-1:111122223333:key/{_uuid(r)}","keySpec":"AES_256"}}', _none),
    ("CreateLogStream", "logs", False, 40,
     lambda r: f'{{"logGroupName":"/aws/lambda/export-{r.randrange(60)}","logStreamName":"2026/03/02/[$LATEST]'
     f'{_hex(r, 32)}"}}', _none),
    ("DescribeLogGroups", "logs", True, 20, lambda r: '{"limit":50,"logGroupNamePrefix":"/aws/lambda/"}', _none),
    ("ListUsers", "iam", True, 10, lambda r: '{"maxItems":100}', _none),
    ("GetRole", "iam", True, 20, lambda r: f'{{"roleName":"deploy-{r.randrange(30)}"}}', _none),
    ("CreateUser", "iam", False, 1, lambda r: f'{{"userName":"person-{r.randrange(400)}"}}',
     lambda r: f'{{"user":{{"path":"/","userId":"AIDA{_hex(r, 17).upper()}","createDate":"Mar 2, 2026"}}}}'),
    ("Invoke", "lambda", False, 40,
     lambda r: f'{{"functionName":"arn:aws:lambda:eu-central-1:111122223333:function:export-{r.randrange(60)}",'
     f'"invocationType":"Event"}}', _none),
    ("UpdateFunctionCode20150331v2", "lambda", False, 3,
     lambda r: f'{{"functionName":"export-{r.randrange(60)}","publish":true,"dryRun":false}}',
     lambda r: f'{{"codeSha256":"{_hex(r, 44)}","codeSize":{r.randrange(10**8)},"timeout":30,"memorySize":512}}'),
    ("PutMetricData", "monitoring", False, 10, lambda r: '{"namespace":"acme/app"}', _none),
    ("DescribeAlarms", "monitoring", True, 15, lambda r: '{"maxRecords":100,"alarmTypes":["MetricAlarm"]}', _none),
    ("DescribeAutoScalingGroups", "autoscaling", True, 25,
     lambda r: f'{{"autoScalingGroupNames":["web-{r.randrange(20)}"],"maxRecords":100}}', _none),
    ("BatchGetImage", "ecr", True, 20,
     lambda r: f'{{"repositoryName":"web-{r.randrange(20)}","registryId":"111122223333","imageIds":[{{"imageTag":"'
     f'{_hex(r, 40)}"}}]}}', _none),
    ("Query", "dynamodb", True, 30,
     lambda r: f'{{"tableName":"orders","limit":{r.randrange(100)},"scanIndexForward":false}}', _none),
    ("GetParameter", "ssm", True, 25,
     lambda r: f'{{"name":"/app/{r.randrange(80)}/token","withDecryption":true}}', _none),
    ("GetSecretValue", "secretsmanager", True, 12, lambda r: f'{{"secretId":"app/{r.randrange(80)}"}}', _none),
    ("AuthorizeSecurityGroupIngress", "ec2", False, 1,
     lambda r: f'{{"groupId":"sg-0{_hex(r, 16)}","ipPermissions":{{"items":[{{"ipProtocol":"tcp","fromPort":443,'
     f'"toPort":443,"ipRanges":{{"items":[{{"cidrIp":"10.0.0.0/8"}}]}}}}]}}}}', lambda r: '{"_return":true}'),
)  # fmt: skip
WEIGHTS = tuple(call[3] for call in CALLS)
AGENTS = (
    "aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.5 md/GOOS#linux md/GOARCH#amd64 api/sts#1.30.3",
    "APN/1.0 HashiCorp/1.0 Terraform/1.9.5 (+https://www.terraform.io) aws-sdk-go-v2/1.30.4 os/linux lang/go#1.22.6",
    "Boto3/1.35.0 md/Botocore#1.35.0 ua/2.0 os/linux#6.1 md/arch#aarch64 lang/python#3.11.9 cfg/retry-mode#standard",
    "aws-cli/2.17.32 md/awscrt#0.21.2 ua/2.0 os/macos#23.6.0 md/arch#arm64 lang/python#3.11.9 exec-env/- prompt#off",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36",
)


@dataclass
class Manifest:
    """What was written: counts, and of each free-form part the bytes and the sum of its cells' `fingerprint`."""

    events: int = 0
    files: int = 0
    bytes: int = 0
    largest: int = 0
    unknown_fields: int = 0
    part_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    part_sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))


def fingerprint(event_id: str, text: str) -> int:
    """A number of one cell and the event it is of: DuckDB's `md5_number_lower(event_id || ' ' || text)`."""
    digest = hashlib.md5(f"{event_id} {text}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little")


def _account(number: int) -> str:
    return f"{12345678901 + 111111111 * number:012d}"


def _session(rng: Random, account: str, at: datetime) -> tuple[str, str, str]:
    """(userIdentity, sourceIPAddress, userAgent) of somebody who makes many calls."""
    kind = rng.random()
    address = f"198.51.{rng.randrange(100)}.{rng.randrange(256)}"
    if kind < 0.12:
        service = rng.choice(("autoscaling", "lambda", "config", "backup", "ecs-tasks"))
        host = f"{service}.amazonaws.com"
        return f'{{"type":"AWSService","invokedBy":"{host}"}}', host, host
    if kind < 0.2:
        name = f"person-{rng.randrange(40)}"
        who = (
            f'{{"type":"IAMUser","principalId":"AIDA{_hex(rng, 17).upper()}","arn":"arn:aws:iam::{account}:user/{name}"'
            f',"accountId":"{account}","accessKeyId":"AKIA{_hex(rng, 16).upper()}","userName":"{name}"}}'
        )
        return who, address, rng.choice(AGENTS)
    role = f"deploy-{rng.randrange(30)}" if kind < 0.9 else "AWSReservedSSO_Admin_0123456789abcdef"
    session = f"ci-{rng.randrange(10**6)}" if kind < 0.9 else f"person-{rng.randrange(40)}@example.com"
    who = (
        f'{{"type":"AssumedRole","principalId":"AROA{_hex(rng, 17).upper()}:{session}","arn":"arn:aws:sts::{account}:'
        f'assumed-role/{role}/{session}","accountId":"{account}","accessKeyId":"ASIA{_hex(rng, 16).upper()}",'
        f'"sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROA{_hex(rng, 17).upper()}","arn":'
        f'"arn:aws:iam::{account}:role/{role}","accountId":"{account}","userName":"{role}"}},"webIdFederationData":{{}},'
        f'"attributes":{{"creationDate":"{at.isoformat()}Z","mfaAuthenticated":"false"}}}}}}'
    )
    return who, address, rng.choice(AGENTS)


def records(rng: Random, account: str, region: str, start: datetime, count: int, to: Manifest) -> Iterator[str]:
    """`count` records of one delivery, as JSON text."""
    sessions = [_session(rng, account, start) for _ in range(max(1, count // 25))]
    calls = rng.choices(CALLS, WEIGHTS, k=count)
    for name, service, read_only, _, asked, answered in calls:
        who, address, agent = rng.choice(sessions)
        odd = rng.random()
        # A straggler in a thousand is of the day before.
        at = start + timedelta(seconds=rng.randrange(300)) - timedelta(days=1 if odd < 0.001 else 0)
        event_id = _uuid(rng)
        parameters, response = asked(rng), answered(rng)
        if 0.001 <= odd < 0.003 and parameters.endswith("}"):
            parameters = f'{parameters[:-1]},"size":1.0,"token":{rng.randrange(10**22, 10**23)}}}'
        host = f"{service}.{region}.amazonaws.com"
        tls = f'{{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"{host}"}}'
        more, resources = "null", "null"
        if service == "s3":
            more = (
                f'{{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":0,'
                f'"AuthenticationMethod":"AuthHeader","x-amz-id-2":"{_hex(rng, 60)}","bytesTransferredOut":'
                f"{rng.randrange(10**6)}}}"
            )
        if service in ("s3", "kms"):
            resources = f'[{{"accountId":"{account}","type":"AWS::S3::Object","ARN":"arn:aws:s3:::{_bucket(rng)}/*"}}]'
        error = ""
        if odd > 0.97:
            error = (
                f'"errorCode":"AccessDenied","errorMessage":"User is not authorized to perform: {service}:{name} on '
                f'resource: arn:aws:iam::{account}:role/deploy because no identity-based policy allows it",'
            )
            response = "null"
        unknown = ""
        if 0.003 <= odd < 0.004:
            unknown = f',"fieldOfTomorrow":{{"n":{rng.randrange(10**20, 10**21)}}}'
            to.unknown_fields += 1
        parts = (who, parameters, response, more, resources, tls)
        for part, text in zip(PARTS, parts, strict=True):
            to.part_bytes[part] += len(text)
            to.part_sums[part] += fingerprint(event_id, text)
        to.events += 1
        yield (
            f'{{"eventVersion":"1.11","userIdentity":{who},"eventTime":"{at.isoformat()}Z","eventSource":'
            f'"{service}.amazonaws.com","eventName":"{name}","awsRegion":"{region}","sourceIPAddress":"{address}",'
            f'"userAgent":"{agent}",{error}"requestParameters":{parameters},"responseElements":{response},'
            f'"additionalEventData":{more},"requestID":"{_uuid(rng)}","eventID":"{event_id}","readOnly":'
            f'{"true" if read_only else "false"},"resources":{resources},"eventType":"AwsApiCall","managementEvent":'
            f'{"false" if name in ("GetObject", "PutObject", "Query", "Invoke") else "true"},"recipientAccountId":'
            f'"{account}","eventCategory":"Management","tlsDetails":{tls}{unknown}}}'
        )


def write_bucket(
    folder: Path, events: int, *, accounts: int = 12, days: int = 5, seed: int = 1, first: datetime = FIRST
) -> Manifest:
    """Write log files of `events` events in all below `folder`, laid out as an organization's, and their manifest."""
    rng = Random(seed)
    manifest = Manifest()
    busy = [1 / (rank + 1) for rank in range(accounts)]
    while manifest.events < events:
        account = _account(rng.choices(range(accounts), busy)[0])
        region = rng.choices(REGIONS, (8, 5, 2, 1, 1))[0]
        start = first + timedelta(days=rng.randrange(days), minutes=5 * rng.randrange(288))
        # Most files are small; the few large ones hold most of the events.
        count = min(int(math.exp(rng.gauss(4.2, 1.6))) + 1, 20_000, events - manifest.events)
        write_file(folder, rng, account, region, start, records(rng, account, region, start, count, manifest), manifest)
    manifest_of(folder).write_text(json.dumps(asdict(manifest)))
    return manifest


def manifest_of(folder: Path) -> Path:
    """Where the manifest of a folder's files stands: beside it, since it is no log file."""
    return folder.with_name(f"{folder.name}.manifest.json")


def write_document(folder: Path, megabytes: int, seed: int = 1) -> Manifest:
    """Write one log file of so many megabytes of JSON, and its manifest."""
    rng = Random(seed)
    manifest = Manifest()
    account, region = _account(0), REGIONS[1]

    def enough() -> Iterator[str]:
        size = 0
        while size < megabytes * 2**20:
            for record in records(rng, account, region, FIRST, 1_000, manifest):
                size += len(record) + 1
                yield record

    write_file(folder, rng, account, region, FIRST, enough(), manifest)
    manifest_of(folder).write_text(json.dumps(asdict(manifest)))
    return manifest


def write_file(
    folder: Path, rng: Random, account: str, region: str, start: datetime, texts: Iterator[str], to: Manifest
) -> None:
    """One log file at the key CloudTrail would give it; its sizes go to the manifest."""
    stem = f"{account}_CloudTrail_{region}_{start:%Y%m%dT%H%MZ}_{_hex(rng, 16)}"
    path = folder / f"AWSLogs/{ORGANIZATION}/{account}/CloudTrail/{region}/{start:%Y/%m/%d}/{stem}.json.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with igzip.IGzipFile(path, "wb", compresslevel=2, mtime=0) as file:
        opening = '{"Records":['
        for text in texts:
            size += file.write(f"{opening}{text}".encode())
            opening = ","
        size += file.write(b"]}")
    to.files += 1
    to.bytes += size
    to.largest = max(to.largest, size)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--events", type=int, default=100_000)
    arguments.add_argument("--accounts", type=int, default=12)
    arguments.add_argument("--days", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--document", type=int, metavar="MB", help="one log file of so many megabytes instead")
    chosen = arguments.parse_args()
    if chosen.document:
        made = write_document(chosen.folder, chosen.document, chosen.seed)
    else:
        made = write_bucket(chosen.folder, chosen.events, accounts=chosen.accounts, days=chosen.days, seed=chosen.seed)
    print(f"{made.events:,} events in {made.files:,} files, {made.bytes / 2**20:,.0f} MB of JSON", file=sys.stderr)


if __name__ == "__main__":
    main()
