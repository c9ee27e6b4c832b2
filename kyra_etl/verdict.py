"""What an integration is called, why, and what to do next: one sentence a situation, from what the state knows.

The questions are asked in the order in which their answers explain each other: a trail that was stopped explains a
silent account, a refused permission explains a late sync. The first that applies gives the integration its state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from kyra_etl.model import Integration, Probe

Name = Literal["Pending", "Connected", "Degraded", "Failed", "Paused"]

FIRST_FILE = timedelta(minutes=20)
"""A new trail's first log file takes five to fifteen minutes, and a sync to see it."""

CHECK_AGE = timedelta(hours=24)
"""A check older than this explains nothing any more."""

LATE = timedelta(hours=1)
"""CloudTrail delivers within fifteen minutes as a rule."""

BACKLOG = 1_000
"""Log files that wait before it is worth a word; a sync under way has some."""

TWICE, TELLING = 0.4, 100
"""Share of duplicates from which every event seems to arrive twice, and how many records tell anything."""


class Verdict(NamedTuple):
    """The answer: `reason` names cause and object, `next_step` a command or what to change."""

    state: Name
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the state knows of an integration. Times are naive UTC, lengths of time timedeltas.

    `last_sync` is the last one that worked, `last_end` the last that ended either way. `ledger` counts log files by
    state, `quarantine` has rows {reason, files, recent, detail}, `silent` rows {account, region, since, usual}.
    """

    integration: Integration
    now: datetime
    ledger: Mapping[str, Any]
    last_end: Mapping[str, Any] | None = None
    last_sync: Mapping[str, Any] | None = None
    due_every: timedelta = timedelta(minutes=5)
    late_after: timedelta = timedelta(hours=2)
    check: tuple[datetime, Sequence[Probe]] | None = None
    trails: Sequence[Mapping[str, Any]] = ()
    quarantine: Sequence[Mapping[str, Any]] = ()
    silent: Sequence[Mapping[str, Any]] = ()
    failing: Sequence[Mapping[str, Any]] = ()
    last_delivered_at: datetime | None = None
    lag_p50: float | None = None
    learning: Mapping[str, Any] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    """The last sync's report, where it left one."""

    @property
    def name(self) -> str:
        return self.integration.name

    @property
    def root(self) -> str:
        """Where log files should lie."""
        return "/".join(filter(None, (self.integration.bucket, self.integration.prefix.strip("/"), "AWSLogs/")))


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
    probe = next((probe for probe in facts.check[1] if probe.passed is False), None)
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


def _empty(facts: Facts) -> Verdict | None:
    """No log file was ever seen: walk through what usually keeps them away."""
    if any(facts.ledger[key] for key in ("loaded", "pending", "planned", "quarantined", "gone")):
        return None
    return next(answer for cause in _CAUSES if (answer := cause(facts)) is not None)


def _logging_off(facts: Facts) -> Verdict | None:
    off = [trail for trail in facts.trails if trail["logging"] is False]
    if not off or len(off) < len(facts.trails):
        return None
    return Verdict("Pending", f"No events appear: trail {off[0]['name']} is not logging.", _start(off[0]))


def _named_by_check(facts: Facts) -> Verdict | None:
    """Permission, prefix, layout, region: the check asked each, and its first refusal is the cause."""
    if facts.check is None or facts.now - facts.check[0] > CHECK_AGE:
        return None
    refused = next((probe for probe in facts.check[1] if probe.passed is False), None)
    if refused is None or (facts.integration.created_at is not None and _is_young(facts) and _may_come(facts)):
        return None
    return Verdict(
        "Pending",
        f"No events appear: {_CAUSE_OF.get(refused.name, f'the check {refused.name} fails')}. {refused.detail}",
        refused.remedy or f"kyra check {facts.name}",
    )


_CAUSE_OF = {
    "assume_role": "the role cannot be assumed",
    "bucket": "the bucket cannot be reached, or lies in another region",
    "list": "a permission is missing",
    "read": "a permission is missing",
    "layout": "there is nothing where log files should lie (wrong --prefix or --bucket, or a trail that is new)",
    "trail": "no trail delivers here (wrong bucket, prefix or account layout)",
}
"""Probes of the check whose failure keeps log files away, in the words of somebody who waits for events."""


def _delay(facts: Facts) -> Verdict | None:
    if not _is_young(facts) or facts.integration.bucket.startswith("file:"):
        return None
    return Verdict(
        "Pending",
        f"No events appear yet: a trail's first log file reaches {facts.root} after 5 to 15 minutes.",
        f"kyra sync {facts.name}, in a quarter of an hour",
    )


def _other_layout(facts: Facts) -> Verdict | None:
    kinds = facts.report.get("ignored_by_kind") or {}
    if not kinds:
        return None
    what = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
    return Verdict(
        "Pending",
        f"No events appear: {facts.root} holds objects ({what}), but none in ACCOUNT/CloudTrail/REGION/ folders.",
        f"kyra check {facts.name}, and compare --prefix with the trail's S3KeyPrefix",
    )


def _one_region(facts: Facts) -> Verdict | None:
    single = [trail for trail in facts.trails if trail["multi_region"] is False]
    if not single or len(single) < len(facts.trails):
        return None
    return Verdict(
        "Pending",
        f"No events appear: trail {single[0]['name']} records {single[0]['home_region']} alone, no other region.",
        f"aws cloudtrail update-trail --name {single[0]['arn']} --is-multi-region-trail",
    )


