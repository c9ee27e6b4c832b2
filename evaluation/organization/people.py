"""People at work in the console, by single sign-on, from the office and from home."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from evaluation.organization.calls import HOME, REGIONS, Day, Record, ids, ingress, spaced

PEOPLE = {
    "ana@example.com": ("AdministratorAccess", "203.0.113.21", ("production", "development", "shared")),
    "bo@example.com": ("DeveloperAccess", "203.0.113.84", ("development", "production")),
    "chi@example.com": ("DeveloperAccess", "192.0.2.140", ("development",)),
    "dele@example.com": ("ReadOnlyAccess", "203.0.113.150", ("production", "management")),
    "eve@example.com": ("SecurityAudit", "192.0.2.201", ("security", "production")),
}
"""Name → permission set, address at home, and the accounts they look at."""

OFFICE = "198.51.100.20"

PAGES: dict[str, tuple[str, ...]] = {
    "ec2": (
        "ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeSecurityGroups", "ec2:DescribeKeyPairs",
        "ec2:DescribeAddresses", "ec2:DescribeInstanceStatus", "ec2:DescribeSnapshots", "ec2:DescribeImages",
        "autoscaling:DescribeAutoScalingGroups", "elasticloadbalancing:DescribeLoadBalancers",
        "compute-optimizer:GetEnrollmentStatus", "ce:GetCostAndUsage", "servicequotas:ListServiceQuotas",
    ),
    "s3": (
        "s3:ListBuckets", "s3:GetBucketLocation", "s3:GetBucketAcl", "s3:GetBucketPolicyStatus",
        "s3:GetBucketPublicAccessBlock", "s3:GetAccountPublicAccessBlock", "s3:GetBucketVersioning",
    ),
    "rds": (
        "rds:DescribeDBInstances", "rds:DescribeDBClusters", "rds:DescribeDBSnapshots", "rds:DescribeEvents",
        "cloudwatch:GetMetricData", "kms:ListAliases",
    ),
    "iam": (
        "iam:ListUsers", "iam:ListRoles", "iam:ListPolicies", "iam:GetAccountSummary", "iam:ListAccountAliases",
        "iam:ListMFADevices", "iam:ListAccessKeys", "access-analyzer:ListAnalyzers",
    ),
    "cloudwatch": (
        "logs:DescribeLogGroups", "logs:DescribeLogStreams", "cloudwatch:DescribeAlarms", "logs:FilterLogEvents",
    ),
    "secrets": ("secretsmanager:ListSecrets", "secretsmanager:DescribeSecret", "kms:ListAliases"),
}  # fmt: skip

HOME_PAGE = (
    "health:DescribeEventAggregates", "cost-optimization-hub:ListEnrollmentStatuses", "ce:GetCostAndUsage",
    "notifications:ListNotificationHubs", "resource-explorer-2:ListIndexes", "trustedadvisor:ListChecks",
    "securityhub:GetEnabledStandards", "organizations:DescribeOrganization", "freetier:GetFreeTierUsage",
    "billing:GetBillingViewData", "support:DescribeSeverityLevels", "budgets:DescribeBudgets",
)  # fmt: skip
"""What the console's first page asks, whoever opens it, and is refused to most."""


def console(day: Day) -> Iterator[Record]:
    """Everyone's working day: sign in, first page, a few pages, now and then something is changed."""
    if not day.is_workday:
        return
    for who, (permissions, home, accounts) in PEOPLE.items():
        if day.name not in accounts or not day.chance(0.8):
            continue
        caller = day.person(who, permissions)
        address = home if day.date.weekday() in (0, 4) else OFFICE
        begin = day.at(8, within=2)
        yield _sign_in(day, begin, caller, address)
        for number, call in enumerate(HOME_PAGE):
            denied = "AccessDenied" if permissions != "AdministratorAccess" else None
            when = begin + timedelta(seconds=3 + number // 4)
            yield _click(day, when, call, caller, address, error=denied)
        if day.chance(0.5):
            # One page, one call in every region there is.
            for region in REGIONS:
                yield _click(
                    day, begin + timedelta(seconds=20), "lambda:ListFunctions20150331", caller, address, region=region
                )
        for hour in range(day.rng.randrange(2, 5)):
            page = PAGES[day.rng.choice(tuple(PAGES))]
            for number, call in enumerate(page):
                when = begin + timedelta(hours=hour * 1.6, minutes=9, seconds=number // 3)
                yield _click(day, when, call, caller, address)
        yield from _work(day, begin + timedelta(hours=3), who, caller, address)


def _work(day: Day, begin: datetime, who: str, caller: dict[str, Any], address: str) -> Iterator[Record]:
    """What people change by hand in an organization that builds by pipeline: little."""
    if who.startswith(("bo", "chi")) and day.name == "development":
        instance = ids(day.rng, "i", 1)[0]
        yield _click(day, begin, "ec2:StopInstances", caller, address,
                     request={"instancesSet": {"items": [{"instanceId": instance}]}})  # fmt: skip
        yield _click(day, begin + timedelta(minutes=4), "ec2:StartInstances", caller, address,
                     request={"instancesSet": {"items": [{"instanceId": instance}]}})  # fmt: skip
        if day.chance(0.3):
            yield _click(day, begin + timedelta(minutes=30), "secretsmanager:GetSecretValue", caller, address,
                         request={"secretId": "dev/orders/db"})  # fmt: skip
    if who.startswith("ana") and day.chance(0.3):
        yield _click(day, begin, "ec2:AuthorizeSecurityGroupIngress", caller, address,
                     request=ingress("sg-0a1b2c3d4e5f60718", 5432, "10.4.0.0/16"))  # fmt: skip
    if who.startswith("eve"):
        for when in spaced(begin, 6, 300):
            yield _click(day, when, "cloudtrail:LookupEvents", caller, address)
            yield _click(day, when, "guardduty:ListFindings", caller, address)


def _sign_in(day: Day, when: datetime, caller: dict[str, Any], address: str) -> Record:
    return day.call(
        when, "signin:ConsoleLogin", {**caller, "accessKeyId": ""}, address, region=HOME,
        response={"ConsoleLogin": "Success"}, eventType="AwsConsoleSignIn", readOnly=False,
        additionalEventData={"MobileVersion": "No", "MFAUsed": "No"},
    )  # fmt: skip


def _click(day: Day, when: datetime, call: str, caller: dict[str, Any], address: str, **said: Any) -> Record:
    return day.call(when, call, caller, address, sessionCredentialFromConsole="true", **said)
