"""What AWS's services do in every account: recording in all regions, scaling, backing up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from evaluation.organization.calls import HOME, REGIONS, Day, Record, ids, service, spaced

RECORDER = (
    "ec2:DescribeInstances", "ec2:DescribeSecurityGroups", "ec2:DescribeVpcs", "ec2:DescribeVolumes",
    "ec2:DescribeSnapshots", "lambda:ListFunctions20150331", "rds:DescribeDBInstances", "kms:ListKeys",
    "dynamodb:ListTables", "sns:ListTopics", "sqs:ListQueues", "logs:DescribeLogGroups",
)  # fmt: skip


def fan_out(day: Day) -> Iterator[Record]:
    """AWS Config, Security Hub, Control Tower and StackSets, in 17 regions."""
    config = day.linked("AWSServiceRoleForConfig", "configLambdaExecution", "config")
    hub = day.linked("AWSServiceRoleForSecurityHub", "securityhub", "securityhub")
    landing = day.role("AWSControlTowerExecution", "AWSControlTowerLandingZone", invokedBy="AWS Internal")
    for region in REGIONS:
        begin = day.at(2, within=20)
        for when, call in zip(spaced(begin, 6, 2), day.rng.sample(RECORDER, 6), strict=True):
            yield day.call(when, call, config, "config.amazonaws.com", region=region)
        for call in ("ec2:DescribeFlowLogs", "cloudtrail:DescribeTrails", "config:DescribeConfigurationRecorders"):
            yield day.call(day.at(3, within=3), call, hub, "securityhub.amazonaws.com", region=region)
        yield day.call(
            day.at(5, within=1), "sts:AssumeRole", service("config"), "config.amazonaws.com", region=region,
            request={"roleArn": config["sessionContext"]["sessionIssuer"]["arn"]},
        )  # fmt: skip
        if day.number % 7 == 1 and day.name != "management":
            for call in ("config:DescribeConfigRules", "config:PutConfigRule", "config:DescribeDeliveryChannels"):
                yield day.call(day.at(4, within=0.2), call, landing, "AWS Internal", region=region)
        if day.number == 16 and day.name != "management":
            sets = day.role("stacksets-exec-9b2c", "AWSCloudFormation", invokedBy="cloudformation.amazonaws.com")
            for call in ("sns:CreateTopic", "events:PutRule", "lambda:CreateFunction20150331", "ec2:CreateVpcEndpoint"):
                yield day.call(day.at(10, within=0.3), call, sets, "cloudformation.amazonaws.com", region=region)
    yield day.call(day.at(1), "kms:RotateKey", {"accountId": day.account, "invokedBy": "AWS Internal"}, "AWS Internal",
                   eventType="AwsServiceEvent")  # fmt: skip
    for when in spaced(day.at(0), 24, 3600):
        yield day.call(when, "s3:GetBucketAcl", service("cloudtrail"), "cloudtrail.amazonaws.com",
                       request={"bucketName": "org-trail-logs"})  # fmt: skip


def scaling(day: Day) -> Iterator[Record]:
    """A fleet that grows by day and shrinks by night; its instances report and read their configuration."""
    if day.name not in ("production", "development"):
        return
    scaler = day.linked("AWSServiceRoleForAutoScaling", "AutoScaling", "autoscaling")
    fleet = ids(day.rng, "i", 12 if day.is_workday else 5)
    for number, instance in enumerate(fleet):
        begin = day.at(6.5 + number * 0.25, within=0.2)
        yield day.call(begin, "ec2:RunInstances", scaler, "autoscaling.amazonaws.com",
                       request={"instanceType": "m6i.large", "minCount": 1, "maxCount": 1},
                       response={"instancesSet": {"items": [{"instanceId": instance}]}})  # fmt: skip
        own = day.role("web-instance", instance)
        address = f"192.0.2.{10 + number}"
        for call in ("ssm:UpdateInstanceInformation", "ssm:GetParameters", "s3:GetBucketLocation",
                     "autoscaling:DescribeAutoScalingInstances", "sts:GetCallerIdentity"):  # fmt: skip
            request = {"names": ["/web/config"], "withDecryption": True} if call == "ssm:GetParameters" else {}
            yield day.call(
                begin + timedelta(seconds=90), call, own, address, request={"instanceId": instance, **request}
            )
        for when in spaced(begin + timedelta(minutes=5), 3, 7200):
            yield day.call(when, "ssm:UpdateInstanceInformation", own, address, request={"instanceId": instance})
    for when, instance in zip(spaced(day.at(20), len(fleet), 8), fleet, strict=True):
        yield day.call(when, "ec2:TerminateInstances", scaler, "autoscaling.amazonaws.com",
                       request={"instancesSet": {"items": [{"instanceId": instance}]}})  # fmt: skip


def backups(day: Day) -> Iterator[Record]:
    """AWS Backup and RDS at night: copies are made, those past their time are destroyed."""
    if day.name not in ("production", "shared"):
        return
    vault = day.role("AWSBackupDefaultServiceRole", "AWSBackup-service", path="service-role/",
                     invokedBy="backup.amazonaws.com")  # fmt: skip
    for when, volume in zip(spaced(day.at(2), 8, 20), ids(day.rng, "vol", 8), strict=True):
        yield day.call(when, "ec2:CreateSnapshot", vault, "backup.amazonaws.com", request={"volumeId": volume})
    for when, snapshot in zip(spaced(day.at(3), 8, 3), ids(day.rng, "snap", 8), strict=True):
        yield day.call(when, "ec2:DeleteSnapshot", vault, "backup.amazonaws.com", request={"snapshotId": snapshot})
    for when, point in zip(spaced(day.at(3.1), 8, 4), ids(day.rng, "rp", 8), strict=True):
        yield day.call(when, "backup:DeleteRecoveryPoint", vault, "backup.amazonaws.com",
                       request={"recoveryPointArn": f"arn:aws:backup:{HOME}::{point}"})  # fmt: skip
    for when in spaced(day.at(3.5), 4, 5):
        stamp = f"{day.date:%Y-%m-%d}-{when:%S}"
        yield day.call(when, "rds:DeleteDBSnapshot", service("rds"), "rds.amazonaws.com",
                       request={"dBSnapshotIdentifier": f"rds:{stamp}"})  # fmt: skip
        yield day.call(when, "rds:CreateDBSnapshot", service("rds"), "rds.amazonaws.com",
                       request={"dBInstanceIdentifier": "orders", "dBSnapshotIdentifier": f"rds:{stamp}"})  # fmt: skip
