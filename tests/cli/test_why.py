"""A sync says where it looked and what it left, so that "nothing new" explains itself."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import boto3
import pytest

from kyra_etl.cli.report import why_lines
from kyra_etl.model import RunReport
from tests.cli.conftest import ACCOUNT, Kyra, put, record

NOW = datetime(2026, 3, 1)


def test_sync_that_brings_nothing_says_where_it_looked_and_why(kyra: Kyra, bucket: Path) -> None:
    put(bucket, "broken").write_bytes(b"no JSON")
    put(bucket, "empty").write_bytes(b"")
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())
    first = kyra("sync", "prod")
    again = kyra("sync", "prod")

    assert first.out.splitlines()[0] == "2 log files loaded: 4 records, 3 new events, 1 duplicate."
    assert "Quarantined 1 log file: 1 not_json." in first.out
    assert again.out.splitlines() == [
        "0 log files loaded, 2 already loaded: 0 records, 0 new events.",
        "Ignored 1 log file: 1 empty.",
        "Quarantined 1 log file: 1 not_json. `kyra quarantine list` tells more.",
        "Listed 4 keys in 1 folder; 4 LIST requests.",
    ]


def test_sync_says_how_late_log_files_came(kyra: Kyra, bucket: Path) -> None:
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())

    late = kyra("sync", "prod").out.splitlines()[-1]

    assert late.startswith("Delivered after their last event: ")
    assert late.endswith(" at most.")


def test_notices_taken_and_left_are_told(kyra: Kyra, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kyra_etl.hints.WAIT_SECONDS", 0)
    boto3.client("s3").create_bucket(Bucket="example-logs")
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="notices")["QueueUrl"]
    key = f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/2026/01/10/one.json"
    boto3.client("s3").put_object(Bucket="example-logs", Key=key, Body=json.dumps({"Records": [record("e1")]}))
    for body in (json.dumps({"s3Bucket": "example-logs", "s3ObjectKey": [key]}), "garbage"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    kyra("integration", "add", "prod", "--bucket", "example-logs", "--queue-url", url)

    out = kyra("sync", "prod").out

    assert "1 log file loaded" in out
    assert "Listed 0 keys in 1 folder, 1 named by notices;" in out
    assert "Took 1 notice (1 files); 1 unknown message left in the queue." in out


def test_folders_left_to_the_next_sync_are_told() -> None:
    report = RunReport(
        "r", "sync", "prod", NOW, listed=7, folders_listed=40, folders_waiting=1960, list_requests=55, carried=2
    )

    lines = why_lines(report)

    assert lines[0] == "Listed 7 keys in 40 folders, 2 carried over from earlier runs; 55 LIST requests."
    assert lines[1].startswith("Left 1,960 folders to the next sync")
    assert "list_budget_run" in lines[1]


def test_run_that_did_nothing_gives_its_reason_alone() -> None:
    assert why_lines(RunReport("r", "sync", "prod", NOW, skipped="the integration is paused")) == []
