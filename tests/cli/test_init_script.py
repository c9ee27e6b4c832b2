"""`kyra sql --init`: plain DuckDB, polars and pyarrow see what kyra sees, on disk and on S3."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pytest
import s3fs

from kyra_etl import config, resources, wiring
from kyra_etl.lake import S3Options, open_lake
from kyra_etl.lake.query import NAMES
from kyra_etl.lake.script import VIEWS, script
from kyra_etl.load import load
from tests.cli.conftest import ACCOUNT, Kyra, put, record

OURS = ["alert_events", "alerts", "status", "sync_runs", "trails", "accounts"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[wiring.Parts]:
    """The demo's lake with its alerts, in a folder whose name a careless script would stumble over."""
    home = tmp_path_factory.mktemp("o'brien [1]; DROP")
    with wiring.open(config.load({"KYRA_HOME": str(home)})) as opened:
        load([resources.demo_bucket()], **{**opened.for_run(), "clock": lambda: datetime(2026, 4, 1)})
        yield opened


@pytest.fixture
def plain(parts: wiring.Parts) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that knows nothing of us but the script."""
    with duckdb.connect() as connection:
        connection.execute(wiring.init_script(parts))
        yield connection


def test_plain_duckdb_sees_the_same_rows(parts: wiring.Parts, plain: duckdb.DuckDBPyConnection) -> None:
    analyst = wiring.analyst(parts)
    for name in ("events", "activity", *OURS):
        query = f"SELECT * FROM {name} ORDER BY ALL"
        ours = analyst.query(query)
        theirs = plain.execute(query)
        assert [column[0] for column in theirs.description or ()] == list(ours.columns)
        if name != "status":  # its lag goes on
            assert theirs.fetchall() == ours.rows, name
    assert set(NAMES) == {name for (name,) in plain.execute("SELECT name FROM (SHOW TABLES)").fetchall()}


def test_macros_and_detections_run_there(parts: wiring.Parts, plain: duckdb.DuckDBPyConnection) -> None:
    analyst = wiring.analyst(parts)
    for query in ("FROM denials()", "FROM timeline_of('backup-runner')", "FROM who_did('Create*')"):
        assert plain.execute(query).fetchall() == analyst.query(query).rows != []
    found = {one.id for one in parts.corpus.detections if plain.execute(one.sql).fetchall()}
    assert {"iam_user_created", "cloudtrail_disabled", "root_account_usage"} <= found


def test_new_files_are_seen_and_uncommitted_ones_are_not(kyra: Kyra, bucket: Path, kyra_home: Path) -> None:
    kyra("load", bucket, "--no-detect")
    made = kyra("sql", "--init").out
    put(bucket, "three", record("e4"))
    kyra("load", bucket, "--no-detect")
    staged = kyra_home / "lake/_staging/x-1/events/account=012345678901/date=2026-01-10/x.parquet"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(next(kyra_home.glob("lake/events/*/*/*.parquet")).read_bytes())

    with duckdb.connect() as connection:
        connection.execute(made)
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(4,)]


def test_script_makes_a_file_that_bi_tools_open(kyra: Kyra, bucket: Path, tmp_path: Path) -> None:
    kyra("load", bucket)
    assert kyra("sql", "--init", "--output", tmp_path / "kyra.sql").out == ""
    with duckdb.connect(tmp_path / "kyra.duckdb") as connection:
        connection.execute((tmp_path / "kyra.sql").read_text())

    with duckdb.connect(tmp_path / "kyra.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(3,)]
        assert connection.execute("SELECT count(*) FROM who_did('*')").fetchall() == [(3,)]
        assert connection.execute("SELECT count(*) FROM alerts").fetchall() == [(1,)]


def test_script_of_an_empty_lake_has_every_relation(kyra: Kyra) -> None:
    with duckdb.connect() as connection:
        connection.execute(kyra("sql", "--init", "--json").json["script"])
        for name in NAMES:
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchall() == [(0,)]


def test_sql_wants_a_query_or_init(kyra: Kyra) -> None:
    assert kyra("sql").code == kyra("sql", "SELECT 1", "--init").code == 2


# ── on S3 ──


@pytest.fixture
def lake(kyra: Kyra, bucket: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A lake on S3, loaded; the URL of the server."""
    boto3.client("s3").create_bucket(Bucket="example-lake")
    monkeypatch.setenv("KYRA_LAKE", "s3://example-lake/kyra")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")
    assert kyra("load", bucket).code == 0
    return s3_server


