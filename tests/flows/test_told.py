"""What a flow leaves behind whichever way it ends: events for automations, artifacts, its last state."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import duckdb
import pytest
from prefect import get_client
from prefect.client.schemas.objects import State as Ended
from werkzeug.wrappers import Response

from flows import events, verbs
from flows.backfill import backfill
from flows.check import check
from flows.maintain import maintain
from flows.progress import ProgressArtifact
from flows.sync import sync, sync_integration
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.flows.test_end_to_end import ACCOUNT, LONG_AGO, STOPPED, TODAY, events_in, put
from tests.wire import WIRE, Call, refuse

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, UUID]]:
    """What Prefect is told, in order: event, resource, id."""
    heard: list[tuple[str, str, UUID]] = []

    def hear(event: str, resource: dict[str, str], payload: object, id: UUID) -> None:
        heard.append((event, resource["prefect.resource.id"], id))

    monkeypatch.setattr(events, "emit_event", hear)
    return heard


@pytest.fixture
def state(kyra_home: Path) -> State:
    return State.open(str(kyra_home / "state.db"))


def artifacts(ended: Ended[Any], key: str) -> list[Any]:
    """The tables of that key, or how far the bars are, which a run left."""
    run = str(ended.state_details.flow_run_id)
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": [key]}}}).json()
    left = [one["data"] for one in found if one["flow_run_id"] == run]
    return [json.loads(data) if isinstance(data, str) else data for data in left]


def in_s3(name: str, *records: dict[str, Any]) -> None:
    """A log file of today in the bucket `trail`."""
    body = gzip.compress(json.dumps({"Records": records}).encode())
    key = f"AWSLogs/{ACCOUNT}/CloudTrail/us-east-1/{TODAY:%Y/%m/%d}/{name}.json.gz"
    boto3.client("s3").put_object(Bucket="trail", Key=key, Body=body)


def stopped(name: str) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(minutes=5)
    return {
        "eventVersion": "1.11",
        "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "eventID": name,
        "awsRegion": "us-east-1",
        "recipientAccountId": ACCOUNT,
        "sourceIPAddress": "198.51.100.7",
        "userIdentity": {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/kim", "accountId": ACCOUNT},
        **STOPPED,
    }


@pytest.fixture
def customer(s3_server: str, state: State, impatient: None) -> None:
    """An integration with a bucket and a queue, and a log file that raises an alert."""
    boto3.client("s3").create_bucket(Bucket="trail")
    in_s3("one", stopped("e1"))
    queue = boto3.client("sqs").create_queue(QueueName="notices")["QueueUrl"]
    integration = Integration("acme", "trail", account_id=ACCOUNT, region="us-east-1", queue_url=queue)
    state.integrations.add(integration, state.now())


def busy_at_first(call: Call) -> Response | None:
    """SQS is throttled until a log file was read."""
    slow = refuse("sqs:ReceiveMessage", "RequestThrottled", "Slow down.", 400)
    return None if "s3:GetObject" in WIRE.actions else slow(call)


def test_a_sync_that_fails_although_it_loaded_tells_its_alerts_and_leaves_its_report(
    customer: None, told: list[tuple[str, str, UUID]]
) -> None:
    WIRE.rules.append(refuse("sqs:ReceiveMessage", "AccessDenied", "No."))

    ended = sync(return_state=True)

    assert ended.is_failed()
    message = str(ended.message)
    assert "sqs:ReceiveMessage" in message
    assert message.splitlines()[-1] == "acme: 1 log file loaded, 1 new event, 1 new alert"
    (report,), (alerts,) = artifacts(ended, "sync-report"), artifacts(ended, "sync-alerts")
    assert [(row["integration"], row["loaded"], row["adds up"]) for row in report] == [("acme", 1, "yes")]
    assert [row["title"] for row in alerts] == ["CloudTrail Disabled"]
    assert [event for event, _, _ in told] == ["kyra.alert.opened", "kyra.integration.failed"]

    again = sync(return_state=True)
    assert again.is_failed(), "it lasts"
    assert len(told) == 2, "and is not told twice"


def test_a_sync_that_is_tried_again_tells_what_its_first_attempt_found(
    customer: None, told: list[tuple[str, str, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_integration, "retry_delay_seconds", 0)
    WIRE.rules.append(busy_at_first)

    ended = sync(return_state=True)

    assert ended.is_completed(), ended.message
    assert ended.message == "acme: 1 log file loaded, 1 new event, 1 new alert"
    (report,), (alerts,) = artifacts(ended, "sync-report"), artifacts(ended, "sync-alerts")
    assert [row["loaded"] for row in report] == [1, 0], "a row an attempt"
    assert len(alerts) == 1
    assert [event for event, _, _ in told] == ["kyra.alert.opened", "kyra.integration.connected"]


def test_what_a_killed_run_detected_is_told_by_the_next_one(customer: None, told: list[tuple[str, str, UUID]]) -> None:
    verbs.sync("acme")  # and there the process ended

    sync(return_state=True)

    assert told[0][0] == "kyra.alert.opened"


def test_a_trail_that_does_not_log_is_told_by_the_check_and_published(
    customer: None, state: State, told: list[tuple[str, str, UUID]], kyra_home: Path
) -> None:
    trail = boto3.client("cloudtrail").create_trail(Name="main", S3BucketName="trail")

    ended = check(return_state=True)

    ((row,),) = artifacts(ended, "check-alerts")
    assert row["title"] == "Trail Not Logging"
    opened = [resource for event, resource, _ in told if event == "kyra.alert.opened"]
    (alert,) = state.alerts.list(detection="trail_not_logging")
    assert alert.target == trail["TrailARN"]
    assert opened == [f"kyra.alert.{alert.alert_id}"]
    published = duckdb.sql(f"SELECT alert_id FROM '{kyra_home}/lake/alerts/*/*.parquet'").fetchall()
    assert published == [(alert.alert_id,)]
    states = [event for event, resource, _ in told if resource == "kyra.integration.acme"]
    assert states == ["kyra.integration.failed"], "a check changes it, too"


def test_events_that_two_runs_tell_at_once_have_the_same_id(
    customer: None, told: list[tuple[str, str, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs.sync("acme")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(verbs, "told", lambda news: None)
        events.tell()
    events.tell()
    first, second = told[: len(told) // 2], told[len(told) // 2 :]

    assert first == second != []
    events.tell()
    assert len(told) == 2 * len(first)


def test_what_could_not_be_told_is_told_next_time_and_stops_nothing(
    customer: None, told: list[tuple[str, str, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs.sync("acme")

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as away:
        away.setattr(events, "emit_event", fails)
        events.tell()
    events.tell()

    assert "kyra.alert.opened" in [event for event, _, _ in told]


@pytest.fixture
def folder(tmp_path: Path, state: State) -> Path:
    """An integration over a folder with a log file on each of three days long ago."""
    for number in range(3):
        put(tmp_path / "bucket", LONG_AGO + timedelta(days=number), f"day{number}", {})
    integration = Integration("acme", (tmp_path / "bucket").as_uri(), account_id=ACCOUNT)
    state.integrations.add(integration, state.now())
    return tmp_path / "bucket"


LAST = LONG_AGO + timedelta(days=2)


def test_a_backfill_that_is_paused_says_where_it_stopped_and_how_it_goes_on(
    folder: Path, state: State, told: list[tuple[str, str, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance_day = ProgressArtifact.advance_day

    def pausing(self: ProgressArtifact, what: str) -> None:
        advance_day(self, what)
        state.integrations.pause("acme", True)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ProgressArtifact, "advance_day", pausing)
        ended = backfill("acme", LONG_AGO, LAST, return_state=True)

    how = "Go on with: kyra integration resume acme, then the same backfill again."
    assert (ended.name, ended.message) == (
        "Stopped",
        f"acme was paused after {LONG_AGO}, 1 of 3 days. {how}\nacme: 1 log file loaded, 1 new event, 0 new alerts",
    )
    (bar,), (rows,) = artifacts(ended, "backfill-progress"), artifacts(ended, "backfill-report")
    assert 30 < bar < 40
    assert [row["day"] for row in rows] == [f"{LONG_AGO}"]
    assert ("kyra.integration.paused", "kyra.integration.acme") in [(event, resource) for event, resource, _ in told]

    again = backfill("acme", LONG_AGO, LAST, return_state=True)
    assert (again.name, again.message) == ("Stopped", f"acme was paused before the first day. {how}")

    state.integrations.pause("acme", False)
    ended = backfill("acme", LONG_AGO, LAST, return_state=True)
    assert (ended.name, ended.message) == ("Completed", "acme: 2 log files loaded, 2 new events, 0 new alerts")
    assert artifacts(ended, "backfill-progress") == [100]


def test_the_nightly_run_takes_away_what_was_kept_long_enough_and_nothing_where_no_days_are_set(
    folder: Path, kyra_home: Path, told: list[tuple[str, str, UUID]]
) -> None:
    put(folder, TODAY - timedelta(days=1), "yesterday", {})
    assert backfill("acme", LONG_AGO, TODAY, return_state=True).is_completed()

    ended = maintain(return_state=True)
    assert ended.is_completed(), ended.message
    assert events_in(kyra_home) == (4, 4)

    (kyra_home / "kyra.toml").write_text("retain_days = 30\n")
    ended = maintain(return_state=True)
    assert ended.is_completed(), ended.message
    assert str(ended.message).startswith("3 events removed that were kept long enough; ")
    assert events_in(kyra_home) == (1, 1)
