"""What nobody can do through `kyra sql`: reach a file, the network, the environment, a setting; or change anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kyra_etl import config, wiring
from kyra_etl.errors import QueryError
from kyra_etl.lake.query import Analyst
from tests.cli.conftest import Kyra

HIDDEN = "WITH x AS (COPY (SELECT 1) TO ''{file}'' (FORMAT parquet, USE_TMP_FILE false)) SELECT 1"
ATTEMPTS = {
    "files by name": """
        SELECT * FROM '/etc/passwd'
        FROM '{home}/secret.csv'
        FROM '{home}/secret.parquet'
        FROM "{home}/secret.csv"
        SELECT * FROM 'secret.csv'
        SELECT * FROM '{home}/lake/_kyra.json'
        SELECT * FROM '{home}/lake/events/**/*.parquet'
        SELECT * FROM '{file}/../../../../../../secret.csv'
        SELECT (SELECT count(*) FROM '{home}/secret.csv')
        FROM events UNION ALL BY NAME FROM '{home}/secret.parquet'
        DESCRIBE SELECT * FROM '{home}/secret.csv'
        SUMMARIZE SELECT * FROM '{home}/secret.csv'""",
    "files by function": """
        SELECT * FROM read_text('/etc/passwd')
        SELECT * FROM read_blob('{home}/state.db')
        SELECT * FROM read_csv('{home}/secret.csv', auto_detect = false)
        SELECT * FROM read_csv_auto('{home}/secret.csv')
        SELECT * FROM read_json('{home}/lake/_kyra.json')
        SELECT * FROM read_json_auto('{home}/lake/_kyra.json')
        SELECT * FROM read_json_objects('{home}/lake/_kyra.json')
        SELECT * FROM read_ndjson('{home}/lake/_kyra.json')
        SELECT * FROM read_parquet('{home}/secret.parquet')
        SELECT * FROM parquet_scan('{file}')
        SELECT * FROM parquet_metadata('{file}')
        SELECT * FROM parquet_schema('{file}')
        SELECT * FROM parquet_file_metadata('{file}')
        SELECT * FROM parquet_kv_metadata('{file}')
        SELECT * FROM sniff_csv('/etc/passwd')
        SELECT * FROM glob('{home}/**')
        SELECT * FROM events, read_text(source_key)
        SELECT * FROM events AS e, LATERAL (SELECT * FROM read_text(e.source_key))
        WITH RECURSIVE x AS (SELECT content FROM read_text('/etc/passwd') UNION ALL SELECT content FROM x) FROM x
        SELECT (SELECT content FROM read_text('/etc/passwd'))
        SELECT * FROM READ_TEXT('/etc/passwd')
        SELECT * FROM "read_text"('/etc/passwd')
        SELECT * FROM main.read_text('/etc/passwd')
        SELECT * FROM system.main.read_text('/etc/passwd')
        SELECT * FROM timeline_of((SELECT content FROM read_text('/etc/passwd')))
        SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')
        SELECT * FROM query_table('{home}/secret.csv')
        SELECT * FROM sqlite_scan('{home}/state.db', 'log_files')
        SELECT * FROM postgres_scan('', 'public', 'log_files')
        SELECT * FROM arrow_scan(1, 2, 3)
        SELECT * FROM pandas_scan(1)""",
    "the network": """
        SELECT * FROM 'https://example.com/x.parquet'
        SELECT * FROM 's3://bucket/x.parquet'
        SELECT * FROM 'gs://bucket/x.parquet'
        SELECT * FROM 'hf://datasets/x/y.parquet'
        SELECT * FROM read_text('http://169.254.169.254/latest/meta-data/')
        SELECT * FROM read_parquet('{url}/x.parquet')
        ATTACH '{url}/x.db' AS x
        CREATE SECRET (TYPE s3, PROVIDER credential_chain)
        SELECT * FROM duckdb_secrets()
        SELECT * FROM which_secret('s3://bucket', 's3')
        SELECT * FROM load_aws_credentials()""",
    "the environment and settings": """
        SELECT getenv('HOME')
        SELECT * FROM duckdb_settings()
        SELECT * FROM duckdb_databases()
        SELECT * FROM duckdb_extensions()
        SELECT * FROM pragma_database_list()
        SELECT * FROM duckdb_logs()
        SET enable_external_access = true
        SET lock_configuration = false
        SET GLOBAL memory_limit = '1TB'
        SET VARIABLE x = 1
        SET allowed_directories = ['/']
        RESET allowed_paths
        RESET ALL
        PRAGMA database_list
        PRAGMA enable_external_access
        PRAGMA version
        CALL pragma_version()
        USE memory
        CALL enable_logging(storage = 'file', storage_path = '{home}/escaped')
        SELECT * FROM enable_logging(storage := 'file', storage_path := '{home}/escaped')
        SELECT * FROM enable_profiling(save_location := '{home}/escaped')""",
    "extensions": """
        INSTALL httpfs
        INSTALL httpfs FROM community
        FORCE INSTALL httpfs
        LOAD httpfs
        LOAD '{home}/x.duckdb_extension'
        UPDATE EXTENSIONS""",
    "writing files": """
        COPY (SELECT 1) TO '{home}/escaped.csv'
        COPY (SELECT 1) TO '{file}'
        COPY events TO '{home}/escaped.parquet' (FORMAT parquet)
        COPY trails FROM '{home}/secret.csv'
        EXPORT DATABASE '{home}/escaped'
        IMPORT DATABASE '{home}'
        ATTACH '{home}/escaped.db' AS x
        ATTACH '{home}/state.db' AS x (TYPE sqlite)
        ATTACH ':memory:' AS x
        DETACH memory
        COPY FROM DATABASE memory TO x
        CHECKPOINT
        SELECT * FROM checkpoint()
        SELECT * FROM force_checkpoint()""",
    "writing, hidden in a SELECT": f"""
        WITH x AS (COPY (SELECT 1 AS a) TO '{{home}}/escaped.csv' (USE_TMP_FILE false)) SELECT 1
        WITH x AS (COPY (SELECT 1 AS a) TO '{{file}}' (FORMAT parquet, USE_TMP_FILE false)) SELECT 1
        WITH x AS (DELETE FROM trails RETURNING *) SELECT * FROM x
        WITH x AS (INSERT INTO accounts VALUES ('1', '2') RETURNING *) SELECT * FROM x
        WITH x AS (UPDATE accounts SET account = '' RETURNING *) SELECT * FROM x
        WITH y AS (SELECT 1), x AS (DELETE FROM trails RETURNING *) SELECT * FROM y
        SELECT * FROM (WITH x AS (COPY (SELECT 1 AS a) TO '{{home}}/escaped.csv' (USE_TMP_FILE false)) SELECT 1)
        SELECT * FROM json_execute_serialized_sql(json_serialize_sql('{HIDDEN}'))
        SELECT * FROM query('{HIDDEN}')
        EXPLAIN ANALYZE COPY (SELECT 1) TO '{{home}}/escaped.csv'""",
    "changing what there is": """
        CREATE TABLE x AS SELECT 1
        CREATE TEMP TABLE x AS SELECT 1
        CREATE OR REPLACE TEMP VIEW events AS SELECT 1
        CREATE MACRO x() AS TABLE SELECT * FROM read_text('/etc/passwd')
        CREATE SCHEMA x
        CREATE SEQUENCE x
        CREATE TYPE x AS VARCHAR
        DROP VIEW events
        ALTER VIEW events RENAME TO x
        INSERT INTO alerts SELECT * FROM alerts
        DELETE FROM trails
        TRUNCATE trails
        UPDATE accounts SET account = ''
        MERGE INTO trails USING accounts ON false WHEN NOT MATCHED THEN INSERT BY NAME
        SELECT * FROM summary(events)
        VACUUM
        ANALYZE""",
    "statements within and after statements": """
        PREPARE x AS SELECT 1
        EXECUTE x
        DEALLOCATE x
        BEGIN
        COMMIT
        SELECT 1; SELECT 2
        SELECT 1; DROP VIEW events
        SELECT 1; COPY (SELECT 1) TO '{home}/escaped.csv'
        PREPARE x AS COPY (SELECT 1) TO '{home}/escaped.csv'; EXECUTE x
        BEGIN; SELECT 1; COMMIT
        SELECT 1 /* ; */; ATTACH '{home}/escaped.db'
        ;
        -- nothing""",
}


@pytest.fixture
def analyst(kyra: Kyra, bucket: Path, kyra_home: Path) -> Iterator[Analyst]:
    """Questions to a lake of three events; beside it lie files that nobody may read."""
    assert kyra("load", bucket).code == 0
    (kyra_home / "secret.csv").write_text("a,b\n1,2\n")
    kyra("sql", "SELECT 1 AS a", "--output", kyra_home / "secret.parquet")
    with wiring.open(config.load()) as parts:
        yield wiring.analyst(parts)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who would notice a call over the network."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("kind", ATTEMPTS)
def test_no_attempt_reaches(
    kind: str, analyst: Analyst, kyra_home: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kyra_home)
    (file,) = kyra_home.glob("lake/events/account=*/date=*/*.parquet")
    before = {path: path.read_bytes() for path in kyra_home.rglob("*") if path.is_file()}
    url = "http://{}:{}".format(*listener.getsockname())
    for attempt in map(str.strip, ATTEMPTS[kind].strip().splitlines()):
        # Views that are mentioned are the ones that can be reached, so every one is.
        query = attempt.format(home=kyra_home, file=file, url=url) + "\n-- events trails accounts alerts"
        with pytest.raises(QueryError) as refused:
            print(attempt, analyst.query(query))

        assert "\n" not in str(refused.value), attempt
        assert {path: path.read_bytes() for path in kyra_home.rglob("*") if path.is_file()} == before, attempt
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_refusal_is_one_line_and_exit_code_2(kyra: Kyra, kyra_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kyra_home)
    for query, *more in (
        ("SELECT * FROM '/etc/passwd'",),
        ("COPY events TO 'x.csv'", "--json"),
        ("SELECT 1; DROP VIEW events", "--format", "csv"),
        ("INSTALL httpfs", "--output", "x.parquet"),
    ):
        ran = kyra("sql", query, *more)
        assert ran.code == 2
        assert ran.error
    assert not list(kyra_home.rglob("x.*"))


def test_functions_do_not_tell_of_the_environment(analyst: Analyst, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KYRA_TEST_SECRET", "swordfish")

    assert analyst.query("SELECT getvariable('KYRA_TEST_SECRET') AS it").rows == [(None,)]
