"""The same verbs with the customer's bucket and the lake on S3, over HTTP."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs

from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.cli.conftest import ACCOUNT, Kyra, record
from tests.wire import WIRE, refuse


@pytest.fixture
def s3(s3_server: str) -> Any:
    client = boto3.client("s3")
    for bucket in ("example-lake", "example-logs", "example-other"):
        client.create_bucket(Bucket=bucket)
    return client


def put(s3: Any, name: str, *records: dict[str, Any]) -> str:
    """A log file of just now: of older ones status says that they came late. The day of its events."""
    now = datetime.now(UTC)
    key = f"trails/AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/{now:%Y/%m/%d}/{name}.json.gz"
    delivered = [{**one, "eventTime": f"{now:%Y-%m-%dT%H:%M:%SZ}"} for one in records]
    s3.put_object(Bucket="example-logs", Key=key, Body=gzip.compress(json.dumps({"Records": delivered}).encode()))
    return f"{now:%Y-%m-%d}"


def test_road_from_bucket_to_lake_on_s3(kyra: Kyra, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KYRA_LAKE", "s3://example-lake/kyra")
    put(s3, "one", record("e1", "CreateSecurityGroup"), record("e2"))
    assert kyra("integration", "add", "prod", "--bucket", "example-logs", "--prefix", "trails").code == 0
    assert kyra("check", "prod").code == 0

    assert kyra("sync", "prod", "--json").json["events"] == 2
    put(s3, "0-older-by-name", record("e3", "CreateSecurityGroup"))
    assert kyra("sync", "prod", "--json").json["events"] == 1
    assert kyra("sync", "prod", "--json").json["listed"] == 2

    found = kyra("search", "event_name:CreateSecurityGroup", "--json").json
    assert sorted(event["event_id"] for event in found) == ["e1", "e3"]
    assert kyra("sql", "SELECT account, count(*) AS n FROM events GROUP BY 1", "--json").json == [
        {"account": ACCOUNT, "n": 3}
    ]
    (one,) = kyra("status", "--json").json["integrations"]
    assert (one["state"], one["events_processed"]) == ("Connected", 3)


def test_query_reaches_no_other_object(kyra: Kyra, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KYRA_LAKE", "s3://example-lake/kyra")
    put(s3, "one", record("e1"))
    kyra("integration", "add", "prod", "--bucket", "example-logs", "--prefix", "trails")
    kyra("sync", "prod")
    (file,) = [
        item["Key"]
        for item in s3.list_objects_v2(Bucket="example-lake", Prefix="kyra/events/")["Contents"]
        if item["Key"].endswith(".parquet")
    ]
    content = s3.get_object(Bucket="example-lake", Key=file)["Body"].read()
    s3.put_object(Bucket="example-other", Key="x.parquet", Body=content)

    for query in (
        "SELECT * FROM 's3://example-other/x.parquet' -- events",
        "SELECT * FROM 's3://example-lake/kyra/**/*.parquet' -- events",
        f"COPY (SELECT 1) TO 's3://example-lake/{file}' -- events",
        f"WITH x AS (COPY (SELECT 1) TO 's3://example-lake/{file}' (FORMAT parquet, USE_TMP_FILE false)) FROM events",
    ):
        assert kyra("sql", query).code == 2, query
    assert s3.get_object(Bucket="example-lake", Key=file)["Body"].read() == content


def test_object_that_leaves_while_it_is_read_is_looked_for_again(
    kyra: Kyra, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KYRA_LAKE", "s3://example-lake/kyra")
    day = put(s3, "one", record("e1"))
    kyra("integration", "add", "prod", "--bucket", "example-logs", "--prefix", "trails")
    kyra("sync", "prod")
    left, fetch = [2], s3fs.S3File._fetch_range

    def gone(self: s3fs.S3File, start: int, end: int) -> bytes:
        if left[0] > 0:
            left[0] -= 1
            raise FileNotFoundError("The specified key does not exist.")
        content: bytes = fetch(self, start, end)
        return content

    monkeypatch.setattr(s3fs.S3File, "_fetch_range", gone)

    assert kyra("sql", "SELECT event_id FROM events", "--json").json == [{"event_id": "e1"}]
    assert left == [0]
    left[0] = 1_000
    asked = kyra("sql", "SELECT event_id FROM events")
    said = " ".join(asked.err.split())
    assert asked.code == 1
    assert "The lake cannot be read: FileNotFoundError: The specified key does not exist. `kyra maintain check`" in said
    dry = kyra("detect", "--from", day, "--dry-run", "--detection", "root_account_usage")
    assert "The lake's files cannot be read: FileNotFoundError: The specified key does not exist" in " ".join(
        dry.err.split()
    )


def test_policy_asks_who_we_are(kyra: Kyra, s3_server: str) -> None:
    role = "arn:aws:iam::111122223333:role/reader"
    kyra("integration", "add", "prod", "--bucket", "example-logs", "--role-arn", role)
    trust = kyra("integration", "policy", "prod", "--json").json["documents"]["trust"]

    assert trust["Statement"][0]["Principal"] == {"AWS": "arn:aws:iam::123456789012:role/KYRACloudSensor"}


@pytest.mark.parametrize("names", [("prod",), ()], ids=["by name", "all"])
def test_sync_that_fails_although_it_loaded_reports_what_it_did(
    kyra: Kyra, s3: Any, kyra_home: Path, impatient: None, names: tuple[str, ...]
) -> None:
    """The queue may no longer be read; listing found the log file."""
    put(s3, "one", record("e1"))
    queue = boto3.client("sqs").create_queue(QueueName="notices")["QueueUrl"]
    prod = Integration("prod", "example-logs", prefix="trails", queue_url=queue)
    with State.open(str(kyra_home / "state.db")) as state:
        state.integrations.add(prod, state.now())
    WIRE.rules.append(refuse("sqs:ReceiveMessage", "AccessDenied", "No."))

    ran = kyra("sync", *names, "--json")

    assert ran.code == 1
    assert (ran.json["loaded"], ran.json["events"], len(ran.json["runs"])) == (1, 1, 1)
    assert "sqs:ReceiveMessage" in ran.json["failed"]["prod"]
    assert ran.err.splitlines()[-1] == f"prod: {ran.json['failed']['prod']}"
    ran = kyra("sync", *names)
    assert (ran.code, ran.out.splitlines()[0]) == (
        1,
        "0 log files loaded, 1 already loaded: 0 records, 0 new events.",
    )
