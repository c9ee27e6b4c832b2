"""What an analyst can do with SQL, and what nobody can."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kyra_etl import config, wiring
from kyra_etl.errors import KyraError, LakeError, StateError
from kyra_etl.lake.query import NAMES, Analyst
from tests.cli.conftest import ACCOUNT, Kyra, put, record
from tests.corpus import CORPUS


@pytest.fixture
def loaded(kyra: Kyra, bucket: Path) -> Kyra:
    assert kyra("load", bucket).code == 0
    return kyra


def test_empty_lake_answers_every_view_with_zero_rows(kyra: Kyra) -> None:
    for name in NAMES:
        assert kyra("sql", f"SELECT * FROM {name}", "--json").json == []
    assert kyra("sql", "SELECT count(*) AS n FROM events", "--json").json == [{"n": 0}]


def test_account_keeps_its_zero_and_times_are_utc(loaded: Kyra) -> None:
    rows = loaded("sql", "SELECT account, date, event_time FROM events LIMIT 1", "--json").json

    assert rows == [{"account": ACCOUNT, "date": "2026-01-10", "event_time": "2026-01-10T10:00:00Z"}]


def test_records_of_our_own_are_as_of_the_query(loaded: Kyra) -> None:
    (alert,) = loaded("alerts", "list", "--json").json
    query = "SELECT a.status, e.event_id FROM alerts a JOIN alert_events e USING (alert_id)"
    assert loaded("sql", query, "--json").json == [{"status": "open", "event_id": "e2"}]

    loaded("alerts", "ack", alert["alert_id"])
    assert loaded("sql", "SELECT status FROM alerts", "--json").json == [{"status": "acknowledged"}]
    assert loaded("sql", "SELECT state, events FROM log_files ORDER BY key", "--json").json == [
        {"state": "loaded", "events": 2},
        {"state": "loaded", "events": 1},
    ]
    assert loaded("sql", "SELECT verb, records, duplicates FROM sync_runs", "--json").json == [
        {"verb": "load", "records": 4, "duplicates": 1}
    ]


def test_only_committed_files_are_read(loaded: Kyra, kyra_home: Path) -> None:
    (committed,) = kyra_home.glob("lake/events/account=*/date=*/*.parquet")
    (committed.parent / "stray.parquet").write_bytes(committed.read_bytes())

    assert loaded("sql", "SELECT count(*) AS n FROM events", "--json").json == [{"n": 3}]


def test_file_that_is_published_meanwhile_is_read_where_it_is_then(loaded: Kyra, kyra_home: Path) -> None:
    (committed,) = map(str, kyra_home.glob("lake/events/account=*/date=*/*.parquet"))
    lists = chain([[committed.replace("lake", "elsewhere")]], repeat([committed]))
    analyst = Analyst(lambda kind, within: next(lists), {}, seconds=10)

    assert analyst.query("SELECT count(*) FROM events").rows == [(3,)]


def test_files_of_an_earlier_version_lack_columns_and_are_read_all_the_same(loaded: Kyra, kyra_home: Path) -> None:
    (file,) = kyra_home.glob("lake/events/account=*/date=*/*.parquet")
    older = file.with_name("older.parquet")
    pq.write_table(pq.ParquetFile(file).read().drop_columns(["tls_details"]), older)

    for files in ([str(older), str(file)], [str(file), str(older)]):
        analyst = Analyst(lambda kind, within, files=files: files, {}, seconds=10)  # type: ignore[misc]
        assert analyst.query("SELECT count(*), count(event_id) FROM events WHERE tls_details IS NULL").rows == [(6, 6)]


def test_built_in_detections_run_unchanged(loaded: Kyra) -> None:
    shown = loaded("detections", "show", "cloudtrail_disabled", "--json").json["sql"]
    assert [row["event_id"] for row in loaded("sql", shown, "--json").json] == ["e2"]

    with wiring.open(config.load()) as parts:
        analyst = wiring.analyst(parts)
        for detection in CORPUS.detections:
            assert "event_id" in analyst.query(detection.sql).columns, detection.id


def test_every_value_becomes_json(kyra: Kyra) -> None:
    query = """
    SELECT 1 AS a, 2 AS a, 12345678901234567890::HUGEINT AS big, 1.50::DECIMAL(4, 2) AS cents, 'nan'::DOUBLE AS nan,
      'x'::BLOB AS bytes, {'k': [DATE '2026-01-01']} AS struct, MAP {'m': 1} AS map, INTERVAL 1 DAY AS day,
      TIMESTAMPTZ '2026-01-01 00:00:00+01' AS zoned, '00000000-0000-0000-0000-000000000001'::UUID AS uuid,
      NULL AS none"""
    (row,) = kyra("sql", query, "--json").json

    assert row == {
        "a": 1,
        "a_1": 2,
        "big": 12345678901234567890,
        "cents": "1.50",
        "nan": None,
        "bytes": "x",
        "struct": {"k": ["2026-01-01"]},
        "map": {"m": 1},
        "day": "1 day, 0:00:00",
        "zoned": "2025-12-31T23:00:00Z",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "none": None,
    }


def test_limit_cuts_tables_and_says_so(kyra: Kyra) -> None:
    ran = kyra("sql", "FROM range(150)")
    assert ran.out.count("\n") == 101
    assert "there are more" in ran.err
    assert len(kyra("sql", "FROM range(150)", "--json").json) == 150
    assert kyra("sql", "FROM range(150)", "--limit", 0).out.count("\n") == 151
    assert len(kyra("sql", "FROM range(150)", "--limit", 7, "--json").json) == 7


def test_variables_of_this_program_are_no_tables(loaded: Kyra) -> None:
    for name in ("rows", "files", "self", "connection", "allowed"):
        assert loaded("sql", f"SELECT * FROM {name}").code == 2


def test_query_that_takes_too_long_is_stopped(kyra: Kyra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KYRA_QUERY_SECONDS", "1")
    begun = time.monotonic()
    ran = kyra("sql", "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0")

    assert ran.code == 1
    assert "stopped after 1 seconds" in ran.error
    assert time.monotonic() - begun < 120, "to its end it would take far longer"


def test_the_clock_runs_while_records_of_our_own_are_read(kyra: Kyra) -> None:
    def endless() -> Iterator[dict[str, object]]:
        while True:
            yield {"run_id": "r", "loaded": 1}

    analyst = Analyst(lambda kind, within: (), {"sync_runs": endless}, seconds=1)

    with pytest.raises(LakeError, match="stopped after 1 seconds"):
        analyst.query("SELECT count(*) FROM sync_runs")


def test_trouble_with_the_state_meanwhile_is_told_in_its_own_words(kyra: Kyra) -> None:
    def broken() -> Iterator[dict[str, object]]:
        yield {"key": "k"}
        raise StateError("The state database cannot be reached.", "Check that the server runs.")

    analyst = Analyst(lambda kind, within: (), {"log_files": broken}, seconds=10)

    with pytest.raises(StateError, match="cannot be reached"):
        analyst.query("SELECT count(*) FROM log_files")


def test_answers_come_as_arrow_too(loaded: Kyra) -> None:
    with wiring.open(config.load()) as parts:
        table = wiring.analyst(parts).arrow("SELECT event_id FROM events WHERE event_id <> $id", {"id": "e1"})

    assert sorted(table["event_id"].to_pylist()) == ["e2", "e3"]


def test_parameter_that_is_missing_is_a_query_error(loaded: Kyra) -> None:
    with wiring.open(config.load()) as parts, pytest.raises(KyraError):
        wiring.analyst(parts).query("SELECT $nobody")


def test_query_from_standard_input(loaded: Kyra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.read", lambda: "SELECT 1 AS one", raising=False)

    assert loaded("sql", "-", "--json").json == [{"one": 1}]


@pytest.mark.parametrize(
    "statement",
    ["-- how many?\nSELECT 1 AS one", "--a = b\nSELECT 1 AS one", "---- how many? ----\nSELECT 1 AS one"],
    ids=["blank", "equals", "dashes"],
)
def test_a_statement_may_begin_with_a_comment(kyra: Kyra, statement: str) -> None:
    assert kyra("sql", statement, "--json").json == [{"one": 1}]
    assert kyra("sql", "--format", "json", "--limit", 1, statement).json == [{"one": 1}]
    assert kyra("sql", "--json", "--", statement).json == [{"one": 1}]


def test_an_option_that_does_not_exist_is_no_comment(kyra: Kyra) -> None:
    assert kyra("sql", "--jsn", "SELECT 1").error.startswith("No such option: --jsn")


def test_search_finds_what_the_customer_looks_for(kyra: Kyra, bucket: Path) -> None:
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())
    kyra("sync", "prod")
    query = "source_type:aws-cloudtrail event_name:CreateSecurityGroup"
    found = kyra("search", query, "--json").json
    assert [(event["event_id"], event["integration"]) for event in found] == [("e1", "prod")]

    put(bucket, "three", record("e4", "CreateSecurityGroup", eventTime="2026-01-10T11:00:00Z"))
    kyra("sync", "prod")
    assert [event["event_id"] for event in kyra("search", query, "--json").json] == ["e4", "e1"]
    assert kyra("search", "source_type:aws-cloudtrail", "-event_name:Create*", "--json").json[0]["event_id"] in (
        "e2",
        "e3",
    )
    assert kyra("search", "event_name:Nobody", "--json").json == []
    table = kyra("search", query)
    assert "CreateSecurityGroup" in table.out
    assert table.err == "2 events.\n"
    assert json.loads(kyra("search", query, "--limit", 1, "--json").out)[0]["event_id"] == "e4"


def test_search_sees_both_limits(kyra: Kyra, bucket: Path) -> None:
    kyra("load", bucket, "--no-detect")

    assert "there are more: --after 2026-01-10T10:00:00Z/" in kyra("search", "account:*", "--limit", 2).err
    assert len(kyra("search", "account:*", "--limit", 0, "--json").json) == 3
