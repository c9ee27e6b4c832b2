"""Two passes of detections beside one another, from two machines or from a sync and a backfill: as if one after the
other, whichever ends first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import permutations
from typing import Any

import pytest

from kyra_etl import resources
from kyra_etl.detect import detect_queued, detect_window
from kyra_etl.detection.rule import Corpus
from kyra_etl.model import DetectReport, Window
from kyra_etl.state.alerts import Alerts
from tests.detection.making import NOW, SELECT, House, record, write_detection

ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"
CREATED = record("CreateUser", "10:00:00", "create", requestParameters={"userName": "eve"})
ATTACHED = record("AttachUserPolicy", "10:05:00", "attach", requestParameters={"userName": "eve", "policyArn": ADMIN})
KEY = record("CreateAccessKey", "10:03:00", "key", requestParameters={"userName": "eve"})

TOGETHER = """\
SELECT max(v.event_id) AS event_id, max(v.event_time) AS event_time, account, any_value(region) AS region,
  any_value(actor) AS actor, any_value(source_ip) AS source_ip, 'all' AS target, 'several' AS summary,
  list(v.event_id) AS event_ids, CASE count(*) WHEN 2 THEN 'high' ELSE 'critical' END AS severity
FROM alerts JOIN alert_events AS v USING (alert_id)
WHERE detection <> 'together' GROUP BY account HAVING count(*) > 1
"""


class Waiting(House):
    """A house with one built-in detection, or those of its own, which run when they are told to."""

    @property
    def corpus(self) -> Corpus:
        own = super().corpus
        return own if own.detections else Corpus((Corpus.load([resources.detections_dir()]).get("iam_user_created"),))

    def bring(self, *records: dict[str, Any]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kyra_etl.load.run_detections", lambda *_, **__: DetectReport())
            self.load(*records)

    def detect(self) -> DetectReport:
        return detect_queued(lake=self.lake, state=self.state, corpus=self.corpus, now=NOW)

    def told(self) -> list[tuple[str, str, tuple[str, ...]]]:
        return sorted((alert.detection, alert.severity, alert.event_ids) for alert in self.state.alerts.list())


@pytest.fixture
def waiting(house: House) -> Iterator[Waiting]:
    made = Waiting(house.folder / "waiting")
    yield made
    made.state.close()


def _in_words(order: Sequence[dict[str, Any]]) -> str:
    return "-".join(each["eventID"] for each in order)


@contextmanager
def before_recording(meanwhile: Callable[[], object], patch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of `meanwhile` happens when a pass is about to record what it found; at its end, if it found nothing."""
    recording = Alerts.record

    def happen() -> None:
        patch.setattr(Alerts, "record", recording)
        meanwhile()

    def record_late(self: Alerts, *args: Any, **options: Any) -> Any:
        happen()
        return recording(self, *args, **options)

    patch.setattr(Alerts, "record", record_late)
    yield
    if Alerts.record is record_late:
        happen()


def test_a_pass_that_is_late_does_not_make_a_critical_alert_medium(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.bring(CREATED)

    def another_machine() -> None:
        waiting.bring(ATTACHED)
        assert waiting.detect().alerts_new == 1

    with before_recording(another_machine, monkeypatch):
        waiting.detect()

    assert waiting.told() == [("iam_user_created", "critical", ("create", "attach"))]
    assert waiting.state.queue.depth() == 0


@pytest.mark.parametrize("order", list(permutations((CREATED, KEY, ATTACHED))), ids=_in_words)
def test_passes_that_end_in_the_reverse_order_make_the_alerts_of_one(
    waiting: Waiting, order: Sequence[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins while the one before it is about to record."""

    def next_of(rest: Sequence[dict[str, Any]]) -> None:
        if rest:
            waiting.bring(rest[0])
            with before_recording(lambda: next_of(rest[1:]), monkeypatch):
                waiting.detect()

    next_of(order)

    assert waiting.told() == [("iam_user_created", "critical", ("create", "key", "attach"))]
    assert waiting.state.queue.depth() == 0


def test_a_pass_that_began_first_and_read_the_alerts_last_has_seen_more_of_them(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CreateUser", "DeleteUser", "TagUser"):
        write_detection(waiting.detections, name.lower(), sql=SELECT + f"WHERE event_name = '{name}'")
    write_detection(waiting.detections, "together", more='-- lookback = "24h"\n', sql=TOGETHER)
    waiting.bring(record("CreateUser", "10:00:00", "1"))
    waiting.detect()
    waiting.bring(record("DeleteUser", "10:01:00", "2"))

    def another_machine() -> None:
        waiting.bring(record("TagUser", "10:02:00", "3"))
        others = Corpus(tuple(each for each in waiting.corpus.detections if each.id != "deleteuser"))
        detect_queued(lake=waiting.lake, state=waiting.state, corpus=others, now=NOW)
        assert ("together", "high", ("1", "3")) in waiting.told()

    with before_recording(another_machine, monkeypatch):
        waiting.detect()

    assert ("together", "critical", ("1", "2", "3")) in waiting.told()


def test_a_back_test_that_is_late_leaves_what_a_sync_found_meanwhile(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.bring(CREATED)
    waiting.detect()

    def a_sync() -> None:
        waiting.bring(ATTACHED)
        waiting.detect()

    with before_recording(a_sync, monkeypatch):
        day = Window(datetime(2026, 1, 10), datetime(2026, 1, 11))
        detect_window(day, lake=waiting.lake, state=waiting.state, corpus=waiting.corpus, now=NOW)

    assert waiting.told() == [("iam_user_created", "critical", ("create", "attach"))]
