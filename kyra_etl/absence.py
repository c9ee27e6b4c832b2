"""What is absent, told from the state alone: an account that went silent, a trail that does not log.

Asked after every sync and check. No detection's SQL could tell: there is no event to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from kyra_etl.detection.alerts import absence_id
from kyra_etl.model import Integration
from kyra_etl.state import Absence, Recorded, State
from kyra_etl.status import silent

SILENT, NOT_LOGGING = "cloudtrail_silent", "trail_not_logging"
"""What stands as the detection of such alerts."""

RUNBOOK = """\
1. Ask AWS first: kyra check NAME tells whether the trail exists, logs and delivers, and what to change.
2. Start it again before all else: until then nothing of what you do is recorded. aws cloudtrail start-logging --name …
3. Who stopped it? kyra alerts list --detection cloudtrail_disabled; and the account's event history, which a stopped
   trail does not end: aws cloudtrail lookup-events with AttributeKey=EventName,AttributeValue=StopLogging.
4. Fill the hole from the event history: kyra backfill NAME --from-history --days 2.
5. Compare the bucket's policy, the trail's KMS key and its event selectors with what they were.
"""
"""What to do about either; such an alert has no detection file to carry it."""

_ATTACK, _LEGACY = ("T1685.002",), ("T1562.008",)


def watch(integration: Integration, *, state: State, now: datetime) -> Recorded:
    """Raise an alert for whatever has become absent, and lower those of what came back."""
    if integration.paused:
        return Recorded()
    name = integration.name
    found = [*_not_logging(integration, state.integrations.trails(name))]
    if not integration.bucket.startswith("file:"):
        found += _silent(state.ledger.checkpoints(name))
    return state.absences.observe(name, found, now)


def _silent(checkpoints: Sequence[dict[str, Any]]) -> Iterator[Absence]:
    """One for each account of which a region is silent against its own habit; high when every region is."""
    rows = silent(checkpoints)
    for account in sorted({row["account"] for row in rows}):
        quiet = {row["region"]: row["since"] for row in rows if row["account"] == account}
        every = {row["region"] for row in checkpoints if row["account"] == account and row["last_delivered_at"]}
        since, regions = max(quiet.values()), sorted(quiet)
        where = "all of its regions" if every <= quiet.keys() else ", ".join(regions)
        yield _absence(
            SILENT,
            "CloudTrail Silent",
            account,
            account,
            since,
            f"Nothing was delivered of account {account} in {where} since {since:%Y-%m-%d %H:%M}, against its habit.",
            severity="high" if every <= quiet.keys() else "medium",
            region=regions[0] if len(regions) == 1 else None,
        )


def _not_logging(integration: Integration, trails: Sequence[dict[str, Any]]) -> Iterator[Absence]:
    for trail in trails:
        account = (trail["arn"] or "").split(":")[4:5] or [integration.account_id or ""]
        why = "is not logging" if trail["logging"] is False else None
        if trail["latest_delivery_error"]:
            why = f"cannot deliver: {trail['latest_delivery_error']}"
        if why is not None:
            yield _absence(
                NOT_LOGGING,
                "Trail Not Logging",
                account[0],
                trail["arn"] or trail["name"] or "",
                trail["checked_at"],
                f"Trail {trail['name']} {why}.",
                region=trail["home_region"],
            )


def _absence(
    kind: str,
    title: str,
    account: str,
    target: str,
    since: datetime,
    summary: str,
    *,
    severity: Any = "high",
    region: str | None = None,
) -> Absence:
    return Absence(
        kind=kind,
        title=title,
        severity=severity,
        account=account,
        target=target,
        since=since,
        summary=summary,
        alert_id=absence_id(kind, account, target, since),
        region=region,
        attack=_ATTACK,
        attack_legacy=_LEGACY,
    )
