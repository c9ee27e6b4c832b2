"""Run detections on what was committed, or once more on a window of the past, and turn findings into alerts."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any

from kyra_etl import resources
from kyra_etl.detection.alerts import as_historical, by_anchor
from kyra_etl.detection.rule import Corpus, Detection
from kyra_etl.errors import KyraError, LakeError
from kyra_etl.lake import Lake
from kyra_etl.lake.engine import Engine, Evaluation
from kyra_etl.lake.taken import IN_MEMORY
from kyra_etl.model import DetectReport, Finding, Window
from kyra_etl.ports import Progress, Silent
from kyra_etl.state import QueueEntry, State

SMALL = 20_000
"""Queued events up to this number are looked at by detections side by side; of more, each by every core."""

KEPT = timedelta(days=7)
"""How long entries of a detection wait that is unknown here."""

UNKNOWN = (
    "There is no detection of that id on the machine that looked last. Every machine of one state needs the same"
    f" detections; what waits for an unknown one is dropped after {KEPT.days} days."
)

LANES = 4
"""Detections side by side at most: more would wait for the same reading."""


@dataclass
class _Tally:
    """What a run has done so far."""

    batches: int = 0
    events: int = 0
    findings: int = 0
    new: dict[str, None] = field(default_factory=dict)
    changed: dict[str, None] = field(default_factory=dict)
    left: dict[date, None] = field(default_factory=dict)
    failed: dict[str, None] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    """Detections whose SQL failed, whatever may have become of single batches."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    rows: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    days: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)

    def report(self) -> DetectReport:
        return DetectReport(
            batches=self.batches,
            events=self.events,
            findings=self.findings,
            alerts_new=len(self.new),
            alerts_updated=len(self.changed.keys() - self.new.keys()),
            failed=tuple(self.failed),
            alert_ids=tuple({**self.new, **self.changed}),
            alert_days=tuple(self.left),
            seconds={name: round(seconds, 4) for name, seconds in self.seconds.items()},
            days=self.days,
            costs=self.costs,
        )


def detect_queued(
    *,
    lake: Lake,
    state: State,
    corpus: Corpus,
    now: datetime,
    progress: Progress | None = None,
    live_only: bool = False,
) -> DetectReport:
    """Run every queued (batch, detection) and record what comes of it, each detection in one transaction.

    A detection that fails keeps its entries for the next run and is named in `failed`; the others go on. So does all
    that waits for a batch whose files cannot be read. What failed before comes after what is new, least often tried
    first, and is not read again while its detection fails. What reads `alerts` looks again where another detection
    comes late. Entries of disabled detections are dropped, those of unknown ones after some days. With `live_only`,
    historical batches are left to another run.
    """
    tally = _Tally()
    progress = progress or Silent()
    waiting = _wanted(state, corpus, now, tally, live_only=live_only)
    if waiting:
        progress.stage("Detecting", len(waiting))
    # On what is new a detection shows whether all that waits for it is worth reading again.
    new = [entry for entry in waiting if not entry.attempts]
    failed = sorted((entry for entry in waiting if entry.attempts), key=lambda entry: entry.attempts)
    for entries in (new, failed):
        _judge(entries, lake, state, corpus, now, tally, progress)
    return tally.report()


def _judge(
    waiting: Sequence[QueueEntry],
    lake: Lake,
    state: State,
    corpus: Corpus,
    now: datetime,
    tally: _Tally,
    progress: Progress,
) -> None:
    """Run these entries, without those that failed before and whose detection has failed in this run too."""
    waiting = _hopeful(waiting, tally)
    if not waiting:
        return
    by_id = {detection.id: detection for detection in corpus.detections}
    chunks = deque(_chunks(state, waiting))
    small = sum(rows for chunk in chunks for rows in chunk.values()) <= SMALL
    with _engine(lake, state, lanes=min(os.cpu_count() or 1, LANES) if small else None) as engine:
        while chunks:
            chunk = chunks.popleft()
            batches, rows = chunk.keys(), sum(chunk.values())
            chosen = _by_detection(_hopeful(waiting, tally), batches)
            if not chosen:
                continue
            late = {entry.batch_id for entry in waiting if entry.attempts} & batches
            for each in (each for each in corpus.detections if late and each.on_alerts):
                chosen.setdefault(each.id, set()).update(late)
            ready = [by_id[id_] for id_ in chosen]
            look = state.alerts.look()
            listed = partial(state.ledger.files_of_batches, batches)
            try:
                engine.take(listed, batches=batches, rows=rows, detections=ready)
            except LakeError as error:
                if len(chunk) > 1:
                    chunks.extend(_halves(chunk))
                else:
                    _fail(state, [(batch_id, id_) for id_ in chosen for batch_id in batches], error, now, tally)
                continue
            tally.batches += len(batches)
            tally.events += rows
            # What is found of the others is there for those that read `alerts`.
            quiet: list[tuple[str, str]] = []
            wanted = [(by_id[id_], None if own == batches else own) for id_, own in chosen.items()]
            for evaluation, seen in _evaluations(engine, state, wanted, tally, look, state.alerts.look):
                own = chosen[evaluation.detection.id]
                entries = [(batch_id, evaluation.detection.id) for batch_id in sorted(own)]
                if evaluation.error is not None:
                    tally.failing.add(evaluation.detection.id)
                    _fail(state, entries, evaluation.error, now, tally)
                elif evaluation.findings:
                    _record(state, evaluation.detection, evaluation.findings, seen, entries, now, tally)
                else:
                    quiet += entries
                progress.advance(len(own))
            state.queue.clear(quiet)


