"""Flows without a server: what they import, register, retry, say and show."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import FailedRun
from prefect.states import Failed

from flows import outcome, verbs
from flows.deployments import deployments
from kyra_etl.errors import AccessError, TransientError
from kyra_etl.model import Alert, DetectReport, Integration, Probe, RunReport
from kyra_etl.state import State
from tests.planted import EXTERNAL_ID, QUEUE_URL, leaks
from tests.wire import WIRE, refuse

ROOT = Path(__file__).resolve().parents[2]
REPORT = RunReport(
    "r1", "sync", "acme", datetime(2026, 1, 1), listed=4, loaded=2, already_loaded=2, records=9, events=8, duplicates=1
)


def told_by(program: str, env: dict[str, str] | None = None) -> Any:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


def test_telemetry_is_off_before_prefect_is_imported(tmp_path: Path) -> None:
    program = """
import json, os, sys
import flows
early = "prefect" not in sys.modules
import flows.deployments
from prefect.settings import get_current_settings
print(json.dumps([early, get_current_settings().server.analytics_enabled, os.environ["DO_NOT_TRACK"]]))
"""
    env = {"PREFECT_HOME": str(tmp_path), "KYRA_HOME": str(tmp_path)}

    assert told_by(program, env) == [True, False, "1"]


def test_what_the_user_decided_about_prefect_stands() -> None:
    program = "import json, os, flows; print(json.dumps(os.environ['PREFECT_LOGGING_EXTRA_LOGGERS']))"

    assert told_by(program, {"PREFECT_LOGGING_EXTRA_LOGGERS": "mine"}) == "mine"


def test_the_supervisor_costs_no_prefect() -> None:
    program = "import json, sys, flows.serve; print(json.dumps([m for m in ('prefect', 'polars') if m in sys.modules]))"

    assert told_by(program) == []


def test_every_deployment_can_be_registered_and_has_its_schedule() -> None:
    found = {deployment.name: deployment for deployment in deployments(300)}

    assert {name: deployment.entrypoint for name, deployment in found.items()} == {
        "sync": "flows.sync.sync",
        "backfill": "flows.backfill.backfill",
        "check": "flows.check.check",
        "maintain": "flows.maintain.maintain",
    }
    schedules = {name: [each.schedule for each in deployment.schedules or []] for name, deployment in found.items()}
    assert schedules["sync"][0].interval == timedelta(minutes=5)
    assert schedules["check"][0].cron == "17 * * * *"
    assert schedules["maintain"][0].cron == "30 2 * * *"
    assert schedules["backfill"] == []


def test_of_runs_that_could_not_start_in_time_the_schedule_s_latest_is_left() -> None:
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun

    from flows.deployments import all_but_the_latest

    def run(number: int, deployment: int, *, scheduled: bool = True) -> FlowRun:
        ids = {"id": UUID(int=number), "flow_id": UUID(int=1), "deployment_id": UUID(int=deployment)}
        return FlowRun.model_validate({**ids, "auto_scheduled": scheduled})

    due = [run(5, 1), run(4, 2), run(3, 1, scheduled=False), run(2, 1), run(1, 1)]

    assert [found.id.int for found in all_but_the_latest(due)] == [2, 1]


def test_the_form_of_a_backfill_asks_for_an_integration_and_two_dates() -> None:
    backfill = next(deployment for deployment in deployments(300) if deployment.name == "backfill")
    schema = backfill._parameter_openapi_schema.model_dump()

    assert {name: field.get("format") for name, field in schema["properties"].items()} == {
        "integration": None,
        "start": "date",
        "end": "date",
        "accounts": None,
        "plan": None,
    }
    assert schema["required"] == ["integration", "start", "end"]


@pytest.mark.parametrize(
    ("error", "again"),
    [(TransientError("Slow down."), True), (AccessError("Refused."), False), (ValueError("Ours."), False)],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    from flows.backfill import backfill_integration
    from flows.sync import sync_integration

    for task in (sync_integration, backfill_integration):
        assert task.retries > 0
        assert task.retry_condition_fn is not None
        assert task.retry_condition_fn(task, None, Failed(data=error)) is again  # type: ignore[arg-type]


def test_a_failed_run_says_what_to_do_and_what_went_well() -> None:
    refused = AccessError("s3:ListBucket is refused.", "Add it to the role's policy.")
    state = outcome.conclude({"beta": refused}, {"acme": "2 log files loaded"})

    assert state.is_failed()
    assert state.message == "beta: s3:ListBucket is refused. Add it to the role's policy.\nacme: 2 log files loaded"


def test_an_error_that_names_the_integration_is_not_prefixed_with_it() -> None:
    assert outcome.told(AccessError("The bucket of beta is gone."), "beta") == "The bucket of beta is gone."
    assert outcome.told(ZeroDivisionError("division by zero"), "beta") == "beta: ZeroDivisionError: division by zero"


def test_a_run_whose_lease_is_held_is_completed_and_says_so() -> None:
    held = replace(REPORT, skipped="another sync of this integration is running")
    state = outcome.conclude({}, {"acme": outcome.summary([held])}, skipped=True)

    assert state.is_completed()
    assert (state.name, state.message) == ("Skipped", "acme: skipped, another sync of this integration is running")


def test_a_summary_counts_over_all_reports_and_mentions_what_needs_a_look() -> None:
    odd = replace(REPORT, quarantined=1, detect=DetectReport(failed=("root_login",)))

    assert outcome.summary([REPORT]) == "2 log files loaded, 8 new events, 0 new alerts"
    assert (
        outcome.summary([replace(REPORT, loaded=1, events=1, alerts=1)])
        == "1 log file loaded, 1 new event, 1 new alert"
    )
    assert outcome.summary([REPORT, odd]) == (
        "4 log files loaded, 16 new events, 0 new alerts, 1 quarantined (see `kyra quarantine list`), "
        "detections that failed: root_login"
    )


def test_the_table_of_a_run_holds_every_count_and_whether_they_add_up() -> None:
    (row,) = outcome.report_rows("integration", [("acme", REPORT)])
    (wrong,) = outcome.report_rows("integration", [("acme", replace(REPORT, listed=5))])

    assert set(outcome.COUNTS) <= set(row)
    assert (row["integration"], row["adds up"]) == ("acme", "yes")
    assert (row["lag"], row["why"]) == ("", "0 folders listed by 0 requests")
    assert wrong["adds up"] == "listed + hinted + carried = 5, but the files' states add up to 4"


def test_the_table_of_a_run_says_how_late_log_files_came_and_why_there_are_no_others() -> None:
    report = replace(
        REPORT,
        folders_listed=1,
        list_requests=2,
        folders_waiting=3,
        ignored_by_kind={"digest": 2},
        quarantined_by_reason={"corrupt_gzip": 1},
        lag_p50=300.0,
        lag_max=7300.0,
    )
    (row,) = outcome.report_rows("integration", [("acme", report)])

    assert row["lag"] == "5 min, at most 2 h"
    assert row["why"] == (
        r"1 folder listed by 2 requests; ignored: 2 digest; quarantined: 1 corrupt\_gzip; "
        "3 folders left to the next run by a budget of LIST requests"
    )


ID = "00000000-0000-4000-8000-00000000000a"


@pytest.mark.parametrize(
    ("region", "event", "link"),
    [
        (
            "eu-west-1",
            ID,
            f"[event](https://console.aws.amazon.com/cloudtrailv2/home?region=eu-west-1#/events/{ID})",
        ),
        ("cn-north-1", ID, f"[event](https://console.amazonaws.cn/cloudtrailv2/home?region=cn-north-1#/events/{ID})"),
        (None, ID, ""),
        ("eu-west-1", "sha256:00", ""),
    ],
)
def test_alerts_link_to_their_techniques_and_to_aws_and_nowhere_else(region: str | None, event: str, link: str) -> None:
    """Prefect's page takes cells for Markdown, and who made the calls chose some of their words."""
    at = datetime(2026, 1, 1, 12)
    target = "![x](https://evil.example/x) <b> __a__ www.evil.example"
    alert = Alert("a1", "root_login", "Root Login", "high", "012345678901", at, at, 1, (event,), region=region)

    (row,) = outcome.alert_rows([replace(alert, attack=("T1078.004",), target=target)])

    assert row["attack"] == "[T1078.004](https://attack.mitre.org/techniques/T1078/004/)"
    assert row["in AWS"] == link
    assert row["target"] == r"\!\[x\]\(https\://evil.example/x\) \<b\> \_\_a\_\_ www\.evil.example"
    assert row["actor"] == ""


