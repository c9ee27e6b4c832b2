"""A plain reader of `alerts/` sees each alert once, as it is now."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete

from kyra_etl import run
from kyra_etl.state import tables
from tests.detection.making import House, record, write_detection
from tests.lakes import table

SQL = """\
SELECT e.event_id, e.event_time, e.account, e.aws_region AS region, e.principal AS actor,
  e.source_ip_address AS source_ip, {target} AS target, 'seen' AS summary,
  (SELECT list(o.event_id) FROM events AS o WHERE o.event_time BETWEEN e.event_time - INTERVAL 1 HOUR AND e.event_time)
    AS event_ids
FROM events AS e WHERE e.event_name = 'CreateUser'
"""
COUNT = "(SELECT count(*) FROM events)::VARCHAR"


@pytest.mark.parametrize("target", ["e.event_name", COUNT], ids=["moved", "removed"])
def test_an_alert_that_leaves_a_day_for_earlier_evidence_stands_in_one_file(house: House, target: str) -> None:
    write_detection(house.detections, "one_thing", more='-- lookback = "1h"\n', sql=SQL.format(target=target))
    house.load(record("CreateUser", "00:10:00", "user"))
    (first,) = table(house.lake, "alerts").to_pylist()

    house.load(record("GetUser", "", "before", eventTime="2026-01-09T23:50:00Z"))

    (alert,) = house.state.alerts.list()
    assert (alert.first_seen.day, alert.event_ids) == (9, ("before", "user"))
    (published,) = table(house.lake, "alerts").to_pylist()
    assert (published["alert_id"], published["first_seen"]) == (alert.alert_id, alert.first_seen)
    assert (published["alert_id"] == first["alert_id"]) is (target != COUNT)


def test_an_alert_that_another_run_removed_meanwhile_is_left_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    write_detection(house.detections, "one_thing")
    publishing = run.publish_runs

    def meanwhile(**parts: Any) -> None:
        with house.state._database.write() as connection:
            connection.execute(delete(tables.alerts).where(tables.alerts.c.target == "CreateUser"))
        publishing(**parts)

    monkeypatch.setattr(run, "publish_runs", meanwhile)
    house.load(record("CreateUser", "00:10:00", "user"), record("GetUser", "00:10:00", "other"))

    assert [row["target"] for row in table(house.lake, "alerts").to_pylist()] == ["GetUser"]
