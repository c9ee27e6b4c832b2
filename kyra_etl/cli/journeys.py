"""`kyra load`, `sync`, `backfill` and `detect`: log files into the lake, detections over them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kyra_etl.cli.options import From, Json, Name, OptionalName, To, opened, window
from kyra_etl.cli.output import count, emit, printable, say, show, span, table
from kyra_etl.cli.progress import progress
from kyra_etl.cli.report import kinds, report_lines, sentence, totals, why_lines
from kyra_etl.errors import KyraError, UsageError
from kyra_etl.model import DetectReport, RunReport
from kyra_etl.wiring import Parts

if TYPE_CHECKING:
    from kyra_etl.backfill import Plan

QUARANTINED = 3
_SHOWN = 10


def load(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files, or folders (searched whole).")],
    no_detect: Annotated[bool, typer.Option("--no-detect", help="Do not run the detections.")] = False,
    json: Json = False,
) -> None:
    """Load log files of this machine into the lake, without an integration.

    Takes what CloudTrail writes and what tools make of it: .json and .json.gz with Records, a bare array, a line a
    record, or LookupEvents. Loading a file again does nothing. Files that an earlier load put into quarantine are
    tried again when they are due; one that was mended is loaded and leaves it.
    """
    from kyra_etl import wiring
    from kyra_etl.load import load as run

    with opened() as parts, progress() as drawn:
        given = parts.for_run()
        if no_detect:
            given["corpus"] = None
        problem: KyraError | None = None
        try:
            report = run(paths, **given, progress=drawn)
        except KyraError as error:
            if error.report is None:
                raise
            report, problem = error.report, error
        wiring.publish_status(parts)
        tell_problems(parts, report.detect, no_detect=no_detect)
        for line in _quarantined(parts, report, paths):
            say(line)
    lines = report_lines(report, noun="file")
    if report.loaded + report.already_loaded + report.quarantined + report.pending + report.gone == 0:
        lines = [_nothing(report, paths)]
    if json:
        emit({"files": report.listed, **report.as_json()})
    for line in lines:
        (say if json else show)(line)
    if problem is not None:
        raise problem
    raise typer.Exit(QUARANTINED if report.quarantined else 0)


def sync(name: OptionalName = None, json: Json = False) -> None:
    """Load what AWS delivered since the last sync, and raise its alerts.

    One run, for one integration or for all that there are. `kyra serve` does it every five minutes.
    """
    reports: list[RunReport] = []
    failed: dict[str, KyraError] = {}
    with opened() as parts:
        every = parts.state.integrations.list()
        chosen = [parts.state.integrations.get(name)] if name else every
        if not chosen:
            raise UsageError("There is no integration yet.", "Add one: kyra integration add NAME --bucket BUCKET.")

        from kyra_etl import wiring  # from here on, what reading a bucket needs
        from kyra_etl.sync import sync as run

        for integration in chosen:
            with progress() as drawn:
                try:
                    bucket = wiring.bucket_of(parts, integration)
                    queue = wiring.queue_of(parts, integration)
                    reports.append(run(integration, bucket=bucket, queue=queue, **parts.for_run(), progress=drawn))
                except KyraError as error:
                    if error.report is not None:
                        reports.append(error.report)
                    elif name:
                        raise
                    failed[integration.name] = error
        if any(not report.skipped for report in reports):
            wiring.publish_status(parts)
        for report in reports:
            tell_problems(parts, report.detect)
    if json:
        emit({**totals(reports), "failed": {who: str(why) for who, why in failed.items()}})
    else:
        for report in reports:
            _show(report, named=len(chosen) > 1)
    for who, why in failed.items():
        say(printable(f"{who}: {why}"))
    raise typer.Exit(1 if failed else QUARANTINED if any(report.quarantined for report in reports) else 0)


def backfill(
    name: Name,
    start: From = None,
    end: To = None,
    from_history: Annotated[
        bool, typer.Option("--from-history", help="Ask LookupEvents, newest first, instead of reading log files.")
    ] = False,
    days_back: Annotated[
        int | None, typer.Option("--days", help="With --from-history: how far back; 90 without it.", min=1, max=90)
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(metavar="R,R", help="With --from-history: these regions; those of the bucket without it."),
    ] = None,
    minutes: Annotated[
        int | None, typer.Option(help="With --from-history: for so long at most; 60 without it.", min=1)
    ] = None,
    account: Annotated[
        list[str] | None, typer.Option("--account", metavar="ID", help="This account only; may be repeated.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Tell what it would take; load nothing.")] = False,
    json: Json = False,
) -> None:
    """Load the log files of a range of days, oldest first. Stopped, it goes on where it stood.

    With --from-history no log file is needed: AWS keeps the management events of the last 90 days of the role's own
    account, and gives out some 100 a second and region. What comes by log file later is not loaded twice.

    Its alerts are marked historical. It works beside the syncs. Stop it with Ctrl-C, or pause the integration: it ends
    after the day it is at, with exit code 1. The same command goes on, and loads a day again that files came late for.
    """
    from kyra_etl import wiring
    from kyra_etl.backfill import backfill as run
    from kyra_etl.backfill import plan as survey
    from kyra_etl.backfill import unfinished

    if from_history:
        if start is not None or end is not None or account or plan:
            raise UsageError("--from-history takes no --from, --to, --account or --plan.", "Say how far: --days 30.")
        from kyra_etl.cli.history import fetch

        fetch(name, days_back or 90, regions, minutes or 60, json=json)
    if days_back or regions or minutes:
        raise UsageError("--days, --regions and --minutes go with --from-history.", "Or give --from and --to.")
    if start is None:
        raise UsageError(
            "backfill needs --from (or --from-history).",
            f"For example: kyra backfill {name} --from 2026-01-01 --to 2026-01-31.",
        )
    days: list[dict[str, Any]] = []
    reports: list[RunReport] = []
    with opened() as parts:
        integration = parts.state.integrations.get(name)
        if integration.paused:
            raise UsageError(f"{name} is paused.", f"Go on with: kyra integration resume {name}.")
        days_of = window(start, end, parts)
        bucket = wiring.bucket_of(parts, integration)
        if plan:
            limits = parts.config.limits
            with progress() as drawn:
                made = survey(
                    integration,
                    days_of,
                    bucket=bucket,
                    state=parts.state,
                    limits=limits,
                    clock=parts.clock,
                    accounts=account,
                    progress=drawn,
                )
            _show_plan(made, json=json)
            return
        problem: KyraError | None = None
        try:
            with progress() as drawn:
                runs = run(integration, days_of, bucket=bucket, **parts.for_run(), accounts=account, progress=drawn)
                # Reports first: what could not be listed is told after that of the last day.
                for report, day in zip(runs, days_of.days(), strict=False):
                    if not report.skipped:
                        days.append({"day": day, **report.as_json()})
                    reports.append(report)
        except KyraError as error:
            if not reports:
                raise
            problem = error
        finally:
            for day, report in zip(days_of.days(), reports, strict=False) if not json else ():
                if not report.skipped:
                    show(f"{day}  {sentence(report, noun='log file')}")
        stopped = unfinished(name, days_of.days(), reports)
        reports = [report for report in reports if not report.skipped]
        for report in reports[-1:]:
            wiring.publish_status(parts)
            tell_problems(parts, report.detect)
    if json:
        emit({**totals(reports), "days": days})
    if stopped is not None:
        say(stopped)
    if problem is not None:
        raise problem
    if stopped is not None:
        raise typer.Exit(1)
    if not any(report.listed for report in reports):
        say(f"There is no log file of these days{' and accounts' if account else ''} in the bucket.")
    raise typer.Exit(QUARANTINED if any(report.quarantined for report in reports) else 0)


def detect(
    detection: Annotated[
        list[str] | None, typer.Option("--detection", metavar="ID", help="This detection only; may be repeated.")
    ] = None,
    start: From = None,
    end: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what there would be; record nothing.")] = False,
    json: Json = False,
) -> None:
    """Run detections that wait, or all of them over a range of days (a back-test).

    Alerts of a range are marked historical. With --detection and no range, all of the lake is looked at.
    """
    from kyra_etl.detect import detect_queued, detect_window
    from kyra_etl.publish import publish_changed

    with opened() as parts, progress() as drawn:
        given = {key: value for key, value in parts.for_run().items() if key in ("lake", "state", "corpus")}
        begun, report = parts.clock(), DetectReport()
        try:
            if start is None and end is None and not detection:
                if dry_run:
                    raise UsageError(
                        "--dry-run needs a range of days.", "For example: kyra detect --from 7d --dry-run."
                    )
                report = detect_queued(**given, now=parts.clock(), progress=drawn)
            else:
                span = window(start or _first_day(parts), end, parts)
                report = detect_window(
                    span, **given, now=parts.clock(), detections=detection or None, dry_run=dry_run, progress=drawn
                )
        finally:  # also what was found before one failed
            if not dry_run:
                publish_changed(begun, report.alert_days, lake=parts.lake, state=parts.state, now=parts.clock())
        tell_problems(parts, report)
    if json:
        emit(report.as_json())
    else:
        _show_detected(report, dry_run=dry_run)
    raise typer.Exit(1 if report.failed else 0)


def _show_plan(plan: Plan, *, json: bool) -> None:
    if json:
        emit(plan.as_json())
        return
    rows = [(day, one.files, one.bytes, one.already_loaded) for day, one in plan.days.items()]
    if plan.files + plan.already_loaded:
        show(table(("day", "log files", "bytes", "already loaded"), rows))
        show()
    pace = "at the pace of the last runs" if plan.measured else "if it goes as usual"
    show(
        f"{count(plan.files, 'log file')} to load, {plan.bytes:,} bytes; {plan.already_loaded:,} already loaded."
        f" {count(plan.list_requests, 'LIST request')} and {plan.get_requests:,} GET, about ${plan.cost:.2f};"
        f" about {span(plan.seconds)} {pace}."
    )


def _show(report: RunReport, *, named: bool) -> None:
    for number, line in enumerate([*report_lines(report, noun="log file"), *why_lines(report)]):
        show(f"{report.integration}: {line}" if named and number == 0 else line)


def _nothing(report: RunReport, paths: Iterable[Path]) -> str:
    """Why a load came to nothing."""
    where = printable(", ".join(map(str, paths)))
    if report.listed == 0:
        return f"Nothing was loaded: there is no file in {where}. Give files or folders of CloudTrail logs."
    return (
        f"Nothing was loaded: {where} holds no CloudTrail log file (ignored: {kinds(report.ignored_by_kind)})."
        " Give .json or .json.gz files with Records."
    )


def _quarantined(parts: Parts, report: RunReport, paths: Iterable[Path]) -> list[str]:
    """A line for each of the first quarantined files among the paths."""
    if not report.quarantined:
        return []
    roots = [path.absolute() for path in paths]
    entries = [
        entry
        for entry in parts.state.ledger.quarantined(report.integration)
        if any(Path(entry.file.key).is_relative_to(root) for root in roots)
    ]
    lines = [printable(f"{entry.file.key}: {entry.detail or entry.reason}") for entry in entries[:_SHOWN]]
    if len(entries) > _SHOWN:
        lines.append(f"… and {len(entries) - _SHOWN:,} more: kyra quarantine list")
    return lines


def tell_problems(parts: Parts, report: DetectReport, *, no_detect: bool = False) -> None:
    """Detections that could not be read, or whose SQL failed."""
    if no_detect:
        return
    for problem in parts.corpus.problems:
        say(printable(str(problem.error)))
    broken = {problem.detection for problem in parts.corpus.problems}
    errors = {row["detection"]: row["last_error"] for row in parts.state.queue.failing()}
    for name in report.failed:
        if name not in broken:
            say(printable(f"Detection {name} failed: {errors.get(name, 'see kyra detections lint')}"))


def _show_detected(report: DetectReport, *, dry_run: bool) -> None:
    would = " (dry run: nothing was recorded)" if dry_run else ""
    show(
        f"{count(report.findings, 'finding')} in {count(report.events, 'event')}:"
        f" {count(report.alerts_new, 'new alert')}, {report.alerts_updated:,} updated{would}."
    )
    rows = [
        (day, detection, counts["findings"], counts["alerts"])
        for day, found in sorted(report.days.items())
        for detection, counts in sorted(found.items())
    ]
    if rows:
        show(table(("day", "detection", "findings", "alerts"), rows))
    names = ("alerts", "alerts_a_day", "rows", "seconds")
    costs = [(name, *(cost[key] for key in names)) for name, cost in report.costs.items() if cost["rows"]]
    if costs:
        show()
        show(table(("detection", "alerts", "alerts a day", "rows", "seconds"), costs))


def _first_day(parts: Parts) -> str:
    """The first day there are events of."""
    days = [file.date for file in parts.state.ledger.data_files("events") if file.date is not None]
    return min(days).isoformat() if days else "today"