def _unexplained(facts: Facts) -> Verdict | None:
    if facts.check is not None and facts.now - facts.check[0] <= CHECK_AGE:
        return Verdict(
            "Pending",
            f"No log file was found below {facts.root}, although every probe of the check passed.",
            f"kyra backfill {facts.name} --from-history, which needs no log file",
        )
    return Verdict("Pending", f"No log file was found yet below {facts.root}.", f"kyra check {facts.name}")


_CAUSES: tuple[Callable[[Facts], Verdict | None], ...] = (
    *(_logging_off, _named_by_check, _delay, _one_region, _other_layout, _unexplained),
)


def _keys(facts: Facts) -> Verdict | None:
    """Files that may not be decrypted are in quarantine, but the cause is a key."""
    held = next((row for row in facts.quarantine if str(row["reason"]).startswith("kms")), None)
    if held is None:
        return None
    return Verdict(
        "Degraded",
        f"{_count(held['files'], 'log file')} cannot be decrypted: {str(held['detail'])[:400]}",
        f"kyra quarantine retry --integration {facts.name}, once the key may be used",
    )


def _quarantined(facts: Facts) -> Verdict | None:
    others = [row for row in facts.quarantine if not str(row["reason"]).startswith("kms")]
    if not others:
        return None
    kinds = ", ".join(f"{row['files']:,} {row['reason']}" for row in others)
    files, recent = sum(row["files"] for row in others), sum(row["recent"] for row in others)
    grown = f", {recent:,} of them new within a day" if recent else ""
    return Verdict(
        "Degraded",
        f"{_count(files, 'log file')} in quarantine{grown}: {kinds}.",
        f"kyra quarantine list --integration {facts.name}",
    )


def _detections(facts: Facts) -> Verdict | None:
    if not facts.failing:
        return None
    names = ", ".join(row["detection"] for row in facts.failing)
    return Verdict("Degraded", f"Detections fail: {names}.", f"kyra detections show {facts.failing[0]['detection']}")


def _trail(facts: Facts) -> Verdict | None:
    for trail in facts.trails:
        if trail["latest_delivery_error"]:
            said = f"Trail {trail['name']} cannot deliver: {trail['latest_delivery_error']}."
            return Verdict("Degraded", said, f"kyra check {facts.name}")
    off = next((trail for trail in facts.trails if trail["logging"] is False), None)
    if off is None:
        return None
    return Verdict("Degraded", f"Trail {off['name']} is not logging: what happens now leaves no record.", _start(off))


def _late(facts: Facts) -> Verdict | None:
    assert facts.last_sync is not None
    age = facts.now - facts.last_sync["finished_at"]
    if age <= facts.late_after:
        return None
    due = f"one is due every {span(facts.due_every)}"
    return Verdict(
        "Degraded", f"It was not synced for {span(age)}; {due}.", f"kyra sync {facts.name}, or kyra serve for good"
    )


def _backlog(facts: Facts) -> Verdict | None:
    waiting = facts.ledger["pending"] + facts.ledger["planned"]
    if waiting >= BACKLOG:
        return Verdict(
            "Degraded",
            f"{_count(waiting, 'log file')} of {facts.integration.bucket} wait to be loaded.",
            f"kyra sync {facts.name}, which loads them whatever the schedule does",
        )
    left = facts.report.get("folders_waiting") or 0
    if not left:
        return None
    return Verdict(
        "Degraded",
        f"{_count(left, 'folder')} of {facts.integration.bucket} wait to be listed: the LIST budget was used up.",
        "raise list_budget_day, list_budget_run or list_seconds in kyra.toml",
    )


def _silence(facts: Facts) -> Verdict | None:
    if not facts.silent:
        return None
    longest = min(facts.silent, key=lambda row: row["since"])
    regions = [row["region"] for row in facts.silent if row["account"] == longest["account"]]
    accounts = {row["account"] for row in facts.silent}
    where = f"{', '.join(regions[:3])}{f' and {len(regions) - 3} more' if len(regions) > 3 else ''}"
    others = f" {_count(len(accounts) - 1, 'other account')} too." if len(accounts) > 1 else ""
    return Verdict(
        "Degraded",
        f"Account {longest['account']} went silent in {where}: nothing since {longest['since']:%Y-%m-%d %H:%M},"
        f" where a pause is {span(longest['usual'])} at most.{others}",
        f"kyra check {facts.name}, and ask the account's owner whether its trail was changed",
    )


def _delayed(facts: Facts) -> Verdict | None:
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


def _twice(facts: Facts) -> Verdict | None:
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
            f" {_count(number, 'detection')} {'learns' if number == 1 else 'learn'} until {facts.learning['until']}."
        )
    return Verdict("Connected", f"{said}.{learning}", "kyra alerts list")


_ALONE: tuple[Callable[[Facts], Verdict | None], ...] = (_paused, _refused, _failed, _never, _empty)
_TOGETHER: tuple[Callable[[Facts], Verdict | None], ...] = (
    *(_trail, _late, _keys, _quarantined, _detections, _backlog, _silence, _delayed, _twice),
)


def _is_young(facts: Facts) -> bool:
    """Whether the integration is so new that a new trail's first log file may still be on its way."""
    created = facts.integration.created_at
    return created is not None and facts.now - created < FIRST_FILE


def _may_come(facts: Facts) -> bool:
    """Whether the check saw nothing wrong but the missing files."""
    assert facts.check is not None
    return all(probe.passed is not False or probe.name == "layout" for probe in facts.check[1])


def _start(trail: Mapping[str, Any]) -> str:
    return f"aws cloudtrail start-logging --name {trail['arn'] or trail['name']}"


def span(length: timedelta) -> str:
    """A length of time in the unit a person would choose: 40 s, 12 min, 5 h, 3 days."""
    seconds = max(int(length.total_seconds()), 0)
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} days"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
