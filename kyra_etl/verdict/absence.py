"""Why no events appear: the list of causes that somebody who waits for them walks through, nearest first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from kyra_etl.verdict.facts import Facts, Verdict, starting

FIRST_FILE = timedelta(minutes=20)
"""A new trail's first log file takes five to fifteen minutes, and a sync to see it."""

CHECK_AGE = timedelta(hours=24)
"""A check older than this explains nothing any more."""

ASIDE = ("lookup", "topic", "queue", "subscription")
"""Probes of what log files come without."""


def empty(facts: Facts) -> Verdict | None:
    """No log file was ever seen: walk through what usually keeps them away."""
    if any(facts.ledger[key] for key in ("loaded", "pending", "planned", "quarantined", "gone")):
        return None
    return next(answer for cause in _CAUSES if (answer := cause(facts)) is not None)


def _logging_off(facts: Facts) -> Verdict | None:
    off = [trail for trail in facts.trails if trail["logging"] is False]
    if not off or len(off) < len(facts.trails):
        return None
    return Verdict("Pending", f"No events appear: trail {off[0]['name']} is not logging.", starting(off[0]))


def _named_by_check(facts: Facts) -> Verdict | None:
    """Permission, prefix, layout, region: the check asked each, and its first refusal is the cause."""
    if facts.check is None or facts.now - facts.check[0] > CHECK_AGE:
        return None
    refused = next((probe for probe in facts.check[1] if probe.passed is False and probe.name not in ASIDE), None)
    if refused is None or (facts.integration.created_at is not None and _is_young(facts) and _may_come(facts)):
        return None
    return Verdict(
        "Pending",
        f"No events appear: {_CAUSE_OF.get(refused.name, f'the check {refused.name} fails')}. {refused.detail}",
        refused.remedy or f"kyra check {facts.name}",
    )


_CAUSE_OF = {
    "identity": "this machine has no AWS credentials",
    "clock": "this machine's clock is off",
    "assume_role": "the role cannot be assumed",
    "bucket": "the bucket cannot be reached, or lies in another region",
    "list": "a permission is missing",
    "read": "a permission is missing",
    "layout": "there is nothing where log files should lie (wrong --prefix or --bucket, or a trail that is new)",
    "kms": "a permission is missing",
    "trail": "no trail delivers here (wrong bucket, prefix or account layout)",
    "logging": "logging is off",
    "delivery": "the trail cannot deliver",
    "selectors": "the trail does not record them",
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


def _is_young(facts: Facts) -> bool:
    """Whether the integration is so new that a new trail's first log file may still be on its way."""
    created = facts.integration.created_at
    return created is not None and facts.now - created < FIRST_FILE


def _may_come(facts: Facts) -> bool:
    """Whether the check saw nothing wrong but the missing files."""
    assert facts.check is not None
    return all(probe.passed is not False or probe.name == "layout" for probe in facts.check[1])
