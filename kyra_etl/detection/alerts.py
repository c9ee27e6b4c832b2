"""Which alert a finding belongs to, and what an alert is, given its findings.

An alert's id is made of the detection, the finding's group and its anchor's place in time, and of nothing else: running
again, in another order or over history yields the same alerts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from kyra_etl.detection.rule import Detection
from kyra_etl.model import SEVERITIES, Alert, Finding

_EPOCH = datetime(1970, 1, 1)


def floor(moment: datetime, window: timedelta) -> datetime:
    """The start of the window that `moment` falls into, windows laid end to end since 1970."""
    return moment - (moment - _EPOCH) % window


def alert_id(detection_id: str, group: Sequence[object], anchor: datetime, window: timedelta) -> str:
    """24 hex digits that name the alert of a finding: its detection, group values and anchor's window."""
    values = [None if value is None else str(value) for value in group]
    identity = [detection_id, values, floor(anchor, window).isoformat()]
    return hashlib.sha256(json.dumps(identity, ensure_ascii=False).encode()).hexdigest()[:24]


def absence_id(kind: str, account: str, target: str, since: datetime) -> str:
    """24 hex digits that name the alert of an absence: what is absent, of whom, since when."""
    identity = [kind, account, target, since.isoformat()]
    return hashlib.sha256(json.dumps(identity, ensure_ascii=False).encode()).hexdigest()[:24]


def by_anchor(findings: Iterable[Finding]) -> dict[tuple[str, str, str], Finding]:
    """Findings of one evaluation by what they are keyed with: (detection, account, anchor).

    Of those that share a key the most severe is kept, with the evidence of all. A later evaluation replaces an earlier.
    """
    folded: dict[tuple[str, str, str], Finding] = {}
    for finding in sorted(findings, key=_precedence):
        key = finding.detection, finding.account, finding.event_id
        first = folded.get(key)
        folded[key] = _with_evidence(first or finding, finding)
    return folded


def _precedence(finding: Finding) -> tuple[Any, ...]:
    texts = (finding.alert_id, finding.region, finding.actor, finding.source_ip, finding.target, finding.summary)
    return (*rank(finding), *(text or "" for text in texts))


def _with_evidence(first: Finding, other: Finding) -> Finding:
    both = {first.event_id, *first.event_ids, *other.event_ids}
    live = {i for one in (first, other) for i in one.event_ids if i not in one.historical_ids}
    return replace(
        first,
        event_ids=tuple(sorted(both)),
        historical_ids=(first.historical_ids | other.historical_ids) - live,
        event_times={**other.event_times, **first.event_times},
    )


def rank(finding: Finding) -> tuple[int, datetime, str]:
    """Sorts findings: the most severe first, then the earliest. The first one speaks for the alert."""
    return -SEVERITIES.index(finding.severity), finding.event_time, finding.event_id


def alerts_of(detection: Detection, findings: Iterable[Finding]) -> list[Alert]:
    """The alerts that findings of one detection make, as the state keeps them; ordered by first_seen.

    Severity is the highest of the findings, the words are the first finding's in `rank`, times and count those of
    every event that any finding rests on.
    """
    groups: dict[str, list[Finding]] = {}
    for finding in by_anchor(findings).values():
        groups.setdefault(finding.alert_id, []).append(finding)
    alerts = [_alert(detection, id_, sorted(members, key=rank)) for id_, members in groups.items()]
    return sorted(alerts, key=lambda alert: (alert.first_seen, alert.alert_id))


def _alert(detection: Detection, id_: str, findings: Sequence[Finding]) -> Alert:
    first = findings[0]
    times = {finding.event_id: finding.event_time for finding in findings}
    for finding in findings:
        times |= finding.event_times
    historical = {event_id for finding in findings for event_id in finding.historical_ids}
    return Alert(
        alert_id=id_,
        detection=detection.id,
        title=detection.title,
        severity=first.severity,
        account=first.account,
        first_seen=min(times.values()),
        last_seen=max(times.values()),
        event_count=len(times),
        event_ids=tuple(sorted(times, key=lambda event_id: (times[event_id], event_id))),
        historical=historical.issuperset(times),
        attack=tuple(technique.id for technique in detection.attack),
        attack_legacy=detection.attack_legacy,
        region=first.region,
        actor=first.actor,
        source_ip=first.source_ip,
        target=first.target,
        summary=first.summary,
    )


def as_historical(finding: Finding) -> Finding:
    """The finding of a back-test: none of its events is news."""
    return replace(finding, historical_ids=frozenset(finding.event_ids))
