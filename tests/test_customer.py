"""What a customer does on the first day, by the command line alone and over real HTTP.

Connect an account, see its log files arrive, find a call, see the status move.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.planted import EXTERNAL_ID

ACCOUNT = "012345678901"
BUCKET = "acme-trail"
NOW = datetime.now(UTC)

Kyra = Callable[..., Any]


@pytest.fixture
def kyra(kyra_home: Path, s3_server: str) -> Kyra:
    """Run one command as a user would; give back its JSON document."""

    def run(*arguments: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "kyra_etl", *arguments, "--json"],
            env=os.environ | {"KYRA_HOME": str(kyra_home), "AWS_ENDPOINT_URL": s3_server},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert EXTERNAL_ID not in done.stdout + done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def put(s3_server: str) -> Callable[..., None]:
    s3 = boto3.client("s3", endpoint_url=s3_server)
    s3.create_bucket(Bucket=BUCKET)

    def upload(minute: str, *records: dict[str, Any]) -> None:
        folder = f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/{NOW:%Y/%m/%d}"
        name = f"{ACCOUNT}_CloudTrail_eu-west-1_{NOW:%Y%m%d}T{minute}Z_{minute}abcdefghijkl.json.gz"
        s3.put_object(
            Bucket=BUCKET,
            Key=f"{folder}/{name}",
            Body=gzip.compress(json.dumps({"Records": list(records)}).encode()),
        )

    return upload


def call(event_id: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "eventVersion": "1.11",
        "eventID": event_id,
        "eventTime": f"{NOW - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": "ec2.amazonaws.com",
        "eventName": name,
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "198.51.100.7",
        "userIdentity": {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/ana", "userName": "ana"},
        "requestParameters": {"groupName": "web", "groupId": "sg-0a1b2c3d"},
        "readOnly": False,
        "eventType": "AwsApiCall",
        "recipientAccountId": ACCOUNT,
    } | fields


def add(kyra: Kyra) -> None:
    kyra(
        "integration",
        "add",
        "acme",
        "--account-id",
        ACCOUNT,
        "--role-arn",
        f"arn:aws:iam::{ACCOUNT}:role/KYRACloudSensor",
        "--external-id",
        EXTERNAL_ID,
        "--bucket",
        BUCKET,
        "--region",
        "us-east-1",
    )


def test_security_group_calls_are_found_after_one_sync_and_the_status_moves(
    kyra: Kyra, put: Callable[..., None]
) -> None:
    add(kyra)
    (before,) = kyra("status")["integrations"]
    assert (before["state"], before["events_processed"], before["last_sync_at"]) == ("Pending", 0, None)

    put("0005", call("e-1", "CreateSecurityGroup"), call("e-2", "DeleteSecurityGroup"))
    report = kyra("sync", "acme")

    assert (report["loaded"], report["events"]) == (1, 2)
    found = kyra("search", "source_type:aws-cloudtrail event_name:CreateSecurityGroup")
    assert [(event["event_id"], event["account"]) for event in found] == [("e-1", ACCOUNT)]
    (after,) = kyra("status", "acme")["integrations"]
    assert (after["state"], after["events_processed"]) == ("Connected", 2)
    assert after["last_sync_at"]
    assert [(row["account"], row["region"]) for row in after["checkpoints"]] == [(ACCOUNT, "eu-west-1")]

    put("0010", call("e-3", "CreateSecurityGroup"))
    assert kyra("sync", "acme")["events"] == 1
    (later,) = kyra("status")["integrations"]
    assert later["events_processed"] == 3


def test_a_second_sync_finds_nothing_new_and_says_so(kyra: Kyra, put: Callable[..., None]) -> None:
    add(kyra)
    put("0005", call("e-1", "RunInstances"))
    kyra("sync")

    report = kyra("sync")

    assert (report["listed"], report["already_loaded"], report["loaded"], report["events"]) == (1, 1, 0, 0)


def test_an_alert_of_the_second_sync_is_live_that_of_the_first_is_history(kyra: Kyra, put: Callable[..., None]) -> None:
    stopped = {"eventSource": "cloudtrail.amazonaws.com", "requestParameters": {"name": "main"}}
    add(kyra)
    put("0005", call("e-1", "StopLogging", **stopped))
    assert kyra("sync")["alerts"] == 1
    put("0010", call("e-2", "StopLogging", **stopped | {"requestParameters": {"name": "other"}}))
    assert kyra("sync")["alerts"] == 1

    alerts = {alert["target"]: alert for alert in kyra("alerts", "list")}

    assert (alerts["main"]["historical"], alerts["other"]["historical"]) == (True, False)
    assert "T1562.008" in alerts["main"]["attack_legacy"]
    assert alerts["main"]["account"] == ACCOUNT


def test_a_bucket_that_is_not_there_fails_with_one_line_that_says_what_to_do(
    kyra: Kyra, kyra_home: Path, s3_server: str
) -> None:
    add(kyra)

    done = subprocess.run(
        [sys.executable, "-m", "kyra_etl", "sync", "acme"],
        env=os.environ | {"KYRA_HOME": str(kyra_home), "AWS_ENDPOINT_URL": s3_server},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 1
    assert BUCKET in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    (status,) = kyra("status")["integrations"]
    assert status["state"] == "Failed"
    assert status["next_step"]
