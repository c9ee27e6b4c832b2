"""Backups: state and lake as docs/operations.md says, restored, compared, and gone on with."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import boto3
import pytest

from tests import postgres as installed
from tests.cli.conftest import Kyra, bucket, kyra, put, record  # noqa: F401  (fixtures)


@pytest.fixture(params=["folder", "s3"])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the lake is on S3; else it is in the home."""
    if request.param == "s3":
        request.getfixturevalue("s3_server")
        boto3.client("s3").create_bucket(Bucket="example-lake")
        monkeypatch.setenv("KYRA_LAKE", "s3://example-lake/lake")
    return bool(request.param == "s3")


def fetch(target: Path) -> None:
    """`aws s3 sync s3://example-lake/lake TARGET`."""
    client = boto3.client("s3")
    for found in client.list_objects_v2(Bucket="example-lake", Prefix="lake/")["Contents"]:
        if found["Key"].endswith("/"):
            continue
        path = target / found["Key"].removeprefix("lake/")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file("example-lake", found["Key"], str(path))


def bring_back(source: Path) -> None:
    """`aws s3 sync --delete SOURCE s3://example-lake/lake`."""
    client = boto3.client("s3")
    for found in client.list_objects_v2(Bucket="example-lake", Prefix="lake/")["Contents"]:
        client.delete_object(Bucket="example-lake", Key=found["Key"])
    for path in source.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "example-lake", f"lake/{path.relative_to(source).as_posix()}")


@pytest.fixture
def backup(kyra: Kyra, kyra_home: Path, bucket: Path, tmp_path: Path, s3: bool) -> Path:  # noqa: F811
    """A backup of a home with two log files: the state first, then the lake."""
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())
    assert kyra("sync", "prod").code == 0
    kept = tmp_path / "backup"
    kept.mkdir()
    with sqlite3.connect(kyra_home / "state.db") as source, sqlite3.connect(kept / "state.db") as copy:
        source.backup(copy)
    source.close()
    copy.close()
    put(bucket, "later", record("e9", eventTime="2026-01-11T10:00:00Z"), day="2026/01/11")
    assert kyra("sync", "prod").code == 0  # between the two steps of the backup
    if s3:
        fetch(kept / "lake")
    else:
        shutil.copytree(kyra_home / "lake", kept / "lake")
    return kept


def restored(home: Path, kept: Path, s3: bool) -> None:
    if s3:
        bring_back(kept / "lake")
    else:
        shutil.rmtree(home / "lake")
        shutil.copytree(kept / "lake", home / "lake")
    for path in home.glob("state.db*"):
        path.unlink()
    shutil.copy(kept / "state.db", home / "state.db")


def events(kyra: Kyra) -> list[str]:  # noqa: F811
    rows = kyra("sql", "SELECT event_id FROM events ORDER BY 1", "--json").json
    return [row["event_id"] for row in rows]


def test_a_lake_younger_than_its_state_is_made_whole_by_the_next_sync(
    kyra: Kyra,  # noqa: F811
    kyra_home: Path,
    backup: Path,
    s3: bool,
) -> None:
    restored(kyra_home, backup, s3)
    assert events(kyra) == ["e1", "e2", "e3"]

    report = kyra("sync", "prod", "--json").json

    assert (report["loaded"], report["events"]) == (1, 1)
    assert events(kyra) == ["e1", "e2", "e3", "e9"]


def test_the_check_names_what_a_restored_lake_lacks(
    kyra: Kyra,  # noqa: F811
    kyra_home: Path,
    backup: Path,
    s3: bool,
) -> None:
    for path in sorted((backup / "lake").glob("events/account=*/date=2026-01-10/*.parquet")):
        path.unlink()
    restored(kyra_home, backup, s3)

    ran = kyra("maintain", "check")

    assert ran.code == 1
    assert "2026-01-10" in ran.out + ran.err
    told = kyra("maintain", "restore")
    assert told.code == 1
    assert "1 file of the ledger cannot be found. `kyra maintain check` names them." in told.err


def test_a_state_older_than_a_compaction_is_fitted_to_the_lake_without_losing_or_doubling_an_event(
    kyra: Kyra,  # noqa: F811
    kyra_home: Path,
    backup: Path,
    bucket: Path,  # noqa: F811
    s3: bool,
) -> None:
    # The lake lives on, compacted; only the state is lost.
    assert kyra("maintain", "compact", "--to", "2026-01-31").code == 0
    for path in kyra_home.glob("state.db*"):
        path.unlink()
    shutil.copy(backup / "state.db", kyra_home / "state.db")
    assert kyra("sql", "SELECT event_id FROM events").code == 1
    before = kyra("maintain", "check")
    assert before.code == 1
    assert "kyra maintain restore" in before.out

    told = kyra("maintain", "restore", "--dry-run", "--json").json
    assert kyra("sql", "SELECT event_id FROM events").code == 1, "a dry run moves nothing"
    done = kyra("maintain", "restore", "--json").json

    assert done == {**told, "dry_run": False}
    assert {path.partition("/")[0] for path in done["brought_back"]} == {"events", "activity"}
    assert {path.partition("/")[0] for path in done["set_aside"]} == {"events", "activity"}
    assert events(kyra) == ["e1", "e2", "e3"]
    assert kyra("maintain", "check").code == 0
    assert (kyra("sync", "prod", "--json").json["loaded"], events(kyra)) == (1, ["e1", "e2", "e3", "e9"])
    assert kyra("maintain", "compact", "--to", "2026-01-31").code == 0
    assert (kyra("maintain", "check").code, events(kyra)) == (0, ["e1", "e2", "e3", "e9"])
    again = kyra("maintain", "restore", "--json").json
    assert (again["brought_back"], again["set_aside"], again["missing"]) == ([], [], [])


@pytest.mark.slow
def test_a_state_in_postgresql_is_dumped_and_restored(
    kyra: Kyra,  # noqa: F811
    kyra_home: Path,
    bucket: Path,  # noqa: F811
    postgres: installed.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tools = {name: installed.tool(name) for name in ("pg_dump", "pg_restore")}
    monkeypatch.setenv("KYRA_STATE_URL", url := postgres.create())
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())
    assert kyra("sync", "prod").code == 0
    dump = str(tmp_path / "state-backup.dump")
    subprocess.run([tools["pg_dump"], "--format=custom", "--file", dump, url], check=True)
    put(bucket, "later", record("e9", eventTime="2026-01-11T10:00:00Z"), day="2026/01/11")
    assert kyra("sync", "prod").code == 0

    monkeypatch.setenv("KYRA_STATE_URL", fresh := postgres.create())
    subprocess.run([tools["pg_restore"], "--no-owner", "--dbname", fresh, dump], check=True)

    assert events(kyra) == ["e1", "e2", "e3"]
    assert kyra("sync", "prod", "--json").json["loaded"] == 1
    assert events(kyra) == ["e1", "e2", "e3", "e9"]
