"""What CloudTrail delivers: accounts × regions × hours, in no order, late, twice, and sometimes broken.

Timings are those of real buckets: names run up to five minutes ahead of delivery, files of one minute arrive in any
order, some come hours later, and CloudTrail retries for 30 days.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.simulation.bucket import Delivery

MIDNIGHTS = (
    datetime(2026, 3, 11),
    datetime(2026, 3, 1),  # the month's end
    datetime(2024, 2, 29),
    datetime(2026, 1, 1),  # the year's end
    datetime(2025, 12, 31),
)
REGIONS = ("eu-west-1", "us-east-1", "ap-southeast-2", "us-gov-west-1", "mx-central-1")
ACCOUNTS = ("111122223333", "012345678901", "444455556666", "999900001111")
ORGANIZATION = "o-example123"
LATEST = timedelta(days=30)

Record = dict[str, Any]


@dataclass
class Story:
    """A delivery and how long it takes. `prefix` is the bucket's; objects under other prefixes are nobody's."""

    start: datetime
    end: datetime
    prefix: str
    deliveries: list[Delivery] = field(default_factory=list)


HOURS = (timedelta(hours=3), timedelta(hours=9))
SPANS = (*HOURS, timedelta(days=4), timedelta(days=12), timedelta(days=33))


def story(rng: random.Random, spans: Sequence[timedelta] = SPANS) -> Story:
    """A few hours around some midnight, some days, or a month."""
    midnight = rng.choice(MIDNIGHTS)
    span = rng.choice(spans)
    start = midnight - timedelta(seconds=rng.random() * min(span, timedelta(days=2)).total_seconds())
    told = Story(start, start + span, rng.choice(("", "", "logs/trail")))
    told.deliveries.extend(written(rng, told))
    return told


def written(rng: random.Random, told: Story) -> Iterator[Delivery]:
    """Deliveries for a story: accounts, regions and files of its own."""
    return _Writer(rng, told).deliveries()


class _Writer:
    def __init__(self, rng: random.Random, told: Story) -> None:
        self.rng, self.told = rng, told
        self.records: list[Record] = []

    def deliveries(self) -> Iterator[Delivery]:
        rng, told = self.rng, self.told
        places: list[tuple[str, str, str, datetime]] = []
        for account in rng.sample(ACCOUNTS, rng.randint(1, 3)):
            # No two accounts have the same regions; some appear in the middle of it.
            root = rng.choice(("", "", f"{ORGANIZATION}/"))
            for region in rng.sample(REGIONS, rng.randint(1, 3)):
                places.append((root, account, region, told.start + (told.end - told.start) * rng.choice((0, 0, 0.5))))
        for _ in range(rng.randint(4, 14)):
            root, account, region, since = rng.choice(places)
            written = since + (told.end - since) * rng.random()
            yield from self.file(root, account, region, written)
        for _ in range(rng.choice((0, 1, 2))):
            yield from self.stranger(*rng.choice(places)[:3])

    def file(self, root: str, account: str, region: str, written: datetime) -> Iterator[Delivery]:
        """One log file, or what came of it: twins by a second trail, a broken one that is mended later."""
        rng = self.rng
        key = self.key(root, account, region, written)
        at = self.arrival(written)
        records = [self.record(account, region, written) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        body = self.body(records, key)
        kind = rng.choices(("good", "twin", "broken", "mended", "grown", "vanished", "empty"), (66, 14, 5, 6, 4, 3, 2))[
            0
        ]
        if kind == "broken":
            yield Delivery(key, self.broken(), at)
        elif kind == "mended":
            yield Delivery(key, self.broken(), at)
            yield Delivery(key, body, self.later(at))
        elif kind == "grown":
            yield Delivery(key, body, at)
            more = [*records, self.record(account, region, written)]
            yield Delivery(key, self.body(more, key), self.later(at))
        elif kind == "vanished":
            yield Delivery(key, body, at, gone=at + timedelta(minutes=rng.choice((1, 7, 60))))
        elif kind == "empty":
            yield Delivery(key, b"", at)
        else:
            yield Delivery(key, body, at)
        if kind == "twin":
            other = rng.choice((root, f"{ORGANIZATION}/"))
            twin = self.key(other, account, region, written)
            some = records if rng.random() < 0.5 else [*records, self.record(account, region, written)]
            same = body if rng.random() < 0.3 else self.body(some, twin)
            yield Delivery(twin, same, self.arrival(written))

    def stranger(self, root: str, account: str, region: str) -> Iterator[Delivery]:
        """What lies in such buckets and is no log file."""
        at = self.told.start + (self.told.end - self.told.start) * self.rng.random()
        key = self.key(root, account, region, at)
        kind = self.rng.choice(("CloudTrail-Digest", "CloudTrail-Insight", "notes", "folder", "elsewhere"))
        if kind == "notes":
            yield Delivery(key.rpartition("/")[0] + "/read me 100%.txt", b"hello", at)
        elif kind == "folder":
            yield Delivery(key.rpartition("/")[0] + "/", b"", at)
        elif kind == "elsewhere":
            yield Delivery(f"backup/{key}", self.body([self.record(account, region, at)], key), at)
        else:
            yield Delivery(key.replace("/CloudTrail/", f"/{kind}/"), gzip.compress(b"{}"), at)

    def key(self, root: str, account: str, region: str, written: datetime) -> str:
        """The name says when delivery was meant to be, in steps of five minutes, now and then a step ahead."""
        rng = self.rng
        minute = written - timedelta(minutes=written.minute % 5, seconds=written.second)
        minute += timedelta(minutes=rng.choice((0, 0, 0, 5)))
        suffix = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", k=16))
        name = f"{account}_CloudTrail_{region}_{minute:%Y%m%dT%H%MZ}_{suffix}.json.gz"
        if rng.random() < 0.05:
            name = suffix + rng.choice((" odd name 100%.json.gz", "a+b&c.json", "ünïcode.json.gz", ".json"))
        prefix = f"{self.told.prefix}/" if self.told.prefix else ""
        return f"{prefix}AWSLogs/{root}{account}/CloudTrail/{region}/{minute:%Y/%m/%d}/{name}"

    def arrival(self, written: datetime) -> datetime:
        rng = self.rng
        lag = rng.choices(
            (
                timedelta(seconds=rng.randint(-280, 0)),
                timedelta(seconds=rng.randint(0, 600)),
                timedelta(hours=rng.random() * 30),
                LATEST * rng.random(),
            ),
            (20, 60, 12, 8),
        )[0]
        # The story waits for the last file, so that nothing arrives after the verdict.
        return min(written + lag, self.told.end)

    def later(self, at: datetime) -> datetime:
        return min(at + timedelta(minutes=self.rng.choice((1, 20, 300))), self.told.end)

    def record(self, account: str, region: str, written: datetime) -> Record:
        """A new event, one that was delivered before, or one that contradicts it."""
        rng = self.rng
        chance = rng.random()
        past = [known for known in self.records if known["eventTime"] <= f"{written:%Y-%m-%dT%H:%M:%SZ}"]
        if past and chance < 0.12:
            return rng.choice(past)
        if past and chance < 0.16:
            known = deepcopy(rng.choice(past))
            known["requestParameters"] = {"differs": rng.choice((1, 1.5, "1", None)), "of": rng.randint(0, 9)}
            return known
        if past and chance < 0.20:
            return dict(reversed(rng.choice(past).items()))
        made = self.event(account, region, written)
        if "eventID" in made and "eventTime" in made:
            self.records.append(made)
        return made

    def event(self, account: str, region: str, written: datetime) -> Record:
        rng = self.rng
        moment = written - timedelta(seconds=rng.choice((1, 30, 300, 900, 7200)))
        made = {
            "eventVersion": "1.11",
            "eventTime": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            "eventID": f"{rng.getrandbits(32):08x}-0000-4000-8000-{rng.getrandbits(48):012x}",
            "awsRegion": region,
            "sourceIPAddress": rng.choice(("198.51.100.7", "203.0.113.9", "AWS Internal")),
            "userAgent": "aws-cli/2.15",
            "recipientAccountId": account if rng.random() < 0.9 else rng.choice(ACCOUNTS),
            "responseElements": {"n": 12345678901234567890, "f": 1.0} if rng.random() < 0.3 else None,
        } | deepcopy(rng.choice(CALLS))
        if made["responseElements"] is None:
            del made["responseElements"]
        chance = rng.random()
        if chance < 0.03:
            del made["eventID"]
        elif chance < 0.05:
            del made["eventTime"]
        elif chance < 0.06:
            made["eventTime"] = "1970-01-01T00:00:00Z"
        elif chance < 0.08:
            del made["recipientAccountId"]
        return made

    def body(self, records: list[Record], key: str) -> bytes:
        rng = self.rng
        listed: list[Any] = [*records, "no record"] if rng.random() < 0.04 else list(records)
        text = json.dumps({"Records": listed}, ensure_ascii=rng.random() < 0.5).encode()
        if rng.random() < 0.05:
            text = b"\xef\xbb\xbf" + text
        if not key.endswith(".gz") or rng.random() < 0.03:
            return text
        if rng.random() < 0.05:
            half = len(text) // 2
            return gzip.compress(text[:half], 1, mtime=0) + gzip.compress(text[half:], 1, mtime=0)
        return gzip.compress(text, 1, mtime=0)

    def broken(self) -> bytes:
        whole = gzip.compress(json.dumps({"Records": [self.event(ACCOUNTS[0], REGIONS[0], self.told.end)]}).encode())
        return self.rng.choice(
            (
                whole[:-9],
                whole[:40] + bytes(20) + whole[60:],
                b"<html>",
                gzip.compress(b"{}"),
                gzip.compress(b'{"Records": null}'),
                gzip.compress(b'{"Records": "none"}'),
            )
        )


def _calls() -> tuple[Record, ...]:
    root = {"type": "Root", "arn": "arn:aws:iam::111122223333:root", "accountId": "111122223333", "principalId": "1"}
    user = {
        "type": "IAMUser",
        "arn": "arn:aws:iam::111122223333:user/ana",
        "accountId": "111122223333",
        "principalId": "AIDAEXAMPLE",
        "userName": "ana",
        "accessKeyId": "AKIAEXAMPLE000000001",
    }
    role = {
        "type": "AssumedRole",
        "arn": "arn:aws:sts::111122223333:assumed-role/deploy/ci",
        "accountId": "111122223333",
        "principalId": "AROAEXAMPLE:ci",
        "accessKeyId": "ASIAEXAMPLE000000001",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111122223333:role/deploy"}},
    }

    def call(source: str, name: str, who: Record, **more: Any) -> Record:
        return {"eventSource": f"{source}.amazonaws.com", "eventName": name, "userIdentity": who} | more

    return (
        call("ec2", "DescribeInstances", role, readOnly=True),
        call("ec2", "DescribeInstances", user, readOnly=True),
        call("s3", "GetObject", role, readOnly=True, requestParameters={"bucketName": "data", "key": "ü/1.txt"}),
        call("sts", "AssumeRole", {"type": "AWSService", "invokedBy": "ec2.amazonaws.com"}, readOnly=True),
        call("ec2", "RunInstances", role, readOnly=False, requestParameters={"instanceType": "p4d.24xlarge"}),
        call("iam", "CreateUser", user, readOnly=False, requestParameters={"userName": "bob"}),
        call("iam", "CreateAccessKey", user, readOnly=False, requestParameters={"userName": "bob"}),
        call(
            "iam", "CreateUser", role, errorCode="AccessDenied", errorMessage="not authorized", requestParameters=None
        ),
        call("cloudtrail", "StopLogging", role, readOnly=False, requestParameters={"name": "main"}),
        call("cloudtrail", "StartLogging", role, readOnly=False, requestParameters={"name": "main"}),
        call("cloudtrail", "DeleteTrail", user, readOnly=False, requestParameters={"name": "main"}),
        call("signin", "ConsoleLogin", root, additionalEventData={"MFAUsed": "No"}, eventType="AwsConsoleSignIn"),
        call("iam", "DeactivateMFADevice", user, requestParameters={"userName": "ana", "serialNumber": "arn:mfa/ana"}),
    )


CALLS = _calls()
