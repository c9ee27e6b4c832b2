"""What all detections cost over a five-minute batch, measured against loading that batch.

    python benchmarks/detect.py [--events 6000] [--accounts 3 20] [--ages 3 45] [--batches 5] [--slowest 10]

For each number of accounts and each age, a lake of that many days is made from a fixed seed: one file an account and
day, as compaction leaves them, and the last two hours as five-minute batches. Then batches come in as `kyra sync` takes
them, a log file for each account and region: decoded, written and committed, then looked at by every detection. An
ordinary batch holds what programs and people call all day; the other kind holds, besides, a call of every single
detection, so that none is skipped for want of its events. What counts is processor time of this process, detecting
over loading, in the same run: medians. An ordinary batch should cost at most twice its loading. The figures are of this
machine and moment; ratios travel better than seconds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kyra_etl import resources
from kyra_etl.cases import load_cases
from kyra_etl.detection.rule import Corpus
from kyra_etl.lake import open_lake
from kyra_etl.load import load
from kyra_etl.model import Limits, RunReport
from kyra_etl.ports import Silent
from kyra_etl.state import State

NOON = datetime(2026, 3, 2, 12)
MOST = 2.0
"""How long detecting an ordinary batch may take at most, in terms of loading it."""
ASKED_OF = 20
"""The accounts, of three regions each, that this is asked of: a batch of sixty log files."""
REGIONS = ("eu-central-1", "eu-west-1", "us-east-1")
CALLS = {
    "ec2": "DescribeInstances DescribeInstanceStatus DescribeVolumes DescribeSecurityGroups DescribeTags RunInstances "
    "TerminateInstances CreateTags CreateNetworkInterface DeleteNetworkInterface CreateSnapshot DeleteSnapshot",
    "s3": "GetObject PutObject ListObjects HeadObject GetBucketAcl GetBucketLocation ListBuckets",
    "lambda": "ListFunctions20150331 GetFunction20150331v2 UpdateFunctionCode20150331v2 ListTags20170331",
    "logs": "CreateLogStream DescribeLogGroups DescribeLogStreams StartQuery GetQueryResults",
    "kms": "Decrypt GenerateDataKey DescribeKey ListAliases",
    "sts": "AssumeRole GetCallerIdentity AssumeRoleWithWebIdentity",
    "iam": "ListRoles GetRole GetUser ListAttachedRolePolicies GetPolicyVersion",
    "dynamodb": "DescribeTable ListTables UpdateTimeToLive DescribeContinuousBackups",
    "rds": "DescribeDBInstances DescribeDBClusters ListTagsForResource",
    "ecs": "DescribeTasks DescribeServices RunTask UpdateService ListTasks",
    "ssm": "UpdateInstanceInformation GetParameter GetParameters ListInstanceAssociations PutInventory",
    "secretsmanager": "GetSecretValue DescribeSecret ListSecrets",
    "cloudformation": "DescribeStacks ListStackResources CreateChangeSet DescribeStackEvents",
    "monitoring": "PutMetricAlarm DescribeAlarms DeleteAlarms",
    "elasticloadbalancing": "DescribeTargetHealth RegisterTargets DeregisterTargets DescribeLoadBalancers",
    "ecr": "BatchGetImage GetDownloadUrlForLayer GetAuthorizationToken DescribeImages PutImage",
}
READS = ("Describe", "List", "Get", "Head", "Batch", "Decrypt", "Generate", "Assume")
PEOPLE = 60
FIVE = timedelta(minutes=5)


def habits(person: int) -> list[tuple[str, str]]:
    """The calls one identity makes: some of a few services, the same every day."""
    draw = random.Random(person)
    services = draw.sample(sorted(CALLS), 4)
    return [(service, name) for service in services for name in CALLS[service].split() if draw.random() < 0.6]


def events(
    draw: random.Random, accounts: Sequence[str], count: int, start: datetime, length: timedelta
) -> Iterator[dict[str, Any]]:
    """Calls of people and programs with habits: each works in one account, from its own network."""
    known = {person: habits(person) for person in range(PEOPLE)}
    for _ in range(count):
        person = min(int(draw.expovariate(0.06)), PEOPLE - 1)
        account, role = accounts[person % len(accounts)], person % 4 != 0
        service, name = draw.choice(known[person])
        at = start + draw.random() * length
        user = f"arn:aws:iam::{account}:user/person-{person}"
        issuer = f"arn:aws:iam::{account}:role/role-{person}"
        session = {"sessionIssuer": {"type": "Role", "arn": issuer, "accountId": account, "userName": f"role-{person}"}}
        # One in twenty-five callers lacks a permission, and asks again and again.
        refused = person % 25 == 0 and (service, name) == known[person][0]
        failed = {"errorCode": "AccessDenied", "errorMessage": "not authorized"} if refused else {}
        yield {
            "eventVersion": "1.11",
            "userIdentity": {
                "type": "AssumedRole" if role else "IAMUser",
                "arn": f"arn:aws:sts::{account}:assumed-role/role-{person}/s" if role else user,
                "accountId": account,
                "accessKeyId": f"{'ASIA' if role else 'AKIA'}{person:016d}",
                **({"sessionContext": session} if role else {"userName": f"person-{person}"}),
            },
            "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "awsRegion": draw.choice(REGIONS),
            "sourceIPAddress": f"198.51.{person}.{draw.randrange(1, 255)}",
            "userAgent": "aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.5 md/GOARCH#amd64",
            "requestParameters": {"name": f"thing-{draw.randrange(1000)}", "maxResults": 100, "filterSet": {}},
            "responseElements": None,
            "requestID": str(uuid.UUID(int=draw.getrandbits(128))),
            "eventID": str(uuid.UUID(int=draw.getrandbits(128))),
            "readOnly": name.startswith(READS),
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": account,
            "eventCategory": "Management",
            "tlsDetails": {"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256"},
            **failed,
        }


def wakers() -> list[dict[str, Any]]:
    """For every detection, the first event of its first case that fires."""
    first: dict[str, Mapping[str, Any]] = {}
    for case in load_cases([resources.cases_dir()]):
        if case.fires:
            first.setdefault(case.detection, case.events[0])
    return [dict(event) for event in first.values()]


def batch(
    draw: random.Random, accounts: Sequence[str], count: int, start: datetime, seeds: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Five minutes of events, among them one that concerns each detection."""
    own = [
        seed
        | {"recipientAccountId": draw.choice(accounts), "eventID": str(uuid.UUID(int=draw.getrandbits(128)))}
        | {"eventTime": f"{start + draw.random() * FIVE:%Y-%m-%dT%H:%M:%SZ}"}
        for seed in seeds
    ]
    return [*own, *events(draw, accounts, count - len(own), start, FIVE)]


