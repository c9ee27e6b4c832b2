"""A run's report: as a JSON document for scripts, in sentences for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kyra_etl.cli.output import count, span
from kyra_etl.model import RunReport

COUNTS = (
    *("listed", "hinted", "carried", "loaded", "already_loaded", "ignored", "quarantined", "gone", "pending"),
    *("records", "events", "duplicates", "conflicts", "malformed", "expired", "alerts", "batches"),
)
"""The counts of a report, in the order of its two sums."""


def totals(reports: Sequence[RunReport]) -> dict[str, Any]:
    """The counts of all reports together, what only one has if there is one, and each as it is in `runs`."""
    summed: dict[str, Any] = {name: sum(getattr(report, name) for report in reports) for name in COUNTS}
    for name in ("ignored_by_kind", "quarantined_by_reason"):
        summed[name] = dict(sum((Counter(getattr(report, name)) for report in reports), Counter()))
    alone = reports[0].as_json() if len(reports) == 1 else {}
    return {**alone, **summed, "runs": [report.as_json() for report in reports]}


def report_lines(report: RunReport, noun: str) -> list[str]:
    """A report for a person: what came in, what did not, what it means."""
    if report.skipped:
        return [f"Nothing was done: {report.skipped}."]
    lines = [sentence(report, noun)]
    if report.ignored:
        lines.append(f"Ignored {count(report.ignored, noun)}: {kinds(report.ignored_by_kind)}.")
    if report.quarantined:
        lines.append(
            f"Quarantined {count(report.quarantined, noun)}: {kinds(report.quarantined_by_reason)}."
            " `kyra quarantine list` tells more."
        )
    if report.alerts:
        lines.append(f"{count(report.alerts, 'new alert')}: `kyra alerts list` shows them.")
    return lines


def why_lines(report: RunReport) -> list[str]:
    """Why a sync brought what it brought: where it looked, what is left to the next, how late log files came."""
    if report.skipped:
        return []
    listed = f"Listed {count(report.listed, 'key')} in {count(report.folders_listed, 'folder')}"
    others = [f"{report.hinted:,} named by notices"] if report.hinted else []
    others += [f"{report.carried:,} carried over from earlier runs"] if report.carried else []
    requests = f"{count(report.list_requests, 'LIST request')}."
    lines = [f"{', '.join([listed, *others])}; {requests}"]
    if report.folders_waiting:
        lines.append(
            f"Left {count(report.folders_waiting, 'folder')} to the next sync, which begins there, for want of time or"
            " of LIST requests: list_seconds, list_budget_run, list_budget_day."
        )
    if report.notices:
        unknown = report.notices.get("unknown", 0)
        left = f"; {count(unknown, 'unknown message')} left in the queue" if unknown else ""
        taken = {kind: number for kind, number in report.notices.items() if kind != "unknown"}
        told = f" ({_kinds_of_notices(taken)})" if taken else ""
        lines.append(f"Took {count(sum(taken.values()), 'notice')}{told}{left}.")
    if report.lag_p50 is not None:
        lines.append(
            f"Delivered after their last event: {span(report.lag_p50)} (p50), {span(report.lag_p95)} (p95),"
            f" {span(report.lag_max)} at most."
        )
    return lines


def _kinds_of_notices(taken: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in sorted(taken.items()))


def sentence(report: RunReport, noun: str) -> str:
    """What came in, in one sentence."""
    parts = [f"{count(report.loaded, noun)} loaded"]
    parts += [f"{report.already_loaded:,} already loaded"] if report.already_loaded else []
    parts += [f"{report.pending:,} pending"] if report.pending else []
    parts += [f"{report.gone:,} gone"] if report.gone else []
    rows = [count(report.records, "record"), count(report.events, "new event")]
    rows += [count(report.duplicates, "duplicate")] if report.duplicates else []
    rows += [f"{report.malformed:,} malformed"] if report.malformed else []
    rows += [f"{report.expired:,} expired"] if report.expired else []
    return f"{', '.join(parts)}: {', '.join(rows)}."


def kinds(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {'empty' if kind == 'marker' else kind}" for kind, number in kinds.items())
