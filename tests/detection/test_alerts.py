"""Which alert a finding belongs to never depends on when, or in what order, it was found."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kyra_etl.detection.alerts import alert_id, alerts_of, floor
from kyra_etl.detection.frontmatter import Detection, parse
from kyra_etl.model import SEVERITIES, Finding
from tests.detection.making import FRONT, SELECT

DETECTION: Detection = parse(
    FRONT.format(title="Some Thing", more="") + SELECT, id="some_thing", group="t", path="x.sql"
)
HOUR = timedelta(hours=1)
times = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1))


def test_the_id_is_the_same_for_ever() -> None:
    """Ids are kept in states and in tickets: a change here orphans every alert there is."""
    moment = datetime(2026, 1, 10, 10, 59, 59)

    assert alert_id("some_thing", ["111122223333", None], moment, HOUR) == "e1ce84e298f30bca3b286019"


@given(times, st.sampled_from([HOUR, timedelta(hours=6), timedelta(days=1), timedelta(minutes=7)]))
def test_windows_lie_end_to_end(moment: datetime, window: timedelta) -> None:
    start = floor(moment, window)

    assert start <= moment < start + window
    assert floor(start, window) == start


def test_group_values_do_not_run_into_each_other() -> None:
    moment = datetime(2026, 1, 10)

    assert alert_id("d", ["a", "b"], moment, HOUR) != alert_id("d", ["a,b"], moment, HOUR)
    assert alert_id("d", ["a", None], moment, HOUR) != alert_id("d", ["a", "None"], moment, HOUR)
    assert alert_id("d", ["a"], moment, HOUR) != alert_id("e", ["a"], moment, HOUR)


def test_of_two_rows_of_one_event_the_severe_one_speaks_with_the_evidence_of_both() -> None:
    moment = datetime(2026, 1, 10, 10)
    low, high = (
        Finding(
            detection="some_thing",
            account="111122223333",
            event_id="e",
            event_time=moment,
            severity=severity,
            event_ids=(other,),
            event_times={other: moment - HOUR},
            alert_id=severity,
        )
        for severity, other in (("low", "x"), ("high", "y"))
    )

    for rows in ((low, high), (high, low)):
        [alert] = alerts_of(DETECTION, rows)
        assert (alert.alert_id, alert.severity, alert.event_ids) == ("high", "high", ("x", "y", "e"))


findings = st.lists(
    st.builds(
        lambda number, severity, group, minute: Finding(
            detection="some_thing",
            account="111122223333",
            event_id=f"e{number}",
            event_time=datetime(2026, 1, 10, 10, minute),
            severity=severity,
            event_ids=(f"e{number}", f"x{minute}"),
            event_times={f"x{minute}": datetime(2026, 1, 10, 9, minute)},
            alert_id=group,
            target=f"t{number}",
        ),
        st.integers(0, 5),
        st.sampled_from(SEVERITIES),
        st.sampled_from("ab"),
        st.integers(0, 59),
    ),
    max_size=8,
    unique_by=lambda finding: finding.event_id,
)


@given(findings, st.randoms())
def test_alerts_do_not_depend_on_the_order_of_findings(found: list[Finding], random) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)

    alerts = alerts_of(DETECTION, found)

    assert alerts_of(DETECTION, shuffled) == alerts
    for alert in alerts:
        own = [finding for finding in found if finding.alert_id == alert.alert_id]
        assert alert.severity == max((finding.severity for finding in own), key=SEVERITIES.index)
        assert set(alert.event_ids) == {event_id for finding in own for event_id in finding.event_ids}
        assert alert.event_count == len(alert.event_ids)
