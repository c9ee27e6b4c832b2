"""Alerts follow from their findings, whatever order they came in; people's decisions stay."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kyra_etl.errors import StateError, UnknownName, UsageError
from kyra_etl.model import SEVERITIES, Alert, Finding
from kyra_etl.state import Recorded, State
from tests.state.making import NOW, file, finding, sync

LATER = NOW + timedelta(minutes=5)


def record(
    state: State,
    *findings: Finding,
    clear: Sequence[tuple[str, str]] = (),
    title: str = "Title",
    look: int | None = None,
    now: datetime = NOW,
) -> Recorded:
    return state.alerts.record(
        "d",
        title=title,
        attack=["T1685.002"],
        attack_legacy=["T1562.008"],
        findings=findings,
        look=state.alerts.look() if look is None else look,
        clear=clear,
        now=now,
    )


def test_a_first_finding_makes_an_alert(state: State) -> None:
    one = finding("e1", "high", region="eu-west-1", source_ip="198.51.100.7", target="trail", summary="stopped it")

    assert record(state, one) == Recorded(new=("a1",))
    assert state.alerts.get("a1") == Alert(
        alert_id="a1",
        detection="d",
        title="Title",
        severity="high",
        account="111111111111",
        first_seen=NOW,
        last_seen=NOW,
        event_count=1,
        event_ids=("e1",),
        attack=("T1685.002",),
        attack_legacy=("T1562.008",),
        region="eu-west-1",
        actor="actor of e1",
        source_ip="198.51.100.7",
        target="trail",
        summary="stopped it",
    )


def test_recording_the_same_again_changes_nothing(state: State) -> None:
    record(state, finding("e1"), finding("e2"))
    before = state.alerts.list()

    assert record(state, finding("e1"), finding("e2")) == Recorded()
    assert state.alerts.list() == before
    assert state.alerts.list(changed_since=LATER) == []


def test_the_most_severe_then_earliest_finding_speaks_for_the_alert(state: State) -> None:
    record(state, finding("e1", "low", minutes=-9), finding("e3", "high", minutes=3), finding("e2", "high", minutes=2))
    alert = state.alerts.get("a1")

    assert (alert.severity, alert.actor, alert.event_count) == ("high", "actor of e2", 3)
    assert (alert.first_seen, alert.last_seen) == (NOW - timedelta(minutes=9), NOW + timedelta(minutes=3))
    assert alert.event_ids == ("e1", "e2", "e3")


def test_every_event_a_finding_rests_on_belongs_to_the_alert(state: State) -> None:
    times = {"before": NOW - timedelta(hours=1), "after": NOW + timedelta(hours=1)}
    record(state, finding("e1", event_ids=("before", "after", "unseen"), event_times=times))
    alert = state.alerts.get("a1")

    assert alert.event_ids == ("before", "e1", "after", "unseen")
    assert (alert.first_seen, alert.last_seen) == (times["before"], times["after"])
    assert [row["event_time"] for row in state.alerts.events(["a1"])] == [times["before"], NOW, times["after"], None]


def test_a_calming_event_lowers_the_severity_and_the_move_is_kept(state: State) -> None:
    record(state, finding("e1", "high"))

    assert record(state, finding("e1", "low", event_ids=("e1", "mfa"))) == Recorded(updated=("a1",))

    assert (state.alerts.get("a1").severity, state.alerts.get("a1").event_count) == ("low", 2)
    assert state.alerts.moves("a1") == [
        {"at": NOW, "what": "severity", "before": "high", "after": "low", "note": None},
    ]


def test_evidence_a_finding_no_longer_rests_on_leaves_the_alert_unless_another_does(state: State) -> None:
    record(state, finding("e3", event_ids=("e1", "e2", "e3")), finding("e4", event_ids=("e2", "e3", "e4"), minutes=1))

    record(state, finding("e3", event_ids=("e3",)))

    assert set(state.alerts.get("a1").event_ids) == {"e2", "e3", "e4"}


def test_a_finding_that_moves_to_another_group_takes_its_evidence_along(state: State) -> None:
    record(state, finding("e1"), finding("e2", minutes=2))

    assert record(state, finding("e2", alert="b1", minutes=2)) == Recorded(new=("b1",), updated=("a1",))
    assert state.alerts.get("a1").event_ids == ("e1",)
    assert state.alerts.get("b1").event_ids == ("e2",)


def test_an_alert_without_findings_goes_away_unless_somebody_worked_on_it(state: State) -> None:
    record(state, finding("e1"), finding("e2", alert="b1"))
    state.alerts.acknowledge("b1", "mine", NOW)

    moved = record(state, finding("e1", alert="c1"), finding("e2", alert="c1"))

    assert moved == Recorded(new=("c1",), removed=("a1",), left=(NOW.date(),))
    kept = state.alerts.get("b1")
    assert (kept.status, kept.closed_reason) == ("closed", "its evidence belongs to another alert now")
    with pytest.raises(UnknownName):
        state.alerts.get("a1")
    record(state, finding("e2", alert="b1"))
    assert state.alerts.get("b1").status == "open"


def test_two_findings_of_one_anchor_become_one_with_all_evidence(state: State) -> None:
    low, high = finding("e1", "low", event_ids=("x",)), finding("e1", "high", event_ids=("y",))
    for pair in ((low, high), (high, low)):
        record(state, *pair)
        alert = state.alerts.get("a1")
        assert (alert.severity, set(alert.event_ids)) == ("high", {"e1", "x", "y"})


def test_equal_event_ids_of_two_accounts_are_two_findings(state: State) -> None:
    record(state, finding("e1", "low"), finding("e1", "high", account="222222222222", alert="b1"))

    assert {a.alert_id: a.severity for a in state.alerts.list()} == {"a1": "low", "b1": "high"}


def test_an_alert_is_historical_until_a_live_event_joins_and_never_again(state: State) -> None:
    old = frozenset({"e1", "e2"})
    record(state, finding("e1", event_ids=("e1", "e2"), historical_ids=old))
    assert state.alerts.get("a1").historical

    assert record(state, finding("e3", historical_ids=frozenset())) == Recorded(updated=("a1",))
    assert not state.alerts.get("a1").historical
    record(state, finding("e3", historical_ids=frozenset({"e3"})))
    assert not state.alerts.get("a1").historical
    assert {row["event_id"]: row["historical"] for row in state.alerts.events(["a1"])} == (
        {"e1": True, "e2": True, "e3": False}
    )


def test_a_closed_alert_opens_again_only_above_its_severity_at_closing(state: State) -> None:
    record(state, finding("e1", "high"))
    record(state, finding("e1", "medium"))
    state.alerts.close("a1", "benign", LATER)

    record(state, finding("e2", "medium", minutes=1))
    assert state.alerts.get("a1").status == "closed"
    assert state.alerts.get("a1").closed_reason == "benign"
    record(state, finding("e1", "low"), finding("e2", "low", minutes=1))
    record(state, finding("e1", "medium"))
    assert state.alerts.get("a1").status == "closed"
    record(state, finding("e3", "high", minutes=2))
    alert = state.alerts.get("a1")
    assert (alert.status, alert.closed_reason, alert.severity) == ("open", None, "high")
    assert [(m["before"], m["after"], m["note"]) for m in state.alerts.moves("a1") if m["what"] == "status"] == [
        ("open", "closed", "benign"),
        ("closed", "open", "severity rose"),
    ]


def test_an_acknowledged_alert_stays_so_when_more_comes(state: State) -> None:
    record(state, finding("e1", "low"))
    assert state.alerts.acknowledge("a1", "looking", LATER).status == "acknowledged"
    record(state, finding("e2", "critical"))

    assert (state.alerts.get("a1").status, state.alerts.get("a1").severity) == ("acknowledged", "critical")
    state.alerts.close("a1", "done", LATER)
    with pytest.raises(UsageError, match="is closed"):
        state.alerts.acknowledge("a1", None, LATER)


def test_alerts_are_listed_newest_first_and_by_condition(state: State) -> None:
    record(state, finding("e1", "low"), finding("e2", "high", "b1", 2), finding("e3", "low", "c1", 1))
    state.alerts.close("b1", "benign", LATER)

    def ids(**chosen: object) -> list[str]:
        return [alert.alert_id for alert in state.alerts.list(**chosen)]  # type: ignore[arg-type]

    assert ids() == ["b1", "c1", "a1"]
    assert ids(limit=2) == ["b1", "c1"]
    assert ids(severity="low", status="open") == ["c1", "a1"]
    assert ids(status="closed") == ids(changed_since=LATER) == ["b1"]
    assert ids(detection="other") == []


def test_an_alert_is_found_by_a_unique_beginning_of_its_id(state: State) -> None:
    record(state, finding("e1", alert="abc"), finding("e2", alert="abcd"), finding("e3", alert="x%y"))

    assert state.alerts.get("abc").alert_id == "abc"
    assert state.alerts.get("x").alert_id == "x%y"
    for wrong, says in (("ab", "Several alerts"), ("nope", "no alert"), ("", "no alert"), ("%", "no alert")):
        with pytest.raises(UnknownName, match=says):
            state.alerts.get(wrong)


def test_the_queue_entry_goes_with_the_findings_or_not_at_all(state: State) -> None:
    batch = sync(state, [file(1)])

    with pytest.raises(StateError, match="names no alert"):
        record(state, finding("e1"), finding("e2", alert=""), clear=[(batch.batch_id, "d")])
    assert (state.queue.depth(), state.alerts.list()) == (1, [])
    record(state, clear=[(batch.batch_id, "d"), ("no such batch", "d")])
    assert state.queue.depth() == 0


def test_what_an_attacker_writes_does_not_stop_an_alert(state: State) -> None:
    record(state, finding("e\x00", event_ids=("e\x00", "f\ud800"), summary="a\x00b", target="'; DROP TABLE alerts; --"))
    record(state, finding("e\x00", event_ids=("e\x00",)))

    assert state.alerts.get("a1").event_ids == ("e\ufffd",)


def test_every_look_has_a_greater_number_than_those_before(state: State) -> None:
    numbers = [state.alerts.look() for _ in range(12)]

    assert numbers == sorted(set(numbers))


def test_what_an_earlier_look_found_does_not_replace_what_a_later_one_did(state: State) -> None:
    batch = sync(state, [file(1)])
    early, late = state.alerts.look(), state.alerts.look()
    record(state, finding("e1", "critical", event_ids=("e1", "e2")), look=late)

    stale = finding("e1", "medium", event_ids=("e1", "e0"))
    assert record(state, stale, look=early, clear=[(batch.batch_id, "d")]) == Recorded()

    alert = state.alerts.get("a1")
    assert (alert.severity, alert.event_ids) == ("critical", ("e1", "e2"))
    assert state.queue.depth() == 0
    record(state, finding("e1", "low"), look=late)
    assert state.alerts.get("a1").severity == "low", "the same look again counts"


def test_what_only_an_earlier_look_found_is_kept(state: State) -> None:
    early, late = state.alerts.look(), state.alerts.look()
    record(state, finding("e1", "high"), look=late)

    assert record(state, finding("e1", "low"), finding("e2", "low", "b1"), look=early) == Recorded(new=("b1",))


def test_an_earlier_look_tells_at_least_that_an_event_came_live(state: State) -> None:
    early, late = state.alerts.look(), state.alerts.look()
    record(state, finding("e1", historical_ids=frozenset({"e1"})), look=late)

    assert record(state, finding("e1", event_ids=("e1", "e0")), look=early) == Recorded(updated=("a1",))

    alert = state.alerts.get("a1")
    assert (alert.historical, alert.event_ids) == (False, ("e1",))


def test_thousands_of_findings_at_once(state: State) -> None:
    many = [finding(f"e{n:04}", "low", f"a{n % 700}", n, event_ids=(f"e{n:04}", f"x{n}")) for n in range(2_100)]

    assert len(record(state, *many).new) == 700
    assert {alert.event_count for alert in state.alerts.list()} == {6}


FINDINGS = st.lists(
    st.builds(
        finding,
        event=st.sampled_from(["e1", "e2", "e3", "e4", "e5"]),
        severity=st.sampled_from(SEVERITIES),
        alert=st.sampled_from(["a", "b"]),
        minutes=st.integers(-3, 3),
        event_ids=st.lists(st.sampled_from(["x1", "x2", "e1", "e2"]), max_size=3).map(tuple),
        historical_ids=st.frozensets(st.sampled_from(["x1", "x2", "e1", "e2", "e3", "e4", "e5"])),
        event_times=st.dictionaries(st.sampled_from(["x1", "x2"]), st.just(NOW - timedelta(hours=2))),
    ),
    unique_by=lambda f: f.event_id,
    min_size=2,
    max_size=5,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(findings=FINDINGS, data=st.data())
def test_the_same_findings_in_any_order_make_the_same_alerts(
    state: State, findings: list[Finding], data: st.DataObject
) -> None:
    orders = [findings, data.draw(st.permutations(findings)), findings[::-1]]
    cuts = data.draw(st.integers(1, len(findings)))
    seen = []
    for number, order in enumerate(orders):
        name = uuid.uuid4().hex
        mine = [replace(f, alert_id=f"{name}-{f.alert_id}") for f in order]
        parts = [mine] if number == 0 else [mine[at : at + cuts] for at in range(0, len(mine), cuts)]
        for part in [*parts, mine[:1]]:
            look = state.alerts.look()
            state.alerts.record(name, title="t", attack=[], attack_legacy=[], findings=part, look=look, now=NOW)
        alerts = state.alerts.list(detection=name)
        events = state.alerts.events([a.alert_id for a in alerts])
        seen.append(
            (
                sorted((replace(a, alert_id=a.alert_id[33:], detection="") for a in alerts), key=lambda a: a.alert_id),
                sorted((r["alert_id"][33:], r["event_id"], str(r["event_time"]), r["historical"]) for r in events),
            )
        )

    assert seen[0] == seen[1] == seen[2]


LOOKS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.builds(
            finding,
            event=st.sampled_from(["e1", "e2", "e3"]),
            severity=st.sampled_from(SEVERITIES),
            alert=st.sampled_from(["a", "b"]),
            event_ids=st.lists(st.sampled_from(["x1", "x2", "e1", "e2"]), max_size=3).map(tuple),
            event_times=st.just({"x1": NOW - timedelta(hours=2)} | dict.fromkeys(["x2", "e1", "e2", "e3"], NOW)),
        ),
    ),
    unique_by=lambda each: (each[0], each[1].event_id),
    min_size=2,
    max_size=8,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=LOOKS, data=st.data())
def test_looks_recorded_in_any_order_make_the_alerts_of_the_order_they_were_taken_in(
    state: State, found: list[tuple[int, Finding]], data: st.DataObject
) -> None:
    seen = []
    for order in (sorted(found, key=lambda each: each[0]), data.draw(st.permutations(found))):
        name = uuid.uuid4().hex
        for look, one in order:
            mine = replace(one, alert_id=f"{name}-{one.alert_id}")
            state.alerts.record(name, title="t", attack=[], attack_legacy=[], findings=[mine], look=look, now=NOW)
        alerts = state.alerts.list(detection=name)
        events = state.alerts.events([alert.alert_id for alert in alerts])
        seen.append(
            (
                sorted((replace(a, alert_id=a.alert_id[33:], detection="") for a in alerts), key=lambda a: a.alert_id),
                sorted((row["alert_id"][33:], row["event_id"], str(row["event_time"])) for row in events),
            )
        )

    assert seen[0] == seen[1]
