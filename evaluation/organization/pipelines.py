"""What machines build: Terraform sets up and tears down, pipelines deliver from rented addresses, programs run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from evaluation.organization.calls import Day, Record, ids, ingress, runner, spaced

REFRESH = (
    "ec2:DescribeVpcs", "ec2:DescribeSubnets", "ec2:DescribeSecurityGroups", "ec2:DescribeRouteTables",
    "ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeImages", "ec2:DescribeInstanceTypes",
    "iam:GetRole", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies", "iam:GetUser", "iam:GetPolicy",
    "s3:GetBucketPolicy", "s3:GetBucketAcl", "s3:GetBucketVersioning", "s3:GetBucketLogging", "s3:GetBucketLocation",
    "cloudtrail:DescribeTrails", "cloudtrail:GetTrailStatus", "lambda:GetFunction20150331v2", "kms:DescribeKey",
    "rds:DescribeDBInstances", "logs:DescribeLogGroups", "secretsmanager:DescribeSecret", "sts:GetCallerIdentity",
)  # fmt: skip
"""What `terraform plan` asks before anything else."""


TRUST = json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]})  # fmt: skip
RIGHTS = json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::e2e-*/*"}]})  # fmt: skip


def terraform(day: Day) -> Iterator[Record]:
    """Development: a stack for tests is set up each working morning and destroyed at noon. Elsewhere: small changes."""
    if not day.is_workday or day.name not in ("development", "production", "shared"):
        return
    for hour in (9, 12) if day.name == "development" else (10.5,):
        address = runner(day.rng)
        begin = day.at(hour, within=0.3)
        caller = day.role("terraform", f"GitHubActions-{day.rng.randrange(10**9)}")
        yield _federated(day, begin, "terraform", address)
        for number, call in enumerate(REFRESH):
            when = begin + timedelta(seconds=5 + number // 6)
            yield day.call(when, call, caller, address)
        steps = {9: _set_up, 12: _tear_down}.get(int(hour), _change)(day)
        for when, (call, request) in zip(spaced(begin + timedelta(seconds=30), 99, 2), steps, strict=False):
            yield day.call(when, call, caller, address, request=request, response=_answer(day, call))


def _names(day: Day) -> dict[str, str]:
    stamp = f"{day.date:%m%d}"
    return {
        "bucket": f"e2e-logs-{stamp}", "trail": f"e2e-{stamp}",
        "user": f"e2e-mailer-{stamp}", "role": f"e2e-app-{stamp}",
        "group": f"sg-0e2e{int(stamp):013x}", "instance": f"i-0e2e{int(stamp):013x}", "function": f"e2e-fn-{stamp}",
        "db": f"e2e-db-{stamp}", "flow": f"fl-0e2e{int(stamp):013x}", "vpc": f"vpc-0e2e{int(stamp):013x}",
        "key": f"e2e0e2e0-0000-4000-8000-{int(stamp):012x}", "logs": f"/e2e/{stamp}",
    }  # fmt: skip


def _set_up(day: Day) -> Iterator[tuple[str, Any]]:
    names = _names(day)
    bucket, trail, user, role, group = (names[key] for key in ("bucket", "trail", "user", "role", "group"))
    yield "ec2:CreateVpc", {"cidrBlock": "10.9.0.0/16"}
    yield "ec2:CreateFlowLogs", {"CreateFlowLogsRequest": {"ResourceId": {"tag": 1, "content": names["vpc"]}}}
    yield "ec2:CreateSecurityGroup", {"groupName": "e2e-web", "vpcId": names["vpc"]}
    yield "ec2:AuthorizeSecurityGroupIngress", ingress(group, 443)
    yield "ec2:AuthorizeSecurityGroupEgress", ingress(group, -1)
    yield "s3:CreateBucket", {"bucketName": bucket}
    yield "s3:PutBucketPublicAccessBlock", {"bucketName": bucket, "PublicAccessBlockConfiguration": dict.fromkeys(
        ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True)}  # fmt: skip
    yield "s3:PutBucketPolicy", {"bucketName": bucket, "bucketPolicy": _for_trail(f"arn:aws:s3:::{bucket}/*")}
    yield "cloudtrail:CreateTrail", {"name": trail, "s3BucketName": bucket}
    yield "cloudtrail:StartLogging", {"name": trail}
    yield "iam:CreateRole", {"roleName": role, "assumeRolePolicyDocument": TRUST}
    yield "iam:PutRolePolicy", {"roleName": role, "policyName": "app", "policyDocument": RIGHTS}
    yield (
        "iam:AttachRolePolicy",
        {"roleName": role, "policyArn": "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"},
    )
    yield "iam:CreateInstanceProfile", {"instanceProfileName": role}
    yield "iam:AddRoleToInstanceProfile", {"instanceProfileName": role, "roleName": role}
    image = {"imageId": "ami-0123456789abcdef0", "minCount": 1, "maxCount": 1}
    yield "ec2:RunInstances", {"instanceType": "t3.small", "iamInstanceProfile": {"name": role},
                               "instancesSet": {"items": [image]}}  # fmt: skip
    yield (
        "lambda:CreateFunction20150331",
        {"functionName": names["function"], "role": f"arn:aws:iam::{day.account}:role/{role}"},
    )
    yield (
        "rds:CreateDBInstance",
        {"dBInstanceIdentifier": names["db"], "publiclyAccessible": False, "masterUserPassword": "****"},
    )
    yield "kms:CreateKey", {"keyUsage": "ENCRYPT_DECRYPT"}
    yield "logs:CreateLogGroup", {"logGroupName": names["logs"]}
    yield "logs:PutRetentionPolicy", {"logGroupName": names["logs"], "retentionInDays": 30}
    if day.date.weekday() == 0:
        yield "iam:CreateUser", {"userName": user, "path": "/e2e/"}


def _for_trail(objects: str) -> dict[str, Any]:
    """CloudTrail may write, nobody may do anything in the clear."""
    return {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "cloudtrail.amazonaws.com"}, "Action": "s3:PutObject",
         "Resource": objects},
        {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": objects,
         "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
    ]}  # fmt: skip


def _answer(day: Day, call: str) -> Any:
    """What AWS tells of the thing it has made, where a detection would want to know."""
    names = _names(day)
    return {
        "ec2:CreateFlowLogs": {"CreateFlowLogsResponse": {"unsuccessful": "", "flowLogIdSet": {"item": names["flow"]}}},
        "kms:CreateKey": {"keyMetadata": {"keyId": names["key"]}},
    }.get(call)


def _tear_down(day: Day) -> Iterator[tuple[str, Any]]:
    names = _names(day)
    yield "cloudtrail:DeleteTrail", {"name": names["trail"]}
    yield "s3:DeleteBucket", {"bucketName": names["bucket"]}
    yield "ec2:RevokeSecurityGroupIngress", ingress(names["group"], 443)
    yield "ec2:TerminateInstances", {"instancesSet": {"items": [{"instanceId": names["instance"]}]}}
    yield "lambda:DeleteFunction20150331", {"functionName": names["function"]}
    yield "rds:DeleteDBInstance", {"dBInstanceIdentifier": names["db"], "skipFinalSnapshot": True}
    yield "iam:RemoveRoleFromInstanceProfile", {"instanceProfileName": names["role"], "roleName": names["role"]}
    yield "iam:DeleteInstanceProfile", {"instanceProfileName": names["role"]}
    yield (
        "iam:DetachRolePolicy",
        {"roleName": names["role"], "policyArn": "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"},
    )
    yield "iam:DeleteRolePolicy", {"roleName": names["role"], "policyName": "app"}
    yield "iam:DeleteRole", {"roleName": names["role"]}
    yield "ec2:DeleteSecurityGroup", {"groupId": names["group"]}
    yield "ec2:DeleteFlowLogs", {"DeleteFlowLogsRequest": {"FlowLogId": {"tag": 1, "content": names["flow"]}}}
    yield "ec2:DeleteVpc", {"vpcId": names["vpc"]}
    yield "logs:DeleteLogGroup", {"logGroupName": names["logs"]}
    yield "kms:ScheduleKeyDeletion", {"keyId": names["key"], "pendingWindowInDays": 30}
    if day.date.weekday() == 0:
        yield "iam:DeleteUser", {"userName": names["user"]}


def _change(day: Day) -> Iterator[tuple[str, Any]]:
    yield "ec2:AuthorizeSecurityGroupIngress", ingress("sg-0b1b2c3d4e5f60718", 443)
    yield "lambda:UpdateFunctionConfiguration20150331v2", {"functionName": "orders-sync", "memorySize": 256}
    yield "logs:PutRetentionPolicy", {"logGroupName": "/app/orders", "retentionInDays": 90}
    yield "s3:PutBucketLifecycle", {"bucketName": "app-uploads", "LifecycleConfiguration": {"Rule": {
        "ID": "old", "Status": "Enabled", "Expiration": {"Days": 365}}}}  # fmt: skip


def delivery(day: Day) -> Iterator[Record]:
    """Pipelines: each run takes a role by OpenID Connect from another address; one old one still has an access key."""
    if day.name not in ("shared", "production", "development"):
        return
    for _ in range(day.rng.randrange(4, 9) if day.is_workday else 1):
        begin, address = day.at(8, within=9), runner(day.rng)
        caller = day.role("deploy", f"GitHubActions-{day.rng.randrange(10**9)}")
        yield _federated(day, begin, "deploy", address)
        steps: list[tuple[str, Any]] = [
            ("sts:GetCallerIdentity", None),
            ("ecr:GetAuthorizationToken", {}),
            ("ecr:BatchGetImage", {"repositoryName": "orders"}),
            ("ecr:PutImage", {"repositoryName": "orders", "imageTag": f"v{day.number}"}),
            ("ssm:GetParameter", {"name": "/deploy/token", "withDecryption": True}),
            ("lambda:UpdateFunctionCode20150331v2", {"functionName": "orders-sync"}),
            ("ecs:DescribeServices", {"cluster": "main"}),
            ("ecs:UpdateService", {"cluster": "main", "service": "orders"}),
        ]
        for when, (call, request) in zip(spaced(begin + timedelta(seconds=5), 8, 9), steps, strict=True):
            yield day.call(when, call, caller, address, request=request)
    if day.name == "shared":
        for when in spaced(day.at(1), 4, 6 * 3600):
            address = runner(day.rng)
            for call in ("sts:GetCallerIdentity", "s3:ListBuckets", "cloudfront:CreateInvalidation"):
                yield day.call(when, call, day.user("site-publisher"), address)


def _federated(day: Day, when: datetime, role: str, address: str) -> Record:
    who = {
        "type": "WebIdentityUser",
        "principalId": f"repo:example/{role}:ref:refs/heads/main",
        "userName": f"repo:example/{role}",
    }
    arn = f"arn:aws:iam::{day.account}:role/{role}"
    return day.call(when, "sts:AssumeRoleWithWebIdentity", who, address, readOnly=True, request={"roleArn": arn})


def programs(day: Day) -> Iterator[Record]:
    """Applications: secrets at start, keys all day, a nightly report, tables and objects."""
    if day.name != "production":
        return
    for name, address in (("orders-api", "192.0.2.60"), ("billing-worker", "192.0.2.61")):
        caller = day.role(name, ids(day.rng, "task", 1)[0])
        begin = day.at(5, within=1)
        for task in range(6):
            for secret in ("db", "stripe", "mail"):
                yield day.call(begin + timedelta(seconds=task), "secretsmanager:GetSecretValue", caller, address,
                               request={"secretId": f"prod/{name}/{secret}"})  # fmt: skip
        for when in spaced(begin, 60, 1100):
            yield day.call(when, "kms:Decrypt", caller, address, request={"encryptionContext": {"app": name}})
    reporter = day.role("reporting", "nightly")
    for when in spaced(day.at(4), 20, 6):
        yield day.call(when, "logs:FilterLogEvents", reporter, "192.0.2.62", request={"logGroupName": "/app/orders"})
        yield day.call(when, "rds:DescribeDBInstances", reporter, "192.0.2.62")
