"""How every integration is, told from the state alone: nothing is asked of AWS, no file of the lake is opened.

| state     | means                                                                                       |
|-----------|---------------------------------------------------------------------------------------------|
| Pending   | nothing has come in yet: not synced, or no log file found                                   |
| Connected | the last sync worked, and nothing is in the way                                             |
| Degraded  | log files come in, but something is left behind or likely to stop them; `reason` says what  |
| Failed    | the last sync, or the check before any sync, failed                                         |
| Paused    | paused by its user                                                                          |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kyra_etl import cadence
from kyra_etl.model import ACCOUNT, Integration

if TYPE_CHECKING:
    from kyra_etl.state import State

LOCAL = "local"

STALE = timedelta(hours=2)
"""Without a sync for this long, and for three times its usual interval, an integration is not called Connected."""

QUIET = timedelta(hours=24)
"""An account's region this far behind the integration's newest log file is listed as quiet."""


def status(state: State, now: datetime, name: str | None = None) -> dict[str, Any]:
    """{integrations: […], local, queue}; with `name`, that integration alone. Raises UnknownName.

    An integration has: name, state, reason, next_step, bucket, account_id, region, prefix, last_sync_at, last_sync_age
    (seconds), last_run, events_processed, lag (p50, p95, max: seconds from an event to its delivery, in the
    last sync that loaded something), ledger (counts), checkpoints, quiet (account and region), listing (LIST requests
    and their cost, folders by tier), failing_detections, last_check. Times are naive UTC.
    """
    integrations = [state.integrations.get(name)] if name else state.integrations.list()
    failing = state.queue.failing()
    return {
        "integrations": [_one(state, integration, failing, now) for integration in integrations],
        "local": _local(state),
        "queue": {"depth": state.queue.depth(), "failing": failing},
    }


def rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same as flat rows, for the relation `status`."""
    return [
        {
            "integration": one["name"],
            **{key: one[key] for key in ("state", "reason", "next_step", "last_sync_at", "events_processed")},
            "last_event_at": one["ledger"]["last_event_at"],
            **{f"lag_{key}": one["lag"][key] for key in ("p50", "p95")},
            **{key: one["ledger"][key] for key in ("loaded", "pending", "quarantined", "gone")},
        }
        for one in report["integrations"]
    ]


def _one(state: State, integration: Integration, failing: Sequence[Mapping[str, Any]], now: datetime) -> dict[str, Any]:
    name = integration.name
    ledger = state.ledger.counts(name)
    runs = [run for run in state.runs.recent(name, limit=300) if run["state"] in ("succeeded", "failed")]
    succeeded = state.runs.last(name, verb="sync")
    last_run = runs[0] if runs else None
    check = state.integrations.last_check(name)
    checkpoints = state.ledger.checkpoints(name)
    loading: Mapping[str, Any] = next((run["report"] for run in runs if (run["report"] or {}).get("loaded")), {})
    last_sync = succeeded["finished_at"] if succeeded else None
    stale = max(STALE, 3 * _interval(runs))
    verdict = _verdict(state, integration, ledger, last_run, last_sync, stale, check, failing, now)
    return {
        "name": name,
        **dict(zip(("state", "reason", "next_step"), verdict, strict=True)),
        "bucket": integration.bucket,
        "account_id": integration.account_id,
        "region": integration.region,
        "prefix": integration.prefix,
        "last_sync_at": last_sync,
        "last_sync_age": (now - last_sync).total_seconds() if last_sync else None,
        "last_run": last_run and {key: last_run[key] for key in ("run_id", "verb", "state", "finished_at", "error")},
        "events_processed": ledger["events"],
        "lag": {key: loading.get(f"lag_{key}") for key in ("p50", "p95", "max")},
        "ledger": ledger,
        "checkpoints": checkpoints,
        "quiet": _quiet(checkpoints),
        "listing": _listing(state, integration, now),
        "failing_detections": [row["detection"] for row in failing],
        "last_check": check
        and {"checked_at": check[0], "failed": [probe.name for probe in check[1] if probe.passed is False]},
    }


