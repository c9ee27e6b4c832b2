"""What can be wrong while log files arrive; several things at a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kyra_etl.verdict.absence import ASIDE
from kyra_etl.verdict.facts import Facts, Verdict, count, span, starting

OLD = timedelta(hours=2)
"""What was seen longer ago than a check is due is told with its age."""

LATE = timedelta(hours=1)
"""CloudTrail delivers within fifteen minutes as a rule."""

BACKLOG = 1_000
"""Log files that wait before it is worth a word; a sync under way has some."""

TWICE, TELLING = 0.4, 100
"""Share of duplicates from which every event seems to arrive twice, and how many records tell anything."""

STANDING = ("clock", "external_id", "trail", "regions", "validation", "logging", "delivery", "selectors")
"""Probes that a sync which works does not contradict: they are about what is recorded, and who else may read it."""


def keys(facts: Facts) -> Verdict | None:
    """Files that may not be decrypted are in quarantine, but the cause is a key."""
    held = next((row for row in facts.quarantine if str(row["reason"]).startswith("kms")), None)
    if held is None:
        return None
    return Verdict(
        "Degraded",
        f"{count(held['files'], 'log file')} cannot be decrypted: {str(held['detail'])[:400]}",
        f"kyra quarantine retry --integration {facts.name}, once the key may be used",
    )


def quarantined(facts: Facts) -> Verdict | None:
    others = [row for row in facts.quarantine if not str(row["reason"]).startswith("kms")]
    if not others:
        return None
    kinds = ", ".join(f"{row['files']:,} {row['reason']}" for row in others)
    files, recent = sum(row["files"] for row in others), sum(row["recent"] for row in others)
    grown = f", {recent:,} of them new within a day" if recent else ""
    return Verdict(
        "Degraded",
        f"{count(files, 'log file')} in quarantine{grown}: {kinds}.",
        f"kyra quarantine list --integration {facts.name}",
    )


def detections(facts: Facts) -> Verdict | None:
    if not facts.failing:
        return None
    first, *others = facts.failing
    names = ", ".join(row["detection"] for row in facts.failing[:3])
    more = f" and {len(others) - 2} more" if len(others) > 2 else ""
    return Verdict(
        "Degraded",
        f"Detections fail: {names}{more}. {str(first['last_error'])[:400]}",
        f"kyra detections lint {first['detection']}, or kyra maintain check where a file of the lake cannot be read",
    )


def trail(facts: Facts) -> Verdict | None:
    for trail in facts.trails:
        if trail["latest_delivery_error"]:
            said = f"Trail {trail['name']} cannot deliver: {trail['latest_delivery_error']}{_as_of(facts, trail)}."
            return Verdict("Degraded", said, f"kyra check {facts.name}")
    off = next((trail for trail in facts.trails if trail["logging"] is False), None)
    if off is None:
        return None
    said = f"Trail {off['name']} is not logging{_as_of(facts, off)}: what happens leaves no record."
    return Verdict("Degraded", said, f"{starting(off)}, then kyra check {facts.name}")


def _as_of(facts: Facts, trail: Mapping[str, Any]) -> str:
    """How long ago that was seen, when it is long ago."""
    age = facts.now - trail["checked_at"]
    return f" (as of the check {span(age)} ago)" if age > OLD else ""


def standing(facts: Facts) -> Verdict | None:
    if facts.check is None:
        return None
    # What `trail` says better.
    known = ("logging", "delivery") if trail(facts) else ()
    for probe in facts.check[1]:
        if probe.passed is False and probe.name in STANDING and probe.name not in known:
            age = facts.now - facts.check[0]
            ago = f" {span(age)} ago" if age > OLD else ""
            said = f"The check {probe.name} failed{ago}: {probe.detail}"
            return Verdict("Degraded", said, probe.remedy or f"kyra check {facts.name}")
    return None


def aside(facts: Facts) -> Verdict | None:
    if facts.check is None:
        return None
    probe = next((probe for probe in facts.check[1] if probe.passed is False and probe.name in ASIDE), None)
    if probe is None:
        return None
    said = f"Log files arrive; beside them, the check {probe.name} failed: {probe.detail}"
    return Verdict("Connected", said, probe.remedy or f"kyra check {facts.name}")


def late(facts: Facts) -> Verdict | None:
    assert facts.last_sync is not None
    age = facts.now - facts.last_sync["finished_at"]
    if age <= facts.late_after:
        return None
    due = f"one is due every {span(facts.due_every)}"
    return Verdict(
        "Degraded", f"It was not synced for {span(age)}; {due}.", f"kyra sync {facts.name}, or kyra serve for good"
    )


def backlog(facts: Facts) -> Verdict | None:
    waiting = facts.ledger["pending"] + facts.ledger["planned"]
    if waiting >= BACKLOG:
        return Verdict(
            "Degraded",
            f"{count(waiting, 'log file')} of {facts.integration.bucket} wait to be loaded.",
            f"kyra sync {facts.name}, which loads them whatever the schedule does",
        )
    left = facts.report.get("folders_waiting") or 0
    if not left:
        return None
    return Verdict(
        "Degraded",
        f"{count(left, 'folder')} of {facts.integration.bucket} wait to be listed: the LIST budget was used up.",
        "raise list_budget_day, list_budget_run or list_seconds in kyra.toml",
    )


def silence(facts: Facts) -> Verdict | None:
    if not facts.silent:
        return None
    longest = min(facts.silent, key=lambda row: row["since"])
    regions = [row["region"] for row in facts.silent if row["account"] == longest["account"]]
    accounts = {row["account"] for row in facts.silent}
    where = f"{', '.join(regions[:3])}{f' and {len(regions) - 3} more' if len(regions) > 3 else ''}"
    others = f" {count(len(accounts) - 1, 'other account')} too." if len(accounts) > 1 else ""
    return Verdict(
        "Degraded",
        f"Account {longest['account']} went silent in {where}: nothing since {longest['since']:%Y-%m-%d %H:%M},"
        f" where a pause is {span(longest['usual'])} at most.{others}",
        f"kyra check {facts.name}, and ask the account's owner whether its trail was changed",
    )


def delayed(facts: Facts) -> Verdict | None:
    if facts.lag_p50 is None or facts.integration.bucket.startswith("file:"):
        return None
    lag = timedelta(seconds=facts.lag_p50)
    if lag <= LATE:
        return None
    return Verdict(
        "Degraded",
        f"Log files reach {facts.integration.bucket} late: half of the last ones came {span(lag)} after their events.",
        f"kyra check {facts.name}; AWS's health page, if the trail has no delivery error",
    )


def twice(facts: Facts) -> Verdict | None:
    active = [trail for trail in facts.trails if trail["logging"] is not False]
    records, duplicates = facts.report.get("records") or 0, facts.report.get("duplicates") or 0
    share = duplicates / records if records >= TELLING else 0.0
    if len(active) < 2 and share < TWICE:
        return None
    names = " and ".join(str(trail["name"]) for trail in active[:3])
    who = f"Trails {names} both deliver" if len(active) > 1 else "Two trails deliver"
    told = f" ({share:.0%} of the last sync's records were duplicates)" if share >= TWICE else ""
    return Verdict(
        "Connected",
        f"{who} to {facts.integration.bucket}{told}: events are kept once, and paid for twice.",
        f"kyra costs {facts.name}",
    )