def test_the_worst_alerts_come_first_and_then_the_latest() -> None:
    ones = [("a", "low", 12), ("b", "critical", 1), ("c", "high", 2), ("d", "high", 3), ("e", "info", 13)]
    alerts = [
        Alert(id_, "x", "X", severity, "012345678901", at, at, 1, ("e1",))
        for id_, severity, hour in ones
        for at in [datetime(2026, 1, 1, hour)]
    ]

    assert [row["alert_id"] for row in outcome.alert_rows(alerts)] == ["b", "d", "c", "a", "e"]


def test_tables_are_json() -> None:
    at = datetime(2026, 1, 1, 12)
    alert = Alert("a1", "root_login", "Root Login", "high", "012345678901", at, at, 1, ("e1",))
    rows = [
        *outcome.alert_rows([alert]),
        *outcome.probe_rows({"acme": [Probe("list", True, "ok"), Probe("read", False, "no")]}),
    ]

    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["account"] == "012345678901"
    assert [row["probe"] for row in rows[1:]] == ["read", "list"], "failed ones first"


def test_the_log_spares_a_traceback_for_what_the_state_has_said() -> None:
    def passes(error: Exception) -> bool:
        record = logging.LogRecord(
            "prefect.flow_runs", logging.ERROR, __file__, 1, "ended", (), (type(error), error, None)
        )
        return bool(logging.getLogger("prefect.flow_runs").filter(record))

    assert not passes(FailedRun("s3:ListBucket is refused."))
    assert passes(ZeroDivisionError())