def test_no_credential_stands_in_the_script(kyra: Kyra, lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KYRA_LAKE_REGION", "eu-west-1")
    made = kyra("sql", "--init").out
    (statement,) = (line for line in made.splitlines() if "SECRET" in line)

    assert "swordfish" not in made
    assert "testing" not in made
    host = lake.removeprefix("http://")
    assert statement == (
        "CREATE OR REPLACE SECRET kyra_lake (TYPE s3, PROVIDER credential_chain, SCOPE 's3://example-lake/kyra', "
        f"REGION 'eu-west-1', ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false);"
    )
    (parsed,) = duckdb.extract_statements(statement)
    assert parsed.type == duckdb.StatementType.CREATE


def test_a_password_in_the_address_of_the_store_is_left_out() -> None:
    store = open_lake("s3://example-lake/kyra", S3Options(region="eu-west-1"))
    store.storage.folders = lambda path: []  # type: ignore[method-assign]
    store.storage.exists = lambda path: False  # type: ignore[method-assign]
    made = script(store, resources.views_dir(), endpoint_url="https://user:swordfish@store.example:9000")

    assert "ENDPOINT 'store.example:9000', URL_STYLE 'path', USE_SSL true" in made
    assert "swordfish" not in made


def test_plain_duckdb_reads_the_lake_on_s3(kyra: Kyra, lake: str) -> None:
    with duckdb.connect() as connection:
        connection.register_filesystem(s3fs.S3FileSystem(endpoint_url=lake, skip_instance_cache=True))
        connection.execute(kyra("sql", "--init").out.partition(VIEWS)[2])
        assert connection.execute("SELECT account, count(*) FROM events GROUP BY 1").fetchall() == [(ACCOUNT, 3)]
        assert connection.execute("SELECT event_id FROM alert_events").fetchall() == [("e2",)]
        assert len(connection.execute("FROM who_did('*Group')").fetchall()) == 2


def test_polars_and_pyarrow_read_the_lake_on_s3_with_credentials(lake: str) -> None:
    options = {
        "aws_endpoint_url": lake,
        "aws_access_key_id": "testing",
        "aws_secret_access_key": "swordfish",
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    events: Any = pl.scan_parquet(
        "s3://example-lake/kyra/events/*/*/*.parquet",
        storage_options=options,
        hive_partitioning=True,
        hive_schema={"account": pl.String, "date": pl.Date},
    )
    assert sorted(events.filter(account=ACCOUNT).collect()["event_id"]) == ["e1", "e2", "e3"]

    store = pafs.S3FileSystem(
        endpoint_override=lake.removeprefix("http://"), scheme="http", access_key="testing", secret_key="swordfish"
    )
    hive = ds.partitioning(flavor="hive", schema=pa.schema([("account", pa.string()), ("date", pa.date32())]))
    dataset = ds.dataset("example-lake/kyra/events", filesystem=store, format="parquet", partitioning=hive)
    assert dataset.count_rows(filter=ds.field("account") == ACCOUNT) == 3


def test_verbs_read_the_lake_on_s3(kyra: Kyra, lake: str, tmp_path: Path) -> None:
    assert kyra("sql", "SELECT count(*) AS n FROM events", "--format", "csv").out == "n\n3\n"
    assert kyra("sql", "FROM events", "--output", tmp_path / "x.parquet").err.startswith("3 rows")
    assert [row["event_id"] for row in kyra("search", "name:*Group", "--limit", 1, "--json").json] == ["e1"]
    assert kyra("search", "name:*Group", "--histogram", "day", "--json").json[0]["events"] == 2
    assert kyra("sql", "FROM sessions_of('x')", "--json").json == []
    assert len(kyra("alerts", "list", "--json").json) == 1
    assert kyra("status", "--json").code == 0


def test_lake_on_s3_is_listed_by_the_ledger_not_the_bucket(
    kyra: Kyra, lake: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="werkzeug"):
        caplog.clear()
        assert kyra("sql", "SELECT count(event_id) AS n FROM events", "--json").json == [{"n": 3}]
        assert len(kyra("search", "name:*", "--json").json) == 3
    asked = [record.getMessage() for record in caplog.records]

    assert any(".parquet" in line for line in asked)
    assert [line for line in asked if "list-type" in line or "prefix=" in line] == []