def _hopeful(waiting: Sequence[QueueEntry], tally: _Tally) -> list[QueueEntry]:
    return [entry for entry in waiting if not entry.attempts or entry.detection not in tally.failing]


def detect_window(
    window: Window,
    *,
    lake: Lake,
    state: State,
    corpus: Corpus,
    now: datetime,
    detections: Sequence[str] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> DetectReport:
    """Run detections (all, or those named, disabled ones too) over the committed events of a window, day by day.

    Each day is judged by the baseline as of that day. What is found is recorded as historical; with `dry_run` nothing
    is, and the report tells in `days` what there would be: {day: {detection: {findings, alerts}}}. Raises UnknownName.
    """
    chosen = corpus.detections if detections is None else tuple(corpus.get(id_) for id_ in detections)
    tally = _Tally()
    progress = progress or Silent()
    days = window.days()
    found: dict[tuple[str, str, str], Finding] = {}
    begin: Looking = (lambda: 0) if dry_run else state.alerts.look
    progress.stage("Detecting", len(days))
    with _engine(lake, state) as engine:
        for day in days:
            start = datetime.combine(day, datetime.min.time())
            part = Window(max(window.start, start), min(window.end, start + timedelta(days=1)))
            look = begin()
            files = state.ledger.data_files("events", first=day, last=day)
            engine.take(partial(state.ledger.data_files, "events", first=day, last=day), part, detections=chosen)
            tally.events += sum(file.rows for file in files)
            wanted = [(each, None) for each in chosen] if files else []
            for evaluation, seen in _evaluations(engine, state, wanted, tally, look, begin):
                if evaluation.error is not None:
                    if detections is not None:
                        raise evaluation.error
                    tally.failed[evaluation.detection.id] = None
                found |= by_anchor(evaluation.findings)
                if evaluation.findings and not dry_run:
                    findings = [as_historical(finding) for finding in evaluation.findings]
                    _record(state, evaluation.detection, findings, seen, (), now, tally)
            progress.advance()
    if dry_run:
        known = {alert.alert_id for alert in state.alerts.list()}
        for finding in found.values():
            (tally.changed if finding.alert_id in known else tally.new)[finding.alert_id] = None
    # Evidence around midnight has a finding judged on two days: it counts once, on the day of its own event.
    tally.findings = len(found)
    tally.days = _by_day(found.values())
    tally.costs = _costs(found.values(), len(days), tally)
    return tally.report()


def _costs(findings: Iterable[Finding], days: int, tally: _Tally) -> dict[str, dict[str, float]]:
    """What each detection that was run would mean: alerts, alerts a day, and what they cost in rows and seconds."""
    alerts: defaultdict[str, set[str]] = defaultdict(set)
    for finding in findings:
        alerts[finding.detection].add(finding.alert_id)
    return {
        name: {
            "alerts": len(alerts[name]),
            "alerts_a_day": round(len(alerts[name]) / days, 2),
            "rows": tally.rows[name],
            "seconds": round(seconds, 3),
        }
        for name, seconds in sorted(tally.seconds.items())
    }


def _by_day(findings: Iterable[Finding]) -> dict[str, dict[str, dict[str, int]]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.event_time.date().isoformat(), finding.detection), []).append(finding.alert_id)
    days: dict[str, dict[str, dict[str, int]]] = {}
    for (day, detection), alert_ids in sorted(groups.items()):
        days.setdefault(day, {})[detection] = {"findings": len(alert_ids), "alerts": len(set(alert_ids))}
    return days


Wanted = tuple[Detection, Collection[str] | None]
"""A detection, and the batches whose events are the new ones for it; None for all that was taken."""

Looking = Callable[[], int]
"""Begins a look, as `Alerts.look` does."""


