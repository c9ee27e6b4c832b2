"""`kyra explain`: every event leads back to its log file, batch and run."""

from __future__ import annotations

import gzip
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest

from tests.cli.conftest import ACCOUNT, Kyra, put, record


def add(kyra: Kyra, bucket: Path, name: str = "acme") -> None:
    assert kyra("integration", "add", name, "--bucket", bucket.as_uri()).code == 0


def explained(kyra: Kyra, *arguments: object) -> list[dict[str, Any]]:
    ran = kyra("explain", *arguments, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["event_id"] == arguments[0]
    events: list[dict[str, Any]] = ran.json["events"]
    return events


def test_event_leads_back_to_log_file_batch_run_and_data_file(kyra: Kyra, kyra_home: Path, bucket: Path) -> None:
    add(kyra, bucket)
    report = kyra("sync", "acme", "--json").json

    (one,) = explained(kyra, "e2")

    path = bucket / f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/2026/01/10/one.json.gz"
    file = one["log_file"]
    assert (one["account"], one["event_name"], one["event_time"]) == (ACCOUNT, "StopLogging", "2026-01-10T10:00:00Z")
    assert (file["integration"], file["bucket"]) == ("acme", bucket.as_uri())
    assert file["key"] == one["source_key"] == path.relative_to(bucket).as_posix()
    assert file["etag"] == hashlib.sha256(path.read_bytes()).hexdigest()  # as a folder names a version
    assert file["sha256"] == hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    assert (file["size"], file["uncompressed"]) == (path.stat().st_size, len(gzip.decompress(path.read_bytes())))
    assert file["delivered_at"] == one["delivered_at"]
    assert datetime.fromisoformat(file["delivered_at"]) <= datetime.fromisoformat(file["loaded_at"])
    assert one["batch"]["attempt"] == 1
    assert one["batch"]["committed_at"] == file["loaded_at"]
    assert (one["run"]["run_id"], one["run"]["verb"]) == (report["run_id"], "sync")
    held = kyra_home / "lake" / one["data_file"]
    assert ("e2",) in duckdb.sql(f"SELECT event_id FROM '{held}'").fetchall()


def test_file_that_brought_the_event_again_is_named(kyra: Kyra, bucket: Path) -> None:
    add(kyra, bucket)
    kyra("sync", "acme")
    put(bucket, "three", record("e9", "RunInstances"))  # no duplicate in it
    twin = put(bucket, "two-by-another-trail", record("e3", "DeleteSecurityGroup"), record("e1", "CreateSecurityGroup"))
    kyra("sync", "acme")

    (one,) = explained(kyra, "e3")

    others = {Path(other["key"]).name: other["certain"] for other in one["also_in"]}
    assert others == {twin.name: True}
    (first,) = explained(kyra, "e1")
    assert {Path(other["key"]).name: other["certain"] for other in first["also_in"]} == {
        "two.json.gz": False,
        twin.name: False,
    }


def test_every_event_of_one_id_is_shown(kyra: Kyra, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    put(bucket, "one", record("same"), record("same", recipientAccountId="999900001111"))
    put(bucket, "two", record("same", errorCode="AccessDenied"))
    add(kyra, bucket)
    kyra("sync", "acme")

    events = explained(kyra, "same")
    assert [(each["account"], Path(each["source_key"]).name) for each in events] == [
        (ACCOUNT, "one.json.gz"),
        (ACCOUNT, "two.json.gz"),
        ("999900001111", "one.json.gz"),
    ]
    assert len(explained(kyra, "same", "--account", ACCOUNT)) == 2
    ran = kyra("explain", "same")
    assert ran.out.count("sha256") == 3
    assert "3 events of this id" in ran.err


def test_version_that_brought_the_event_is_told_from_the_one_before(kyra: Kyra, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    path = put(bucket, "one", record("early"))
    add(kyra, bucket)
    kyra("sync", "acme")
    put(bucket, "one", record("early"), record("late"))
    kyra("sync", "acme")

    (late,) = explained(kyra, "late")
    (early,) = explained(kyra, "early")

    assert late["log_file"]["etag"] == hashlib.sha256(path.read_bytes()).hexdigest() != early["log_file"]["etag"]
    assert late["run"]["run_id"] != early["run"]["run_id"]


def test_loaded_file_is_explained_and_its_key_is_never_cut(kyra: Kyra, tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20)
    path = put(folder, "one", record("e1"))
    kyra("load", path)

    (one,) = explained(kyra, "e1", "--date", "2026-01-10")
    assert (one["run"]["verb"], one["batch"]["historical"], one["log_file"]["key"]) == ("load", True, str(path))
    ran = kyra("explain", "e1")
    assert (ran.code, ran.err) == (0, "")
    assert str(path) in ran.out
    assert one["log_file"]["sha256"] in ran.out
    assert one["data_file"] in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(("unheard-of",), 1, "holds no event unheard-of (3 events were looked at)", id="unknown"),
        pytest.param(("e1", "--date", "2026-01-11"), 1, "That part of the lake holds no event e1", id="another day"),
        pytest.param(("e1", "--account", "999900001111"), 1, "That part of the lake holds no", id="another account"),
        pytest.param(("e",), 2, "e is only the beginning of an event id, such as e1", id="the beginning of one"),
        pytest.param(("e1 ",), 2, "has no blanks", id="blanks"),
        pytest.param(("",), 2, "not empty", id="nothing"),
        pytest.param(("e%",), 1, "holds no event e%", id="a pattern"),
        pytest.param(("e1'OR'1'='1",), 1, "holds no event", id="sql"),
        pytest.param(("e1", "--account", "12'"), 2, "--account must be 12 digits", id="no account"),
        pytest.param(("e1", "--date", "soon"), 2, "'soon' is not a time", id="no day"),
    ],
)
def test_what_is_no_known_id_is_refused_with_the_reason(
    kyra: Kyra, bucket: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    kyra("load", bucket)

    ran = kyra("explain", *arguments)

    assert (ran.code, said in ran.error) == (code, True), ran.error


def test_uncommitted_rows_are_not_found(kyra: Kyra, kyra_home: Path, bucket: Path) -> None:
    kyra("load", bucket)
    (file,) = (kyra_home / "lake/events").rglob("*.parquet")
    stranger = file.with_name("stranger.parquet")
    duckdb.sql(f"COPY (SELECT * REPLACE ('other' AS event_id) FROM '{file}') TO '{stranger}' (FORMAT parquet)")

    assert kyra("explain", "other").code == 1


def test_event_in_a_lake_on_s3_is_explained(kyra: Kyra, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KYRA_LAKE", "s3://example-lake/kyra")
    s3 = boto3.client("s3")
    for name in ("example-lake", "example-logs"):
        s3.create_bucket(Bucket=name)
    key = f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/2026/01/10/one.json.gz"
    body = gzip.compress(json.dumps({"Records": [record("e1"), record("e2")]}).encode())
    put_ = s3.put_object(Bucket="example-logs", Key=key, Body=body)
    assert kyra("integration", "add", "prod", "--bucket", "example-logs").code == 0
    assert kyra("backfill", "prod", "--from", "2026-01-10", "--to", "2026-01-10").code == 0

    (one,) = explained(kyra, "e2")

    file = one["log_file"]
    assert (file["bucket"], file["key"], file["etag"]) == ("example-logs", key, put_["ETag"].strip('"'))
    assert file["sha256"] == hashlib.sha256(gzip.decompress(body)).hexdigest()
    assert one["run"]["verb"] == "backfill"
    s3.head_object(Bucket="example-lake", Key=f"kyra/{one['data_file']}")


def test_event_of_a_compacted_day_is_explained_as_before(kyra: Kyra, kyra_home: Path, bucket: Path) -> None:
    add(kyra, bucket)
    kyra("sync", "acme")
    put(bucket, "three", record("e9", "RunInstances"))
    kyra("sync", "acme")
    (before,) = explained(kyra, "e9")

    assert kyra("maintain", "compact", "--json").json["partitions"] == 1

    (after,) = explained(kyra, "e9")
    assert after["data_file"] != before["data_file"]
    assert (kyra_home / "lake" / after["data_file"]).exists()
    assert {**after, "data_file": None} == {**before, "data_file": None}