class Stopwatch(Silent):
    """Seconds by stage of a run, by the clock and of processors; a stage lasts until its last advance or the next."""

    def __init__(self) -> None:
        self.clock: Counter[str] = Counter()
        self.processor: Counter[str] = Counter()
        self._stage, self._begun = "", (0.0, 0.0)

    def stage(self, name: str, total: int | None = None) -> None:
        self.advance()
        self._stage = name

    def advance(self, count: int = 1) -> None:
        now = time.perf_counter(), time.process_time()
        self.clock[self._stage] += now[0] - self._begun[0]
        self.processor[self._stage] += now[1] - self._begun[1]
        self._begun = now


class House:
    """A lake and its state in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._loads = folder, 0
        self._state = State.open(str(folder / "state.db"))
        self._lake = open_lake(str(folder / "lake"))
        self._lake.claim(self._state.id)

    def load(self, records: list[dict[str, Any]], now: datetime, corpus: Corpus | None = None) -> RunReport:
        """Commit the records as one batch, a log file for each account and region, and run the detections on it."""
        self._loads += 1
        folder = self._folder / "in" / str(self._loads)
        folder.mkdir(parents=True)
        files: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for each in records:
            files.setdefault((each["recipientAccountId"], each.get("awsRegion", "")), []).append(each)
        for (account, region), own in files.items():
            document = json.dumps({"Records": own}).encode()
            (folder / f"{account}-{region}.json.gz").write_bytes(gzip.compress(document, 1, mtime=0))
        self.watch = Stopwatch()
        return load(
            [folder],
            lake=self._lake,
            state=self._state,
            corpus=corpus,
            limits=Limits(decode_processes=1),
            clock=lambda: now,
            progress=self.watch,
        )


@dataclass
class Figures:
    """Of one kind of batch: seconds of loading and of detecting a batch, and of each detection."""

    kind: str
    clock: list[tuple[float, float]] = field(default_factory=list)
    processor: list[tuple[float, float]] = field(default_factory=list)
    slowest: Counter[str] = field(default_factory=Counter)


def measure(count: int, age: int, given: argparse.Namespace, corpus: Corpus) -> Iterator[Figures]:
    draw, accounts = random.Random(1), [f"{111122223333 + number:012}" for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="kyra-bench-") as folder:
        house = House(Path(folder))
        for day in range(age, 0, -1):
            start = NOON - timedelta(days=day, hours=12)
            house.load(list(events(draw, accounts, given.per_day, start, timedelta(days=1))), NOON)
        for number in range(24):
            house.load(batch(draw, accounts, given.events, NOON - (24 - number) * FIVE, []), NOON, corpus)
        at = NOON
        for kind, seeds in (("ordinary", []), ("every one", wakers())):
            figures = Figures(kind)
            for number in range(given.batches + 1):
                report = house.load(batch(draw, accounts, given.events, at, seeds), at + 2 * FIVE, corpus)
                at += FIVE
                assert not report.detect.failed, report.detect.failed
                if number:  # the first one warms up
                    for spent, into in ((house.watch.clock, figures.clock), (house.watch.processor, figures.processor)):
                        into.append((spent["Loading"], spent["Detecting"]))
                    figures.slowest.update(
                        {name: seconds / given.batches for name, seconds in report.detect.seconds.items()}
                    )
            yield figures


def compared(seconds: list[tuple[float, float]]) -> tuple[str, float]:
    """Medians of loading and of detecting, and the ratio."""
    loading, detecting = (statistics.median(each) for each in zip(*seconds, strict=True))
    ratio = detecting / loading
    return f"{loading * 1000:>12.0f} ms{detecting * 1000:>9.0f} ms{ratio:>8.2f}", ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=6_000)
    parser.add_argument("--accounts", type=int, nargs="+", default=[3, 20])
    parser.add_argument("--ages", type=int, nargs="+", default=[3, 45], metavar="DAYS")
    parser.add_argument("--per-day", type=int, default=20_000)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--slowest", type=int, default=10)
    given = parser.parse_args()
    corpus = Corpus.load([resources.detections_dir()])
    print(f"{len(corpus.detections)} detections over batches of {given.events:,} events, median of {given.batches}\n")
    heads = f"{'loading':>15}{'detecting':>12}{'ratio':>8}"
    print(f"{'':>38}{'by the clock':>35}{'processor time':>35}")
    print(f"{'accounts':>9}{'lake':>10}{'batch':>12}{'awake':>7}{heads}{heads}")
    for count, age in product(given.accounts, given.ages):
        for figures in measure(count, age, given, corpus):
            awake = sum(seconds > 0 for seconds in figures.slowest.values())
            (clock, ratio), (processor, _) = compared(figures.clock), compared(figures.processor)
            missed = "  MISSED" if figures.kind == "ordinary" and count >= ASKED_OF and ratio > MOST else ""
            print(f"{count:>9}{age:>5} days{figures.kind:>12}{awake:>7}{clock}{processor}{missed}", flush=True)
            if figures.kind == "ordinary":
                slowest = figures.slowest
    print(
        f"\nThe slowest of {given.accounts[-1]} accounts over {given.ages[-1]} days in an ordinary batch, by the clock:"
    )
    for name, seconds in slowest.most_common(given.slowest):
        print(f"{seconds * 1000:>9.1f} ms  {name}")


if __name__ == "__main__":
    main()
