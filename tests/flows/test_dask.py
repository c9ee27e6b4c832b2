"""Backfills spread over Dask's workers and over processes: PostgreSQL holds the state, S3 over HTTP everything else."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
from sqlalchemy import select

from kyra_etl.lake import S3Options, open_lake
from kyra_etl.model import Integration
from kyra_etl.owner import name_of
from kyra_etl.state import State, tables
from tests import postgres as installed
from tests.flows.server import Server
from tests.flows.test_end_to_end import ACCOUNT, LONG_AGO
from tests.ports import free_port

DAYS, FILES, EVENTS = 2, 6, 50


@pytest.fixture
def server(
    kyra_home: Path, s3_server: str, postgres: installed.Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """`kyra serve` with two workers that load batches of two log files each."""
    for name, value in {
        "STATE_URL": postgres.create(),
        "LAKE": "s3://lake/kyra",
        "LAKE_ENDPOINT_URL": s3_server,
        "AWS_ENDPOINT_URL": s3_server,
        "TASK_WORKERS": "2",
        "BATCH_FILES": "2",
    }.items():
        monkeypatch.setenv(f"KYRA_{name}", value)
    s3 = boto3.client("s3", endpoint_url=s3_server)
    for bucket in ("lake", "trail"):
        s3.create_bucket(Bucket=bucket)
    for day in (LONG_AGO + timedelta(days=n) for n in range(2 * DAYS)):
        for number in range(FILES):
            records = [record(f"{day}-{number}-{n}", f"{day}") for n in range(EVENTS)]
            body = gzip.compress(json.dumps({"Records": records}).encode())
            folder = f"AWSLogs/{ACCOUNT}/CloudTrail/us-east-1/{day:%Y/%m/%d}"
            s3.put_object(Bucket="trail", Key=f"{folder}/{number}.json.gz", Body=body)
    with State.open(os.environ["KYRA_STATE_URL"]) as state:
        state.integrations.add(Integration("acme", "trail", account_id=ACCOUNT, paused=False), state.now())
    started = Server(kyra_home, free_port(), KYRA_SYNC_SECONDS="86400")
    yield started
    started.kill()


def record(event_id: str, day: str) -> dict[str, Any]:
    return {
        "eventVersion": "1.11",
        "eventTime": f"{day}T01:02:03Z",
        "eventID": event_id,
        "eventSource": "ec2.amazonaws.com",
        "eventName": "DescribeInstances",
        "awsRegion": "us-east-1",
        "recipientAccountId": ACCOUNT,
    }


def handed_out() -> list[bool]:
    """Of each batch that is loaded, whether a task did that: one that is claimed is owned in its own name.

    By our own books: Prefect's page has of a Dask worker's tasks only what the worker could tell before its end.
    """
    c = tables.batches.c
    committed = select(c.batch_id, c.owner).where(c.state == "committed")
    with State.open(os.environ["KYRA_STATE_URL"]) as state, state._database.read() as connection:
        return [name_of(owner) == batch_id for batch_id, owner in connection.execute(committed)]


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_backfills_by_two_dask_workers_and_by_two_processes_are_exact(server: Server, s3_server: str) -> None:
    server.wait(lambda: len(server.deployments()) == 4, "the deployments", 600)
    # At midnight a sync would begin, and load some of what the backfill is to load.
    server.ask(f"deployments/{server.deployments()['sync']['id']}/pause_deployment")
    for number, runner in enumerate(("dask", "processes")):
        first = LONG_AGO + timedelta(days=number * DAYS)
        (server.home / "kyra.toml").write_text(f'task_runner = "{runner}"\n')
        last = first + timedelta(days=DAYS - 1)
        run = server.ended(server.start("backfill", integration="acme", start=f"{first}", end=f"{last}"), 600)

        assert run["state"]["type"] == "COMPLETED", run["state"]
        loaded = f"{DAYS * FILES} log files loaded, {DAYS * FILES * EVENTS} new"
        assert run["state"]["message"].startswith(f"acme: {loaded}")
        assert handed_out() == [True] * ((number + 1) * DAYS * FILES // 2)
    lake = open_lake("s3://lake/kyra", S3Options(s3_server, "us-east-1", "testing", "testing"))
    connection = duckdb.connect()
    lake.register(connection)
    found = connection.execute(
        "SELECT count(*), count(DISTINCT event_id) FROM read_parquet(?)", [lake.uri("events/*/*/*.parquet")]
    ).fetchall()
    assert found == [(2 * DAYS * FILES * EVENTS,) * 2]
    assert server.stop()[0] == 0
