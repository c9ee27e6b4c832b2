"""The road end to end over real HTTP: bucket → lake, again and again, and through crashes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest

from kyra_etl.aws.bucket import open_bucket
from kyra_etl.errors import KyraError
from kyra_etl.lake import Lake, S3Options, open_lake
from kyra_etl.model import Integration, Limits, RunReport
from kyra_etl.settle import tidy
from kyra_etl.state import State
from kyra_etl.sync import sync

ACCOUNT = "012345678901"
INTEGRATION = Integration(name="acme", bucket="acme-trail", account_id=ACCOUNT)
TODAY = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)


class Road:
    """One integration, its bucket on the server, one lake and one state."""

    def __init__(self, lake: Lake, state: State, server: str) -> None:
        self.lake, self.state = lake, state
        self.s3 = boto3.client("s3", endpoint_url=server)
        self.s3.create_bucket(Bucket=INTEGRATION.bucket)
        self._server = server
        lake.claim(state.id)

    def put(self, key: str, *event_ids: str, body: bytes | None = None) -> None:
        records = [record(event_id) for event_id in event_ids]
        document = gzip.compress(json.dumps({"Records": records}).encode()) if body is None else body
        self.s3.put_object(Bucket=INTEGRATION.bucket, Key=key, Body=document)

    def sync(self, limits: Limits | None = None) -> RunReport:
        return sync(
            INTEGRATION,
            bucket=open_bucket(INTEGRATION, endpoint_url=self._server),
            lake=self.lake,
            state=self.state,
            corpus=None,
            limits=limits or Limits(),
            clock=lambda: datetime.now(UTC).replace(tzinfo=None),
        )

    def glob(self) -> list[str]:
        """Event ids as a plain DuckDB session sees them, with one read_parquet glob and nothing of ours."""
        connection = duckdb.connect()
        self.lake.register(connection)
        try:
            rows = connection.execute(
                "SELECT event_id FROM read_parquet(?, hive_types={'account': VARCHAR, 'date': DATE}) ORDER BY 1",
                [self.lake.uri("events/*/*/*.parquet")],
            ).fetchall()
        except duckdb.IOException:
            return []
        return [row[0] for row in rows]


def record(event_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "eventID": event_id,
        "eventTime": f"{TODAY:%Y-%m-%d}T00:00:01Z",
        "eventName": "CreateUser",
        "eventSource": "iam.amazonaws.com",
        "awsRegion": "eu-west-1",
        "recipientAccountId": ACCOUNT,
    } | fields


def key(minute: str, name: str = "AbCdEfGhIjKlMnOp", *, day: datetime = TODAY, region: str = "eu-west-1") -> str:
    return (
        f"AWSLogs/{ACCOUNT}/CloudTrail/{region}/{day:%Y/%m/%d}/"
        f"{ACCOUNT}_CloudTrail_{region}_{day:%Y%m%d}T{minute}Z_{name}.json.gz"
    )


@pytest.fixture(params=["directory", "s3"])
def road(request: pytest.FixtureRequest, s3_server: str, tmp_path: Path) -> Iterator[Road]:
    state = State.open(f"sqlite:///{tmp_path}/state.db")
    if request.param == "s3":
        boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="lake")
        options = S3Options(s3_server, "us-east-1", "testing", "testing")
        lake = open_lake("s3://lake/kyra", options)
    else:
        lake = open_lake(str(tmp_path / "lake"))
    yield Road(lake, state, s3_server)
    state.close()


def test_a_second_sync_loads_only_what_came_since_older_names_included(road: Road) -> None:
    road.put(key("0105"), "a", "b")
    road.put(key("0110"), "c")

    first = road.sync()
    again = road.sync()
    road.put(key("0104"), "d")
    road.put(key("0110", "ZzzzZzzzZzzzZzzz"), "e")
    road.put(key("0115", day=TODAY - timedelta(days=1)), "f")
    third = road.sync()

    assert (first.listed, first.loaded, first.events) == (2, 2, 3)
    assert (again.listed, again.loaded, again.already_loaded, again.events) == (2, 0, 2, 0)
    assert (third.listed, third.loaded, third.already_loaded, third.events) == (5, 3, 2, 3)
    assert road.glob() == ["a", "b", "c", "d", "e", "f"]


def test_two_trails_into_one_bucket_give_every_event_once(road: Road) -> None:
    road.put(key("0105"), "a", "b")
    road.sync()
    road.put(key("0106", "OtherTrailOtherT"), "a", "b", "c")

    report = road.sync()

    assert (report.records, report.events, report.duplicates) == (3, 1, 2)
    assert road.glob() == ["a", "b", "c"]


def test_what_is_no_log_file_is_counted_by_kind_and_never_read(road: Road) -> None:
    folder = f"AWSLogs/{ACCOUNT}"
    road.put(key("0105"), "a")
    road.put(key("0105").replace("/CloudTrail/", "/CloudTrail-Digest/"), "digest")
    road.put(key("0105").replace("/CloudTrail/", "/CloudTrail-Insight/"), "insight")
    road.put(key("0107"), body=b"")
    road.put(key("0108").replace(".json.gz", ".txt"), body=b"notes")
    road.put(f"{folder}/CloudTrail/", body=b"")

    report = road.sync()

    assert report.loaded == 1
    assert report.ignored_by_kind == {"digest": 1, "insight": 1, "marker": 1, "other": 1}


def test_one_bad_object_never_stops_the_rest(road: Road) -> None:
    road.put(key("0105"), "a")
    road.put(key("0106"), body=gzip.compress(b'{"Records": []}')[:-4])
    road.put(key("0107"), body=b"no json")
    road.put(key("0108"), "b")

    report = road.sync()

    assert (report.loaded, report.quarantined) == (2, 2)
    assert report.quarantined_by_reason == {"corrupt_gzip": 1, "not_json": 1}
    road.put(key("0106"), "c")
    assert road.sync().loaded == 1, "an object that was replaced is another log file"
    assert road.glob() == ["a", "b", "c"]


def test_deleting_every_checkpoint_loses_and_doubles_nothing(road: Road) -> None:
    road.put(key("0105"), "a")
    road.put(key("0105", region="us-east-1"), "b")
    road.sync()
    assert [(row["account"], row["region"]) for row in road.state.ledger.checkpoints("acme")] == [
        (ACCOUNT, "eu-west-1"),
        (ACCOUNT, "us-east-1"),
    ]

    road.state.ledger.delete_checkpoints("acme")
    road.put(key("0101"), "c")
    report = road.sync()

    assert (report.loaded, report.already_loaded) == (1, 2)
    assert road.glob() == ["a", "b", "c"]


class Crash(BaseException):
    """Ends the run on the spot, as a killed process would; no `except Exception` sees it."""


def crash(*_: object, **__: object) -> None:
    raise Crash


@pytest.mark.parametrize(
    ("where", "visible"),
    [
        (lambda road: (road.lake, "stage"), False),
        (lambda road: (road.state.ledger, "commit"), False),
        (lambda road: (road.lake, "publish"), False),
        (lambda road: (road.state.ledger, "mark_published"), True),
    ],
    ids=["while staging", "right before the commit", "right after the commit", "right after publishing"],
)
def test_a_crash_leaves_nothing_half_visible_and_the_next_run_completes(
    road: Road, monkeypatch: pytest.MonkeyPatch, where: Callable[[Road], tuple[object, str]], visible: bool
) -> None:
    road.put(key("0105"), "a", "b")
    road.sync()
    road.put(key("0106"), "c")

    with monkeypatch.context() as broken:
        broken.setattr(*where(road), crash)
        with pytest.raises(Crash):
            road.sync()

    assert road.glob() == (["a", "b", "c"] if visible else ["a", "b"])
    report = road.sync()
    assert report.pending == 0
    assert road.glob() == ["a", "b", "c"]
    assert road.lake.staged_attempts() == []


def test_a_writer_that_lost_its_batch_finds_the_commit_refused_and_leaves_nothing(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    road.put(key("0105"), "a")
    commit = road.state.ledger.commit

    def overtaken(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(road.state.ledger, "commit", commit)
        road.state.owners.expire(road.state.owners.holding())
        assert road.sync().events == 1
        commit(*arguments, **options)

    monkeypatch.setattr(road.state.ledger, "commit", overtaken)
    road.sync()

    assert road.glob() == ["a"]
    assert road.lake.staged_attempts() == []


def test_a_commit_to_the_same_partition_meanwhile_is_seen(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both runs deduplicate against the lake as it was; the second to commit has to look again."""
    road.put(key("0105"), "a")
    road.sync()
    road.put(key("0106"), "b", "c")
    commit = road.state.ledger.commit

    def in_between(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(road.state.ledger, "commit", commit)
        other = Integration(name="copy", bucket=INTEGRATION.bucket, account_id=ACCOUNT)
        sync(
            other,
            bucket=open_bucket(other, endpoint_url=road._server),
            lake=road.lake,
            state=road.state,
            corpus=None,
            limits=Limits(),
            clock=lambda: datetime.now(UTC).replace(tzinfo=None),
        )
        commit(*arguments, **options)

    monkeypatch.setattr(road.state.ledger, "commit", in_between)
    report = road.sync()

    assert (report.events, report.duplicates) == (0, 2)
    assert road.glob() == ["a", "b", "c"]


def test_a_sync_beside_a_running_one_says_so_and_does_nothing(road: Road) -> None:
    road.put(key("0105"), "a")
    with road.state.leases.take("sync:acme", "somebody", 60):
        report = road.sync()

    assert report.skipped == "another sync of this integration is running"
    assert report.imbalance() is None
    assert road.sync().events == 1


def test_many_small_batches_make_the_same_lake_as_one(road: Road) -> None:
    for minute in range(7):
        road.put(key(f"010{minute}"), f"e{minute}", "shared")

    report = road.sync(Limits(batch_files=2))

    assert report.batches == 4
    assert (report.records, report.events, report.duplicates) == (14, 8, 6)
    assert road.glob() == sorted([f"e{minute}" for minute in range(7)] + ["shared"])


def test_every_reader_sees_the_same_rows_and_the_accounts_zero(s3_server: str, tmp_path: Path) -> None:
    state = State.open(f"sqlite:///{tmp_path}/state.db")
    road = Road(open_lake(str(tmp_path / "lake")), state, s3_server)
    road.put(key("0105"), "a", "b")
    road.put(key("0105").replace(ACCOUNT, "222222222222"), "c")
    road.sync()
    folder = tmp_path / "lake" / "events"

    by_duckdb = duckdb.sql(
        f"SELECT account, event_id FROM read_parquet('{folder}/*/*/*.parquet',"
        " hive_types={'account': VARCHAR, 'date': DATE}) ORDER BY ALL"
    ).fetchall()
    by_polars = (
        pl.scan_parquet(f"{folder}/**/*.parquet", hive_schema={"account": pl.String, "date": pl.Date})
        .select("account", "event_id")
        .collect()
        .sort(pl.all())
        .rows()
    )
    by_arrow = ds.dataset(folder, partitioning=ds.partitioning(flavor="hive", schema=_partition_schema())).to_table(
        columns=["account", "event_id"]
    )

    assert by_duckdb == [(ACCOUNT, "a"), (ACCOUNT, "b"), (ACCOUNT, "c")]
    assert by_polars == by_duckdb
    assert sorted(zip(*(column.to_pylist() for column in by_arrow.columns), strict=True)) == by_duckdb
    state.close()


def _partition_schema() -> Any:
    import pyarrow as pa

    return pa.schema([("account", pa.string()), ("date", pa.date32())])


def test_a_lake_belongs_to_one_state(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "lake"))
    lake.claim("one")
    lake.claim("one")

    with pytest.raises(KyraError, match="another state"):
        lake.claim("two")


