"""What changed is news until it was told, once, however it changed and whoever asks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from kyra_etl.model import Integration
from kyra_etl.news import STALE, News, news, told
from kyra_etl.state import Absence, State
from tests.state.making import NOW, finding
from tests.state.test_alerts import record

LATER = NOW + timedelta(hours=1)
SILENCE = Absence("silent", "Silent", "high", "111111111111", "trail", NOW, "Nothing comes.", "a9")


def heard(state: State, **states: str) -> News:
    return news(states, state=state, now=LATER)


def alerts(state: State) -> list[tuple[str, bool]]:
    return [(alert.alert_id, untold.opened) for alert, untold in heard(state).alerts]


def test_a_new_alert_is_told_as_opened_and_later_as_changed(state: State) -> None:
    record(state, finding("e1"))
    record(state, finding("e2", "high"))
    assert alerts(state) == [("a1", True)], "nobody has heard of it yet"

    told(heard(state), state=state, now=LATER)
    assert alerts(state) == []

    record(state, finding("e2", "high"))
    assert alerts(state) == [], "the same again is no news"
    record(state, finding("e3"))
    assert alerts(state) == [("a1", False)]


def test_an_alert_that_changes_while_it_is_told_is_told_again_as_changed(state: State) -> None:
    record(state, finding("e1"))
    telling = heard(state)
    state.absences.observe("acme", [replace(SILENCE, alert_id="a2")], NOW)
    record(state, finding("e2"), now=NOW + timedelta(minutes=1))

    told(telling, state=state, now=LATER)

    assert alerts(state) == [("a2", True), ("a1", False)]


def test_absences_are_news_when_they_begin_end_and_begin_again(state: State) -> None:
    for absent, opened in (([SILENCE], True), ([], False), ([SILENCE], False)):
        recorded = state.absences.observe("acme", absent, NOW)
        assert recorded.new + recorded.updated == ("a9",)
        assert alerts(state) == [("a9", opened)]
        told(heard(state), state=state, now=LATER)
    assert state.absences.observe("acme", [SILENCE], NOW).updated == ()
    assert alerts(state) == []


def test_an_alert_that_is_gone_is_no_news(state: State) -> None:
    record(state, finding("e1"))
    record(state, replace(finding("e1"), alert_id="a2"))

    assert alerts(state) == [("a2", True)]


def test_what_nobody_listened_to_is_not_told_days_later(state: State) -> None:
    record(state, finding("e1"))
    later = NOW + STALE + timedelta(minutes=1)

    assert news({}, state=state, now=later) == News()
    told(News(), state=state, now=later)
    assert state.news.untold(NOW) == []


def test_an_integration_is_news_while_its_state_is_another_one_than_was_told(state: State) -> None:
    state.integrations.add(Integration("acme", "logs"), NOW)
    assert heard(state, acme="Pending").turns == ()

    (turn,) = heard(state, acme="Connected").turns
    assert turn == ("acme", "Pending", "Connected", NOW)
    assert heard(state, acme="Connected").turns == (turn,), "until it was told"
    told(heard(state, acme="Connected"), state=state, now=LATER)

    assert heard(state, acme="Connected").turns == ()
    assert heard(state, acme="Failed").turns == (("acme", "Connected", "Failed", LATER),)


def test_an_integration_of_before_there_was_telling_is_told_of_when_it_changes(state: State) -> None:
    state.integrations.add(Integration("acme", "logs"), NOW)
    state.news.told_state("acme", None, NOW)  # type: ignore[arg-type]

    assert heard(state, acme="Degraded", gone="Failed").turns == ()
    assert [turn.before for turn in heard(state, acme="Connected").turns] == ["Degraded"]


def test_an_integration_that_is_made_anew_is_other_news_than_the_one_before(state: State) -> None:
    for now in (NOW, LATER):
        state.integrations.add(Integration("acme", "logs"), now)
        assert [turn.told_at for turn in heard(state, acme="Connected").turns] == [now]
        state.integrations.remove("acme")
