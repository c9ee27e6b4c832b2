"""The queue and the back-test: nothing is forgotten, nothing is found twice, one failure stops nobody else."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from kyra_etl.detect import detect_queued, detect_window
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import DetectionError, UnknownName
from kyra_etl.model import DetectReport, Window
from tests.detection.making import NOW, SELECT, House, record, write_detection

DAY = Window(datetime(2026, 1, 10), datetime(2026, 1, 11))
BOTH = """\
SELECT v.event_id, any_value(v.event_time) AS event_time, any_value(account) AS account, any_value(region) AS region,
  any_value(actor) AS actor, any_value(source_ip) AS source_ip, any_value(target) AS target, 'two' AS summary
FROM alerts JOIN alert_events AS v USING (alert_id)
WHERE detection <> 'both' GROUP BY v.event_id HAVING count(DISTINCT detection) > 1
"""


def _detect(house: House) -> DetectReport:
    return detect_queued(lake=house.lake, state=house.state, corpus=house.corpus, now=NOW)


def _back_test(house: House, window: Window = DAY, **options) -> DetectReport:
    parts = {"lake": house.lake, "state": house.state, "corpus": house.corpus, "now": NOW}
    return detect_window(window, **parts, **options)


def test_a_batch_is_judged_once(house: House) -> None:
    write_detection(house.detections, "one_thing")

    report = house.load(record("CreateUser", "10:00:00", "a"))

    assert (report.detect.batches, report.detect.events, report.detect.findings) == (1, 1, 1)
    assert (report.detect.alerts_new, report.detect.alerts_updated) == (1, 0)
    assert report.detect.seconds["one_thing"] > 0
    assert _detect(house) == DetectReport()


def test_a_second_event_updates_the_alert(house: House) -> None:
    write_detection(house.detections, "one_thing")
    house.load(record("CreateUser", "10:00:00", "a"))

    report = house.load(record("CreateUser", "10:10:00", "b"))

    assert (report.detect.alerts_new, report.detect.alerts_updated) == (0, 1)
    [alert] = house.state.alerts.list()
    assert alert.event_ids == ("a", "b")
    assert (alert.attack, alert.title, alert.historical) == (("T1078.004",), "One Thing", True)


def test_a_failing_detection_waits_and_the_others_go_on(house: House) -> None:
    good = write_detection(house.detections, "good_one")
    bad = write_detection(house.detections, "bad_one", sql=SELECT + "WHERE nothing = 1")

    report = house.load(record("CreateUser", "10:00:00", "a"))

    assert report.detect.failed == ("bad_one",)
    assert report.alerts == 1
    [failing] = house.state.queue.failing()
    assert failing["detection"] == "bad_one"
    assert "bad_one.sql:12" in failing["last_error"]

    bad.write_text(good.read_text().replace("Good One", "Bad One"))
    mended = _detect(house)
    assert (mended.failed, mended.alerts_new) == ((), 1)
    assert house.state.queue.depth() == 0


def test_a_file_that_no_longer_loads_waits_too(house: House) -> None:
    path = write_detection(house.detections, "one_thing", sql=SELECT + "WHERE nothing = 1")
    house.load(record("CreateUser", "10:00:00", "a"))
    path.write_text("SELECT 1")

    report = _detect(house)

    assert report.failed == ("one_thing",)
    assert house.state.queue.depth() == 1


def test_a_batch_whose_file_cannot_be_read_stops_no_other(house: House) -> None:
    write_detection(house.detections, "one_thing")
    write_detection(house.detections, "other_thing")
    for hour in ("08", "09", "10", "11", "12"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kyra_etl.load.run_detections", lambda *_: DetectReport())
            house.load(record("CreateUser", f"{hour}:00:00", hour))
    file = next(file for file in house.state.ledger.data_files("events") if file.min_time == datetime(2026, 1, 10, 10))
    path = house.folder / "lake" / file.path
    content = path.read_bytes()
    path.write_bytes(content[:100])

    report = _detect(house)

    assert (report.failed, report.alerts_new) == (("one_thing", "other_thing"), 8)
    assert [each["detection"] for each in house.state.queue.failing()] == ["one_thing", "other_thing"]
    assert "cannot be read" in house.state.queue.failing()[0]["last_error"]
    assert house.state.queue.depth() == 2
    path.write_bytes(content)
    assert _detect(house).alerts_new == 2
    assert house.state.queue.depth() == 0


def test_entries_of_a_detection_that_is_unknown_here_wait_for_another_machine(house: House) -> None:
    path = write_detection(house.detections, "my_own", sql=SELECT + "WHERE nothing = 1")
    house.load(record("CreateUser", "10:00:00", "a"))
    path.unlink()

    assert _detect(house) == _detect(house) == DetectReport()
    [told] = house.state.queue.failing()
    assert (told["detection"], told["attempts"]) == ("my_own", 2), "told of once more, and not in every run"
    assert "no detection of that id" in told["last_error"]

    write_detection(house.detections, "my_own")
    assert _detect(house).alerts_new == 1


def test_entries_of_a_detection_that_is_gone_for_good_leave_the_queue(house: House) -> None:
    path = write_detection(house.detections, "one_thing", sql=SELECT + "WHERE nothing = 1")
    house.load(record("CreateUser", "10:00:00", "a"))
    path.unlink()
    parts = {"lake": house.lake, "state": house.state, "corpus": house.corpus}

    assert detect_queued(**parts, now=NOW + timedelta(days=8)) == DetectReport()
    assert house.state.queue.depth() == 0


def test_entries_of_a_disabled_detection_leave_the_queue(house: House) -> None:
    write_detection(house.detections, "one_thing", sql=SELECT + "WHERE nothing = 1")
    house.load(record("CreateUser", "10:00:00", "a"))
    corpus = Corpus.load([house.detections], disable=["one_thing"])

    assert detect_queued(lake=house.lake, state=house.state, corpus=corpus, now=NOW) == DetectReport()
    assert house.state.queue.depth() == 0


def test_what_reads_alerts_looks_again_when_a_detection_that_failed_is_mended(house: House) -> None:
    good = write_detection(house.detections, "good_one")
    bad = write_detection(house.detections, "bad_one", sql=SELECT + "WHERE nothing = 1")
    write_detection(house.detections, "both", more='-- lookback = "1h"\n', sql=BOTH)
    report = house.load(record("CreateUser", "10:00:00", "a"))
    assert (report.detect.failed, report.alerts, house.state.queue.depth()) == (("bad_one",), 1, 1)

    bad.write_text(good.read_text().replace("Good One", "Bad One"))
    _detect(house)

    assert {alert.detection for alert in house.state.alerts.list()} == {"good_one", "bad_one", "both"}
    assert house.state.queue.depth() == 0


def test_a_file_that_cannot_be_read_keeps_nothing_else_waiting(house: House) -> None:
    good = write_detection(house.detections, "good_one")
    bad = write_detection(house.detections, "bad_one")
    bad.write_text("-- ---")
    write_detection(house.detections, "both", more='-- lookback = "1h"\n', sql=BOTH)
    for minute in range(3):
        house.load(record("CreateUser", f"10:{minute:02}:00", f"{minute}"))
    assert house.state.queue.depth() == 3

    bad.write_text(good.read_text().replace("Good One", "Bad One"))
    _detect(house)

    found = {alert.detection: alert.event_count for alert in house.state.alerts.list()}
    assert found == {"good_one": 3, "bad_one": 3, "both": 3}
    assert house.state.queue.depth() == 0


def test_batches_that_wait_are_judged_apart_from_those_that_do_not(house: House) -> None:
    """One detection waits for two batches, the other came later and waits for the second."""
    counting = SELECT.replace("'seen'", "(SELECT count(*) FROM events)::VARCHAR")
    bad = write_detection(house.detections, "bad_one", sql=counting + "WHERE nothing = 1")
    house.load(record("CreateUser", "10:00:00", "a"))
    worse = write_detection(house.detections, "worse_one", sql=counting + "WHERE nothing = 1")
    house.load(record("DeleteUser", "10:00:00", "b"))
    for path in (bad, worse):
        path.write_text(path.read_text().replace("WHERE nothing = 1", ""))

    report = _detect(house)

    assert report.findings == 3, "both of the one, and the other's own"
    assert {(alert.detection, alert.summary) for alert in house.state.alerts.list()} == {
        ("bad_one", "2"),
        ("worse_one", "1"),
    }


def test_what_waits_for_a_detection_is_not_read_again_while_the_detection_fails(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kyra_etl.detect.IN_MEMORY", 1)  # so that each batch is read by itself
    good = write_detection(house.detections, "good_one")
    bad = write_detection(house.detections, "bad_one", sql=SELECT + "WHERE nothing = 1")
    for minute in range(4):
        report = house.load(record("CreateUser", f"10:{minute:02}:00", f"{minute}"))
        assert (report.detect.batches, report.detect.failed) == (1, ("bad_one",)), "only what is new"

    again = _detect(house)
    assert (again.batches, again.failed, house.state.queue.depth()) == (1, ("bad_one",), 4), "the first shows it"

    bad.write_text(good.read_text().replace("Good One", "Bad One"))
    mended = _detect(house)
    assert (mended.batches, mended.findings, mended.failed, house.state.queue.depth()) == (4, 4, (), 0)


def test_a_back_test_records_what_it_finds_as_historical(house: House) -> None:
    house.load(record("CreateUser", "10:00:00", "a"), record("CreateUser", "11:30:00", "b"))
    write_detection(house.detections, "one_thing")

    report = _back_test(house)

    assert (report.findings, report.alerts_new) == (2, 2)
    assert report.days == {"2026-01-10": {"one_thing": {"findings": 2, "alerts": 2}}}
    assert all(alert.historical for alert in house.state.alerts.list())
    assert _back_test(house).alerts_new == 0, "the same findings make the same alerts"


def test_a_dry_run_records_nothing(house: House) -> None:
    write_detection(house.detections, "one_thing")
    house.load(record("CreateUser", "10:00:00", "a"))
    house.load(record("CreateUser", "11:30:00", "b"), detect=False)

    report = _back_test(house, dry_run=True)

    assert (report.findings, report.alerts_new, report.alerts_updated) == (2, 1, 1)
    assert len(house.state.alerts.list()) == 1


def test_two_rows_of_one_event_are_one_finding_for_state_and_dry_run_alike(house: House) -> None:
    rows = [SELECT.replace("'seen'", f"'{word}'").replace("event_name AS", f"'{word}' AS") for word in ("high", "low")]
    sql = "SELECT *, summary AS severity FROM (\n" + " UNION ALL ".join(rows) + ")\n"
    write_detection(house.detections, "one_thing", sql=sql)
    house.load(record("CreateUser", "10:00:00", "a"))

    report = _back_test(house, dry_run=True)

    assert [alert.severity for alert in house.state.alerts.list()] == ["high"]
    assert (report.findings, report.alerts_new, report.alerts_updated) == (1, 0, 1)


def test_a_window_is_half_open(house: House) -> None:
    house.load(*(record("CreateUser", at, at) for at in ("09:59:59", "10:00:00", "10:59:59", "11:00:00")))
    write_detection(house.detections, "one_thing")

    report = _back_test(house, Window(datetime(2026, 1, 10, 10), datetime(2026, 1, 10, 11)))

    assert report.findings == 2


def test_a_back_test_judges_each_day_by_what_came_before(house: House) -> None:
    """First seen on the tenth; what happened on the eleventh cannot have taught it."""
    sql = (
        SELECT.replace("FROM events", "FROM events AS e")
        + "WHERE NOT EXISTS (FROM activity AS a WHERE a.event_name = e.event_name AND a.first_seen < e.event_time)"
    )
    house.load(
        record("CreateUser", "10:00:00", "a"), record("CreateUser", "10:00:00", "b", eventTime="2026-01-11T10:00:00Z")
    )
    write_detection(house.detections, "one_thing", more='-- baseline = "30d"\n', sql=sql)

    report = _back_test(house, Window(datetime(2026, 1, 9), datetime(2026, 1, 12)), dry_run=True)

    assert report.days == {"2026-01-10": {"one_thing": {"findings": 1, "alerts": 1}}}


def test_only_the_named_detections_run(house: House) -> None:
    house.load(record("CreateUser", "10:00:00", "a"))
    write_detection(house.detections, "one_thing")
    write_detection(house.detections, "bad_one", sql=SELECT + "WHERE nothing = 1")

    assert _back_test(house).failed == ("bad_one",)
    assert _back_test(house, detections=["one_thing"]).failed == ()
    with pytest.raises(DetectionError, match="Binder Error"):
        _back_test(house, detections=["bad_one"])
    with pytest.raises(UnknownName, match="one_thing"):
        _back_test(house, detections=["one_thin"])


def test_an_empty_corpus_and_an_empty_lake_are_fine(house: House) -> None:
    assert detect_queued(lake=house.lake, state=house.state, corpus=Corpus(), now=NOW) == DetectReport()
    assert _back_test(house) == DetectReport()