def _evaluations(
    engine: Engine, state: State, wanted: Sequence[Wanted], tally: _Tally, look: int, begin: Looking
) -> Iterator[tuple[Evaluation, int]]:
    """What comes of each detection, with the look that it came of; last of those that read `alerts`.

    They are given the alerts around the new events, those that were recorded meanwhile among them: another look.
    """
    for each, seen in chain(
        ((each, look) for each in engine.evaluate_all([each for each in wanted if not each[0].on_alerts])),
        *(_of_alerts(engine, state, each, begin) for each in wanted if each[0].on_alerts),
    ):
        tally.seconds[each.detection.id] += each.seconds
        tally.rows[each.detection.id] += each.rows
        tally.findings += len(each.findings)
        yield each, seen


def _of_alerts(engine: Engine, state: State, wanted: Wanted, begin: Looking) -> Iterator[tuple[Evaluation, int]]:
    look, span = begin(), engine.span()
    if span is not None:
        around = 2 * wanted[0].lookback
        engine.know_alerts(*state.alerts.around(span[0] - around, span[1] + around))
    yield from ((each, look) for each in engine.evaluate_all([wanted]))


def _record(
    state: State,
    detection: Detection,
    findings: Sequence[Finding],
    look: int,
    clear: Sequence[tuple[str, str]],
    now: datetime,
    tally: _Tally,
) -> None:
    recorded = state.alerts.record(
        detection.id,
        title=detection.title,
        attack=[technique.id for technique in detection.attack],
        attack_legacy=detection.attack_legacy,
        findings=findings,
        look=look,
        clear=clear,
        now=now,
    )
    tally.new.update(dict.fromkeys(recorded.new))
    tally.changed.update(dict.fromkeys(recorded.updated))
    tally.left.update(dict.fromkeys(recorded.left))


def _engine(lake: Lake, state: State, lanes: int | None = None) -> Engine:
    integrations = state.integrations.list()
    accounts: list[dict[str, Any]] = [
        {"account": each.account_id, "integration": each.name} for each in integrations if each.account_id
    ]
    return Engine(
        lake,
        state.ledger,
        resources.views_dir(),
        trails=state.integrations.trails(None),
        accounts=accounts,
        trusted=resources.detections_dir(),
        lanes=lanes,
    )


def _wanted(state: State, corpus: Corpus, now: datetime, tally: _Tally, *, live_only: bool) -> list[QueueEntry]:
    """The queue, without entries of detections that cannot be run: those of a broken file fail and wait.

    A detection that is unknown here may be another machine's: its entries wait a while, told in the queue.
    """
    usable = {detection.id for detection in corpus.detections}
    disabled = {detection.id for detection in corpus.disabled}
    disabled |= {problem.detection for problem in corpus.problems if problem.disabled}
    broken: dict[str, KyraError] = {problem.detection: problem.error for problem in corpus.problems}
    wanted: list[QueueEntry] = []
    gone: list[tuple[str, str]] = []
    unknown: list[tuple[str, str]] = []
    failing: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for entry in state.queue.pending(live_only=live_only):
        if entry.detection in usable:
            wanted.append(entry)
        elif entry.detection in broken and entry.detection not in disabled:
            failing[entry.detection].append((entry.batch_id, entry.detection))
        elif entry.detection in disabled or now - entry.queued_at > KEPT:
            gone.append((entry.batch_id, entry.detection))
        elif entry.last_error != UNKNOWN:
            unknown.append((entry.batch_id, entry.detection))
    for detection, entries in failing.items():
        _fail(state, entries, broken[detection], now, tally)
    state.queue.fail(unknown, UNKNOWN, now)
    state.queue.clear(gone)
    return wanted


def _fail(state: State, entries: Sequence[tuple[str, str]], error: KyraError, now: datetime, tally: _Tally) -> None:
    tally.failed.update(dict.fromkeys(detection for _, detection in entries))
    state.queue.fail(entries, str(error), now)


def _chunks(state: State, entries: Sequence[QueueEntry]) -> Iterator[dict[str, int]]:
    """Queued batches with how many events each has, as many together as stay in memory."""
    chunk: dict[str, int] = {}
    rows = 0
    for batch_id in dict.fromkeys(entry.batch_id for entry in entries):
        _, own = state.ledger.files_of_batch(batch_id)
        if chunk and rows + own > IN_MEMORY:
            yield chunk
            chunk, rows = {}, 0
        chunk[batch_id] = own
        rows += own
    yield chunk


def _halves(chunk: dict[str, int]) -> list[dict[str, int]]:
    """Two chunks of one that has a file which cannot be read: sooner or later it is alone, and the others go on."""
    batches, middle = list(chunk.items()), len(chunk) // 2
    return [dict(batches[:middle]), dict(batches[middle:])]


def _by_detection(entries: Sequence[QueueEntry], batches: Collection[str]) -> dict[str, set[str]]:
    chosen: dict[str, set[str]] = {}
    for entry in entries:
        if entry.batch_id in batches:
            chosen.setdefault(entry.detection, set()).add(entry.batch_id)
    return chosen
