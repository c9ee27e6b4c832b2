"""What all sources of an organization's everyday noise are made of: accounts, days, callers and calls.

Addresses come from documentation ranges (RFC 5737, RFC 3849) and, where many networks are needed, from the range for
benchmarks (RFC 2544).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from random import Random
from typing import Any

Record = dict[str, Any]

ACCOUNTS: Mapping[str, str] = {
    "management": "100200300401",
    "security": "100200300402",
    "shared": "100200300403",
    "production": "100200300404",
    "development": "100200300405",
}
BEGIN = datetime(2026, 3, 2)
"""A Monday."""

HOME = "eu-west-1"
REGIONS = (
    "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2",
    "ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1",
    "us-east-1", "us-east-2", "us-west-1", "us-west-2",
)  # fmt: skip
"""The regions every account has from the start."""

GLOBAL = frozenset({"iam", "cloudfront", "route53", "organizations"})


@dataclass(frozen=True)
class Day:
    """One account's day, with randomness of its own: the same seed makes the same day, whatever else is made."""

    seed: int
    source: str
    name: str
    number: int

    @property
    def account(self) -> str:
        return ACCOUNTS[self.name]

    @property
    def date(self) -> datetime:
        return BEGIN + timedelta(days=self.number)

    @property
    def is_workday(self) -> bool:
        return self.date.weekday() < 5

    @cached_property
    def rng(self) -> Random:
        return Random(f"{self.seed}/{self.source}/{self.name}/{self.number}")

    def at(self, hour: float, within: float = 0.0) -> datetime:
        """A moment at this hour (7.5 is half past seven) or up to `within` hours later."""
        return self.date + timedelta(seconds=round(3600 * (hour + self.rng.random() * within)))

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def call(
        self,
        when: datetime,
        call: str,
        who: Mapping[str, Any],
        address: str,
        *,
        region: str = HOME,
        request: Any = None,
        response: Any = None,
        error: str | None = None,
        **said: Any,
    ) -> Record:
        """One record: `call` is `ec2:DescribeInstances`; its name tells whether it reads, unless `readOnly` is said."""
        service, _, name = call.partition(":")
        failed = {"errorCode": error, "errorMessage": f"{error}: not authorized"} if error else {}
        return {
            "eventVersion": "1.09",
            "userIdentity": who,
            "eventTime": f"{when:%Y-%m-%dT%H:%M:%SZ}",
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "awsRegion": "us-east-1" if service in GLOBAL else region,
            "sourceIPAddress": address,
            "userAgent": "aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22",
            "requestParameters": request,
            "responseElements": response,
            "requestID": self._id(),
            "eventID": self._id(),
            "readOnly": name.startswith(("Get", "List", "Describe", "Lookup", "Search", "BatchGet", "Head")),
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": self.account,
            "eventCategory": "Management",
            **failed,
            **said,
        }

    def _id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    # ── callers ──

    def role(self, name: str, session: str, *, path: str = "", **said: Any) -> dict[str, Any]:
        """A session of a role of this account; `path` as in service-role/."""
        return {
            "type": "AssumedRole",
            "principalId": f"AROA{_mark(name, self.account)}:{session}",
            "arn": f"arn:aws:sts::{self.account}:assumed-role/{name}/{session}",
            "accountId": self.account,
            "accessKeyId": f"ASIA{_mark(name, session, self.account, str(self.number))}",
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role",
                    "principalId": f"AROA{_mark(name, self.account)}",
                    "arn": f"arn:aws:iam::{self.account}:role/{path}{name}",
                    "accountId": self.account,
                    "userName": name,
                },
                "attributes": {"creationDate": f"{self.date:%Y-%m-%dT00:00:00Z}", "mfaAuthenticated": "false"},
            },
            **said,
        }

    def linked(self, name: str, session: str, service: str) -> dict[str, Any]:
        """A service at work under its service-linked role."""
        path = f"aws-service-role/{service}.amazonaws.com/"
        return self.role(name, session, path=path, invokedBy=f"{service}.amazonaws.com")

    def person(self, who: str, permissions: str) -> dict[str, Any]:
        """Somebody signed in by single sign-on."""
        name = f"AWSReservedSSO_{permissions}_{_mark(permissions, self.account)[:16].lower()}"
        return self.role(name, who, path="aws-reserved/sso.amazonaws.com/eu-west-1/")

    def user(self, name: str) -> dict[str, Any]:
        """An IAM user with an access key."""
        return {
            "type": "IAMUser",
            "principalId": f"AIDA{_mark(name, self.account)}",
            "arn": f"arn:aws:iam::{self.account}:user/{name}",
            "accountId": self.account,
            "accessKeyId": f"AKIA{_mark(name, self.account)}",
            "userName": name,
        }


def service(name: str) -> dict[str, Any]:
    """A service calling for itself."""
    return {"type": "AWSService", "invokedBy": f"{name}.amazonaws.com"}


def runner(rng: Random) -> str:
    """The address of a machine that is rented for one run: another network each time."""
    return f"198.{rng.choice((18, 19))}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def ids(rng: Random, prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{rng.getrandbits(68):017x}" for _ in range(count)]


def spaced(begin: datetime, count: int, seconds: float) -> Iterator[datetime]:
    return (begin + timedelta(seconds=round(number * seconds)) for number in range(count))


def ingress(group: str, port: int, cidr: str = "0.0.0.0/0") -> dict[str, Any]:
    """The request that opens a port of a security group to a network; every port and protocol below 0."""
    ports = {"ipProtocol": "-1"} if port < 0 else {"ipProtocol": "tcp", "fromPort": port, "toPort": port}
    whom = {"groups": {}, "ipv6Ranges": {}, "prefixListIds": {}, "ipRanges": {"items": [{"cidrIp": cidr}]}}
    return {"groupId": group, "ipPermissions": {"items": [{**ports, **whom}]}}


def _mark(*parts: str) -> str:
    """Sixteen letters that stand for something, always the same."""
    return uuid.uuid5(uuid.NAMESPACE_OID, "/".join(parts)).hex[:16].upper()
