"""Alerts without events: an account that falls silent, a trail that does not log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kyra_etl.absence import NOT_LOGGING, SILENT, watch
from kyra_etl.model import Alert, Folder, Integration
from kyra_etl.state import State

NOON = datetime(2026, 3, 2, 12)
ACCOUNT, TRAIL = "111122223333", "arn:aws:cloudtrail:eu-west-1:111122223333:trail/main"
LOGS = Integration(name="logs", bucket="example-logs", account_id=ACCOUNT)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(str(tmp_path / "state.db")) as state:
        state.integrations.add(LOGS, NOON)
        yield state


def _delivered(state: State, region: str, *, last: datetime, listed: datetime, days: int = 20) -> None:
    """A region of the account, as its listing left it; its longest pause is a quarter of an hour."""
    folder = Folder(
        folder=f"AWSLogs/{ACCOUNT}/CloudTrail/{region}/",
        account=ACCOUNT,
        region=region,
        kind="CloudTrail",
        found_at=NOON - timedelta(days=days),
        listed_at=listed,
        day=last.date(),
        last_delivered_at=last,
        day_folders=days,
        usual_pause=900.0,
    )
    state.ledger.save_listing("logs", [folder], requests=1, day=listed.date())


def _trail(state: State, now: datetime, **fields: Any) -> None:
    trail: Mapping[str, Any] = {"name": "main", "arn": TRAIL, "home_region": "eu-west-1", "logging": True} | fields
    state.integrations.save_trails("logs", [trail], now)


def _alerts(state: State, kind: str) -> list[Alert]:
    return list(state.alerts.list(detection=kind))


def test_an_account_silent_against_its_habit_raises_one_alert_until_it_is_back(state: State) -> None:
    _delivered(state, "eu-west-1", last=NOON - timedelta(hours=2), listed=NOON)

    first = watch(LOGS, state=state, now=NOON)
    again = watch(LOGS, state=state, now=NOON + timedelta(minutes=5))

    assert (len(first.new), again.new, again.updated) == (1, (), ())
    [alert] = _alerts(state, SILENT)
    assert (alert.severity, alert.account, alert.event_count, alert.event_ids) == ("high", ACCOUNT, 0, ())
    assert alert.first_seen == NOON - timedelta(hours=2)
    assert "T1562.008" in alert.attack_legacy

    _delivered(state, "eu-west-1", last=NOON + timedelta(hours=1), listed=NOON + timedelta(hours=1))
    back = watch(LOGS, state=state, now=NOON + timedelta(hours=1))

    assert back.updated == (alert.alert_id,)
    [alert] = _alerts(state, SILENT)
    assert (alert.severity, alert.status) == ("low", "open")
    assert "Back at 2026-03-02 13:00" in (alert.summary or "")
    assert [(move["before"], move["after"]) for move in state.alerts.moves(alert.alert_id)] == [("high", "low")]


def test_one_silent_region_of_several_is_medium_and_rises_when_all_are(state: State) -> None:
    _delivered(state, "eu-west-1", last=NOON - timedelta(hours=2), listed=NOON)
    _delivered(state, "us-east-1", last=NOON - timedelta(minutes=5), listed=NOON)
    watch(LOGS, state=state, now=NOON)
    assert [alert.severity for alert in _alerts(state, SILENT)] == ["medium"]

    later = NOON + timedelta(hours=2)
    _delivered(state, "eu-west-1", last=NOON - timedelta(hours=2), listed=later)
    _delivered(state, "us-east-1", last=NOON - timedelta(minutes=5), listed=later)
    watch(LOGS, state=state, now=later)

    assert [alert.severity for alert in _alerts(state, SILENT)] == ["high"]


def test_a_second_silence_is_another_alert(state: State) -> None:
    for hours in (2, 12):
        now = NOON + timedelta(hours=hours)
        _delivered(state, "eu-west-1", last=now - timedelta(hours=2), listed=now)
        watch(LOGS, state=state, now=now)
        _delivered(state, "eu-west-1", last=now + timedelta(hours=1), listed=now + timedelta(hours=1))
        watch(LOGS, state=state, now=now + timedelta(hours=1))

    assert len(_alerts(state, SILENT)) == 2


@pytest.mark.parametrize(
    ("last", "days"), [(NOON - timedelta(minutes=20), 20), (NOON - timedelta(hours=2), 3)], ids=["pause", "no-habit"]
)
def test_a_usual_pause_or_a_region_without_a_habit_is_no_absence(state: State, last: datetime, days: int) -> None:
    _delivered(state, "eu-west-1", last=last, listed=NOON, days=days)

    assert watch(LOGS, state=state, now=NOON).new == ()


def test_a_closed_alert_is_not_raised_again_while_the_silence_lasts(state: State) -> None:
    _delivered(state, "eu-west-1", last=NOON - timedelta(hours=2), listed=NOON)
    [alert_id] = watch(LOGS, state=state, now=NOON).new
    state.alerts.close(alert_id, "a planned move", NOON)

    assert watch(LOGS, state=state, now=NOON + timedelta(hours=1)).new == ()
    assert [alert.status for alert in _alerts(state, SILENT)] == ["closed"]


def test_a_closed_alert_opens_again_when_one_silent_region_becomes_all_of_them(state: State) -> None:
    _delivered(state, "eu-west-1", last=NOON - timedelta(hours=2), listed=NOON)
    _delivered(state, "us-east-1", last=NOON - timedelta(minutes=5), listed=NOON)
    [alert_id] = watch(LOGS, state=state, now=NOON).new
    state.alerts.close(alert_id, "region retired", NOON)

    later = NOON + timedelta(hours=2)
    _delivered(state, "eu-west-1", last=NOON - timedelta(hours=2), listed=later)
    _delivered(state, "us-east-1", last=NOON - timedelta(minutes=5), listed=later)
    assert watch(LOGS, state=state, now=later).updated == (alert_id,)

    [alert] = _alerts(state, SILENT)
    assert (alert.severity, alert.status, alert.closed_reason) == ("high", "open", None)
    moves = [(move["what"], move["before"], move["after"], move["note"]) for move in state.alerts.moves(alert_id)]
    assert moves[1:] == [("severity", "medium", "high", None), ("status", "closed", "open", "severity rose")]
    state.alerts.close(alert_id, "known", later)
    assert watch(LOGS, state=state, now=later + timedelta(minutes=5)).updated == ()
    assert [alert.status for alert in _alerts(state, SILENT)] == ["closed"]


def test_an_alert_closed_when_deliveries_were_back_opens_again_if_they_never_really_were(state: State) -> None:
    _trail(state, NOON, logging=False)
    [alert_id] = watch(LOGS, state=state, now=NOON).new
    _trail(state, NOON, logging=True)
    watch(LOGS, state=state, now=NOON + timedelta(minutes=5))
    state.alerts.close(alert_id, "logs again", NOON + timedelta(minutes=10))

    _trail(state, NOON, logging=False)
    again = watch(LOGS, state=state, now=NOON + timedelta(minutes=15))

    assert (again.new, again.updated) == ((), (alert_id,))
    assert [(alert.severity, alert.status) for alert in _alerts(state, NOT_LOGGING)] == [("high", "open")]


@pytest.mark.parametrize("fields", [{"logging": False}, {"latest_delivery_error": "AccessDenied"}])
def test_a_trail_that_does_not_log_or_deliver_raises_an_alert_after_the_check(
    state: State, fields: dict[str, Any]
) -> None:
    _trail(state, NOON, **fields)

    assert len(watch(LOGS, state=state, now=NOON).new) == 1
    _trail(state, NOON + timedelta(hours=1), **fields)
    assert watch(LOGS, state=state, now=NOON + timedelta(hours=1)).new == ()

    [alert] = _alerts(state, NOT_LOGGING)
    assert (alert.severity, alert.account, alert.target) == ("high", ACCOUNT, TRAIL)
    _trail(state, NOON + timedelta(hours=2))
    watch(LOGS, state=state, now=NOON + timedelta(hours=2))
    assert [alert.severity for alert in _alerts(state, NOT_LOGGING)] == ["low"]


def test_a_folder_is_filled_when_somebody_likes(state: State, tmp_path: Path) -> None:
    folder = Integration(name="logs", bucket=f"file://{tmp_path}", account_id=ACCOUNT)
    _delivered(state, "eu-west-1", last=NOON - timedelta(hours=2), listed=NOON)

    assert watch(folder, state=state, now=NOON).new == ()
