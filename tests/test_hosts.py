"""Two hosts: processes with homes of their own, one PostgreSQL for the state, one S3 for the lake."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import duckdb
import pytest
from sqlalchemy import text

from kyra_etl import resources
from kyra_etl.lake import S3Options, open_lake
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests import postgres as installed

ROOT = Path(__file__).resolve().parent.parent
INTEGRATIONS = 50
OF_AN_ACCOUNT = 5
"""Integrations that share an account, and so a partition: neighbours, which the two hosts load at the same time."""
SYNC = """
import sys
from kyra_etl.cli import run
print("ready", file=sys.stderr, flush=True)
sys.stdin.readline()
sys.exit(run(["sync", "--json"]))
"""


@pytest.mark.slow
def test_two_hosts_share_the_syncs_of_many_integrations(
    s3_server: str, postgres: installed.Server, tmp_path: Path
) -> None:
    url = postgres.create()
    s3 = boto3.client("s3", endpoint_url=s3_server)
    for bucket in ("lake", "trails"):
        s3.create_bucket(Bucket=bucket)
    with State.open(url) as state:
        for number in range(INTEGRATIONS):
            name, account = f"customer-{number:02}", f"{number // OF_AN_ACCOUNT:012}"
            state.integrations.add(Integration(name, "trails", account_id=account, prefix=name), state.now())
            event = {"eventID": name, "eventTime": "2026-01-10T10:00:00Z", "eventName": "X"}
            event["recipientAccountId"] = account
            body = gzip.compress(json.dumps({"Records": [event]}).encode())
            s3.put_object(
                Bucket="trails", Key=f"{name}/AWSLogs/{account}/CloudTrail/us-east-1/2026/01/10/a.json.gz", Body=body
            )
    settings = {"STATE_URL": url, "LAKE": "s3://lake/kyra", "LAKE_ENDPOINT_URL": s3_server}
    settings |= {"AWS_ENDPOINT_URL": s3_server}
    env = {**os.environ, **{f"KYRA_{name}": value for name, value in settings.items()}}
    others = sorted({path.stem for path in resources.detections_dir().rglob("*.sql")} - {"cloudtrail_disabled"})
    for host in ("one", "other"):  # one detection, so that a sync is quick
        (tmp_path / host).mkdir()
        (tmp_path / host / "kyra.toml").write_text(f"[detections]\ndisable = {json.dumps(others)}\n")
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", SYNC],
            cwd=ROOT,
            env={**env, "KYRA_HOME": str(tmp_path / host)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in ("one", "other")
    ]
    for host in hosts:
        assert host.stderr is not None
        assert host.stderr.readline() == "ready\n"
    for host in hosts:  # both at once: one that is slow to start would find the work done
        assert host.stdin is not None
        host.stdin.write("\n")
        host.stdin.flush()
    ended = [host.communicate(timeout=600) for host in hosts]

    assert [host.returncode for host in hosts] == [0, 0], ended
    loaded = [sum(run["loaded"] for run in json.loads(out)["runs"]) for out, _ in ended]
    assert sum(loaded) == INTEGRATIONS
    assert min(loaded) > 0, "the work is shared"
    with State.open(url) as state, state._database.read() as connection:
        files = connection.execute(text("SELECT state, count(*) FROM log_files GROUP BY state")).all()
    assert [tuple(row) for row in files] == [("loaded", INTEGRATIONS)]
    lake = open_lake("s3://lake/kyra", S3Options(s3_server, "us-east-1", "testing", "testing"))
    reader = duckdb.connect()
    lake.register(reader)
    found = reader.execute(
        "SELECT count(*), count(DISTINCT event_id) FROM read_parquet(?)", [lake.uri("events/*/*/*.parquet")]
    ).fetchall()
    assert found == [(INTEGRATIONS, INTEGRATIONS)]
