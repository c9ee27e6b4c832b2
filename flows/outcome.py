"""What the reports of a run amount to: its final state, and the tables it leaves on its page."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import FailedRun
from prefect.states import Completed, Failed

from kyra_etl.backfill import Plan
from kyra_etl.detection.attack import Technique
from kyra_etl.errors import KyraError, TransientError
from kyra_etl.model import SEVERITIES, Alert, Probe, RunReport
from kyra_etl.verdict import span

COUNTS = (
    *("listed", "hinted", "carried"),
    *("loaded", "already_loaded", "ignored", "quarantined", "gone", "pending"),
    *("records", "events", "duplicates", "malformed", "expired"),
    "alerts",
)
"""The numbers of a report, in the order of its two identities."""
IDENTITIES = """\
listed + hinted + carried = loaded + already_loaded + ignored + quarantined + gone + pending; \
records = events + duplicates + malformed + expired"""


class _ToldAlready(logging.Filter):
    """Drops the traceback Prefect logs after a run that ended Failed: the state's message said what to do."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


logging.getLogger("prefect.flow_runs").addFilter(_ToldAlready())


def is_transient(task: object, task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the same call may work later; anything else would fail the same way again."""
    return isinstance(error_of(state), TransientError)


def error_of(state: State[Any]) -> BaseException | None:
    """The exception behind a failed state, None behind any other."""
    if not (state.is_failed() or state.is_crashed()):
        return None
    result = state.result(raise_on_failure=False)
    return result if isinstance(result, BaseException) else RuntimeError(state.message or "The run failed.")


def told(error: BaseException, name: str) -> str:
    """One line for a person: what happened to integration `name` and, of our own errors, the next step."""
    text = str(error) if isinstance(error, KyraError) else f"{type(error).__name__}: {error}"
    return text if name in text else f"{name}: {text}"


def conclude(errors: Mapping[str, BaseException], done: Mapping[str, str], *, skipped: bool = False) -> State[Any]:
    """The final state of a run, with a line an integration: Failed if any failed, Completed otherwise."""
    lines = [told(error, name) for name, error in errors.items()] + [f"{name}: {what}" for name, what in done.items()]
    message = "\n".join(lines)
    if errors:
        return Failed(message=message)
    return Completed(name="Skipped" if skipped else None, message=message)


def summary(reports: Sequence[RunReport]) -> str:
    """What the runs of one integration did, in one line."""
    if reports and all(report.skipped for report in reports):
        return f"skipped, {reports[0].skipped}"
    quarantined = sum(report.quarantined for report in reports)
    failing = sorted({detection for report in reports for detection in report.detect.failed})
    parts = [
        _number(sum(report.loaded for report in reports), "log file") + " loaded",
        _number(sum(report.events for report in reports), "new event"),
        _number(sum(report.alerts for report in reports), "new alert"),
        f"{quarantined} quarantined (see `kyra quarantine list`)" if quarantined else "",
        f"detections that failed: {', '.join(failing)}" if failing else "",
    ]
    return ", ".join(part for part in parts if part)


@contextmanager
def keeping(keep: Callable[[RunReport], object]) -> Iterator[None]:
    """Hand `keep` the report of a run that did all it could, and failed: it is tried again, and then has another."""
    try:
        yield
    except KyraError as error:
        if error.report is not None:
            keep(error.report)
        raise


def leave_artifacts(verb: str, label: str, reports: Sequence[tuple[str, RunReport]], alerts: Sequence[Alert]) -> None:
    """Put a table of the reports, one a row under `label`, and one of the alerts on the run's page."""
    ran = [(name, report) for name, report in reports if not report.skipped]
    if ran:
        create_table_artifact(report_rows(label, ran), key=f"{verb}-report", description=IDENTITIES)
    if alerts:
        new = sum(report.alerts for _, report in ran)
        what = f"{new} new, {len(alerts) - new} with new findings. `kyra alerts` has them all."
        create_table_artifact(alert_rows(alerts), key=f"{verb}-alerts", description=what)


def report_rows(label: str, reports: Sequence[tuple[str, RunReport]]) -> list[dict[str, Any]]:
    """A row a report: every count, whether they add up, how late log files came, and why so many and no others."""
    return [
        {
            label: row,
            **{name: getattr(report, name) for name in COUNTS},
            "adds up": report.imbalance() or "yes",
            "lag": _lag(report),
            "why": _why(report),
        }
        for row, report in reports
    ]


def _lag(report: RunReport) -> str:
    """From events to the delivery of their log files."""
    if report.lag_p50 is None or report.lag_max is None:
        return ""
    return f"{span(timedelta(seconds=report.lag_p50))}, at most {span(timedelta(seconds=report.lag_max))}"


def _why(report: RunReport) -> str:
    """Where it looked, what it left alone and what it left to the next run."""
    parts = [f"{_number(report.folders_listed, 'folder')} listed by {_number(report.list_requests, 'request')}"]
    for what, kinds in (("ignored", report.ignored_by_kind), ("quarantined", report.quarantined_by_reason)):
        parts += [f"{what}: {number} {kind}" for kind, number in kinds.items()]
    if report.folders_waiting:
        parts.append(f"{_number(report.folders_waiting, 'folder')} left to the next run by a budget of LIST requests")
    return _plain("; ".join(parts))


def alert_rows(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """A row an alert, the worst first and then the latest, the most telling columns first, with links."""
    return [
        {
            "severity": alert.severity,
            "title": _plain(alert.title),
            "account": alert.account,
            "region": _plain(alert.region),
            "actor": _plain(alert.actor),
            "target": _plain(alert.target),
            "summary": _plain(alert.summary),
            "last_seen": f"{alert.last_seen:%Y-%m-%d %H:%M:%S}",
            "events": alert.event_count,
            "status": alert.status,
            "alert_id": alert.alert_id,
            "attack": ", ".join(f"[{id_}]({Technique(id_, '').url})" for id_ in alert.attack),
            "in AWS": _in_aws(alert),
        }
        for alert in sorted(alerts, key=lambda alert: (SEVERITIES.index(alert.severity), alert.last_seen), reverse=True)
    ]


_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>()#!|~&]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def _plain(text: str | None) -> str:
    """A text that Prefect's page, which takes cells for Markdown, shows as it is: a caller may have written a link."""
    return _MARKDOWN.sub(r"\\\g<0>", text or "")


_CONSOLES = (("cn-", "console.amazonaws.cn"), ("us-gov-", "console.amazonaws-us-gov.com"))


def _in_aws(alert: Alert) -> str:
    """A link to its first event in CloudTrail's event history, which has management events of 90 days."""
    if not alert.region or not alert.event_ids or not re.fullmatch(r"[0-9a-f-]{36}", alert.event_ids[0]):
        return ""
    host = next((host for begins, host in _CONSOLES if alert.region.startswith(begins)), "console.aws.amazon.com")
    region = quote(alert.region, safe="")
    return f"[event](https://{host}/cloudtrailv2/home?region={region}#/events/{alert.event_ids[0]})"


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    """A row a day of what a backfill would load."""
    return [
        {"day": day.isoformat(), "log files": one.files, "bytes": one.bytes, "already loaded": one.already_loaded}
        for day, one in plan.days.items()
    ]


def plan_summary(plan: Plan) -> str:
    """What a backfill would take, in one line."""
    pace = "at the pace of the last runs" if plan.measured else "if it goes as usual"
    return (
        f"{_number(plan.files, 'log file')} to load, {plan.bytes:,} bytes, {plan.already_loaded} already loaded; "
        f"{plan.list_requests:,} LIST and {plan.get_requests:,} GET requests, about ${plan.cost:.2f}; "
        f"about {span(timedelta(seconds=plan.seconds))} {pace}."
    )


def probe_rows(probes: Mapping[str, Sequence[Probe]]) -> list[dict[str, Any]]:
    """A row a probe, failed ones first."""
    rows = [
        {
            "integration": name,
            "probe": probe.name,
            "passed": "warning" if probe.warning else {True: "yes", False: "NO", None: "not asked"}[probe.passed],
            "detail": probe.detail,
            "remedy": probe.remedy,
            "permission": probe.permission,
        }
        for name, asked in probes.items()
        for probe in asked
    ]
    return sorted(rows, key=lambda row: row["passed"] != "NO")


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