def test_tidying_keeps_what_a_living_attempt_staged(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    road.put(key("0105"), "a")
    commit = road.state.ledger.commit

    def meanwhile(*arguments: Any, **options: Any) -> None:
        tidy(lake=road.lake, state=road.state)
        commit(*arguments, **options)

    monkeypatch.setattr(road.state.ledger, "commit", meanwhile)

    assert road.sync().events == 1
    assert road.glob() == ["a"]


def test_tidying_never_sweeps_a_batch_that_commits_meanwhile(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run tidies up between this run's staging and its publishing, and is slow at it."""
    road.put(key("0105"), "a")
    ledger = road.state.ledger
    unpublished, live_batches = ledger.unpublished, ledger.live_batches
    commit, begun = ledger.commit, []

    def tidied_around(*arguments: Any, **options: Any) -> None:
        def committing_after(question: Callable[[], Any]) -> Callable[[], Any]:
            def ask() -> Any:
                answer = question()
                if not begun:
                    begun.append(question)
                    commit(*arguments, **options)
                return answer

            return ask

        monkeypatch.setattr(ledger, "unpublished", committing_after(unpublished))
        monkeypatch.setattr(ledger, "live_batches", committing_after(live_batches))
        tidy(lake=road.lake, state=road.state)

    monkeypatch.setattr(ledger, "commit", tidied_around)

    assert road.sync().events == 1
    assert road.glob() == ["a"]


def test_a_file_that_is_published_while_another_run_looks_for_it_is_read_in_its_new_place(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    road.put(key("0105"), "a")
    with monkeypatch.context() as broken:
        broken.setattr(road.lake, "publish", crash)
        with pytest.raises(Crash):
            road.sync()
    storage, tidied = type(road.lake.storage), []
    exists = storage.exists

    def published_meanwhile(self: Any, path: str) -> bool:
        answer = exists(self, path)
        if answer and path.startswith("_staging/") and not tidied:
            tidied.append(path)
            tidy(lake=road.lake, state=road.state)
        return answer

    road.put(key("0106"), "a", "b")
    monkeypatch.setattr("kyra_etl.sync.tidy", lambda **_: None)
    monkeypatch.setattr(storage, "exists", published_meanwhile)
    report = road.sync()

    assert (report.events, report.duplicates) == (1, 1)
    assert tidied
    assert road.glob() == ["a", "b"]