def _verdict(
    state: State,
    integration: Integration,
    ledger: Mapping[str, Any],
    last_run: Mapping[str, Any] | None,
    last_sync: datetime | None,
    stale: timedelta,
    check: tuple[datetime, Sequence[Any]] | None,
    failing: Sequence[Mapping[str, Any]],
    now: datetime,
) -> tuple[str, str, str]:
    """(state, reason, next step); the first that applies."""
    name = integration.name
    if integration.paused:
        return "Paused", "It is paused.", f"kyra integration resume {name}"
    if last_run is not None and last_run["state"] == "failed":
        return "Failed", f"The last {last_run['verb']} failed: {last_run['error']}", f"kyra check {name}"
    refused = None
    if check is not None and (last_sync is None or check[0] > last_sync):
        refused = next((probe for probe in check[1] if probe.passed is False), None)
    if refused is not None:
        kind = "Failed" if last_sync is None else "Degraded"
        return kind, f"The check {refused.name} failed: {refused.detail}", refused.remedy or f"kyra check {name}"
    if last_sync is None:
        return "Pending", "It was never synced.", f"kyra sync {name}"
    if not any(ledger[key] for key in ("loaded", "pending", "planned", "quarantined", "gone")):
        where = "/".join(filter(None, (integration.bucket, integration.prefix, "AWSLogs/")))
        return "Pending", f"No log file was found yet below {where}.", f"kyra check {name}"
    if ledger["quarantined"]:
        return "Degraded", f"{_count(ledger['quarantined'], 'log file')} in quarantine.", "kyra quarantine list"
    if failing:
        names = ", ".join(row["detection"] for row in failing)
        return "Degraded", f"Detections fail: {names}.", f"kyra detections show {failing[0]['detection']}"
    for trail in state.integrations.trails(name):
        if trail["latest_delivery_error"]:
            return (
                "Degraded",
                f"Trail {trail['name']} cannot deliver: {trail['latest_delivery_error']}.",
                f"kyra check {name}",
            )
        if trail["logging"] is False:
            return "Degraded", f"Trail {trail['name']} is not logging.", f"kyra check {name}"
    if now - last_sync > stale:
        return "Degraded", f"It was not synced for {span(now - last_sync)}.", f"kyra sync {name}, or kyra serve"
    return "Connected", "", ""


def _interval(runs: Sequence[Mapping[str, Any]]) -> timedelta:
    """Time between the last two syncs that worked."""
    latest = [run["finished_at"] for run in runs if run["verb"] == "sync" and run["state"] == "succeeded"][:2]
    return latest[0] - latest[1] if len(latest) == 2 else timedelta()


def _listing(state: State, integration: Integration, now: datetime) -> dict[str, Any]:
    """What listing takes: LIST requests by UTC day, their estimated cost in US dollars, regions' folders by tier."""
    today = now.date()
    requests = state.ledger.list_requests(integration.name, today - timedelta(days=1))
    count_today, before = requests.get(today, 0), requests.get(today - timedelta(days=1), 0)
    tiers = Counter(cadence.tier(one, now) for one in state.ledger.folders(integration.name) if one.kind != ACCOUNT)
    price = 0.0 if integration.bucket.startswith("file:") else 1.0
    return {
        "requests_today": count_today,
        "requests_yesterday": before,
        "cost_today": price * cadence.cost(count_today),
        "cost_yesterday": price * cadence.cost(before),
        "folders": {tier: tiers[tier] for tier in cadence.TIERS},
    }


def _quiet(checkpoints: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Accounts' regions far behind the others: quiet by nature, or silenced."""
    delivered = [row for row in checkpoints if row["last_delivered_at"] is not None]
    newest = max((row["last_delivered_at"] for row in delivered), default=None)
    return [
        {"account": row["account"], "region": row["region"], "since": row["last_delivered_at"]}
        for row in delivered
        if newest - row["last_delivered_at"] > QUIET
    ]


def _local(state: State) -> dict[str, Any] | None:
    """What `kyra load` took in; None when nothing."""
    counts = state.ledger.counts(LOCAL)
    return counts if any(counts[key] for key in ("loaded", "pending", "planned", "quarantined", "gone")) else None


def span(length: timedelta) -> str:
    """A length of time in the unit a person would choose: 40 s, 12 min, 5 h, 3 days."""
    seconds = max(int(length.total_seconds()), 0)
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} days"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