def test_the_night_s_work_fails_when_the_lake_is_not_sound() -> None:
    from flows.maintain import concluded
    from kyra_etl.lake.checks import Check, Faults
    from kyra_etl.maintain.check import CheckReport
    from kyra_etl.maintain.compact import CompactReport
    from kyra_etl.maintain.retain import RetainReport

    sizes = {"bytes_per_event": 540.0}, {"bytes_per_event": 126.4}
    compacted = CompactReport(partitions=3, files_read=90, files_written=6, before=sizes[0], after=sizes[1])
    well = concluded({}, {"compact": compacted, "check": CheckReport((), 6, 1)})
    assert well.is_completed()
    assert well.message == "3 partitions compacted, 90 files became 6; 540 → 126 bytes an event."
    assert concluded({}, {"compact": CompactReport(skipped="another run is at it")}).is_completed()
    gone = concluded({}, {"retain": RetainReport(dry_run=False, events=5), "compact": compacted})
    assert str(gone.message).startswith("5 events removed that were kept long enough; 3 partitions compacted")

    fault = Faults(Check("missing_files", "Files that are missing", "", "Restore them.", ""), 2, ())
    broken = replace(compacted, failed=({"account": "1", "date": "2026-01-10", "error": "No space."},))
    for errors, done, line in (
        ({}, {"compact": compacted, "check": CheckReport((fault,), 6, 1)}, "Files that are missing: 2. Restore them."),
        ({}, {"compact": broken}, "1 2026-01-10: No space."),
        ({"check": AccessError("Refused.", "Mend it.")}, {"compact": compacted}, "maintain check: Refused. Mend it."),
    ):
        state = concluded(errors, done)
        assert (state.is_failed(), state.message) == (True, line)


def test_what_a_check_leaves_on_its_page_holds_no_secret(
    kyra_home: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Artifact, state and log of a check that AWS refuses everywhere, over HTTP."""
    integration = Integration(
        "acme",
        "acme-logs",
        role_arn="arn:aws:iam::111122223333:role/kyra",
        external_id=EXTERNAL_ID,
        queue_url=QUEUE_URL,
    )
    WIRE.rules.append(refuse("sts:AssumeRole", "NeverHeardOf", f"not with {EXTERNAL_ID}", 418))
    WIRE.rules.append(refuse("sqs:GetQueueAttributes", "NeverHeardOf", f"not {QUEUE_URL}", 418))
    with State.open(f"sqlite:///{kyra_home / 'state.db'}") as state:
        state.integrations.add(integration, datetime(2026, 1, 1))

    rows = outcome.probe_rows({"acme": verbs.check("acme")[0]})

    refused = {row["probe"] for row in rows if row["passed"] == "NO"}
    assert refused == {"assume_role", "queue"}
    assert "***" in json.dumps(rows)
    assert leaks(json.dumps(rows)) == []
