"""What an integration is called, why, and what to do next: one sentence a situation, from what the state knows.

    facts       what is known, and the form of an answer
    absence     no log file was ever seen: why no events appear
    troubles    log files arrive, and something is wrong all the same

The questions are asked in the order in which their answers explain each other: a trail that was stopped explains a
silent account, a refused permission explains a late sync. The first that applies gives the integration its state.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from kyra_etl.verdict import troubles
from kyra_etl.verdict.absence import ASIDE, empty
from kyra_etl.verdict.facts import Facts, Name, Verdict, count, span

__all__ = ["Facts", "Verdict", "span", "verdicts"]


def verdicts(facts: Facts) -> list[Verdict]:
    """Every answer that applies, the one that explains most first; there is always one."""
    for question in _ALONE:
        if (answer := question(facts)) is not None:
            return [answer]
    return [answer for question in _TOGETHER if (answer := question(facts)) is not None] or [_healthy(facts)]


def _paused(facts: Facts) -> Verdict | None:
    if not facts.integration.paused:
        return None
    return Verdict("Paused", "It is paused: syncs leave it out.", f"kyra integration resume {facts.name}")


def _refused(facts: Facts) -> Verdict | None:
    """A check that failed after the last sync that worked knows more than that sync."""
    if facts.check is None or (facts.last_sync is not None and facts.check[0] <= facts.last_sync["finished_at"]):
        return None
    others = ASIDE if facts.last_sync is None else (*ASIDE, *troubles.STANDING)
    probe = next((probe for probe in facts.check[1] if probe.passed is False and probe.name not in others), None)
    if probe is None:
        return None
    state: Name = "Failed" if facts.last_sync is None else "Degraded"
    return Verdict(state, f"The check {probe.name} failed: {probe.detail}", probe.remedy or f"kyra check {facts.name}")


def _failed(facts: Facts) -> Verdict | None:
    if facts.last_end is None or facts.last_end["state"] != "failed":
        return None
    return Verdict("Failed", f"The last sync failed: {facts.last_end['error']}", f"kyra check {facts.name}")


def _never(facts: Facts) -> Verdict | None:
    if facts.last_sync is not None:
        return None
    return Verdict("Pending", "It was never synced.", f"kyra sync {facts.name}")


def _healthy(facts: Facts) -> Verdict:
    newest = facts.last_delivered_at
    said = f"Log files arrive from {facts.integration.bucket}"
    if newest is not None:
        age = facts.now - newest
        said += f", the newest {span(age)} ago" if age < timedelta(days=1) else f", the newest of {newest:%Y-%m-%d}"
    learning = ""
    if facts.learning is not None:
        number = facts.learning["detections"]
        learning = (
            f" {count(number, 'detection')} {'learns' if number == 1 else 'learn'} until {facts.learning['until']}."
        )
    return Verdict("Connected", f"{said}.{learning}", "kyra alerts list")


_ALONE: tuple[Callable[[Facts], Verdict | None], ...] = (_paused, _refused, _failed, _never, empty)
_TOGETHER: tuple[Callable[[Facts], Verdict | None], ...] = (
    troubles.trail,
    troubles.standing,
    troubles.late,
    troubles.keys,
    troubles.quarantined,
    troubles.detections,
    troubles.backlog,
    troubles.silence,
    troubles.delayed,
    troubles.twice,
    troubles.aside,
)
