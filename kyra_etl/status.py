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
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from kyra_etl import cadence
from kyra_etl.cloudtrail import hours
from kyra_etl.model import ACCOUNT, Integration
from kyra_etl.state.runs import KEPT
from kyra_etl.verdict import Facts, verdicts

if TYPE_CHECKING:
    from kyra_etl.state import State

LOCAL = "local"

STALE = timedelta(hours=2)
"""Without a sync for this long, and for three times its usual interval, an integration is not called Connected."""

HABIT_DAYS = 8
"""Days with deliveries from which a region has a habit: a weekend among them."""

SILENT, SILENT_TIMES = timedelta(hours=1), 2
"""A region is silent after this long, and so many times its longest pause, without a delivery."""

YOUNG = timedelta(days=90)
"""No detection learns longer."""

Learning = Callable[[], Mapping[str, timedelta]]
"""How long each first-seen detection learns an account, by its id."""


def status(
    state: State, now: datetime, name: str | None = None, *, every: timedelta | None = None, learning: Learning = dict
) -> dict[str, Any]:
    """{integrations: […], local, queue}; with `name`, that integration alone. Raises UnknownName.

    An integration has: name, state, reason, next_step, also (what else is wrong: reason and next_step of each), bucket,
    account_id, region, prefix, last_sync_at, last_sync_age and due_every (seconds), last_run, events_processed, lag
    (p50, p95, max: seconds from an event to its delivery, in the last sync that loaded something), ledger (counts),
    quarantine (by reason), history (hours of LookupEvents), checkpoints, silent (account and region, against their own
    habit), trails, learning (until when, how many detections and accounts), listing (LIST requests and their cost,
    folders by tier), failing_detections, last_check. Times are naive UTC.

    `every` is the schedule's interval, if there is a schedule. `learning` is only called when an account is young.
    """
    integrations = [state.integrations.get(name)] if name else state.integrations.list()
    failing = state.queue.failing()
    young = _young(state, integrations, now, learning)
    return {
        "integrations": [_one(state, each, failing, young, every, now) for each in integrations],
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


def _one(
    state: State,
    integration: Integration,
    failing: Sequence[Mapping[str, Any]],
    young: Mapping[str, Mapping[str, date]],
    every: timedelta | None,
    now: datetime,
) -> dict[str, Any]:
    name = integration.name
    ledger, history = state.ledger.counts(name), state.ledger.states(name, hours.BUCKET)
    ledger |= {key: ledger[key] - hours_ for key, hours_ in history.items()}
    runs = [run for run in state.runs.recent(name, limit=KEPT) if run["state"] in ("succeeded", "failed")]
    syncs = [run for run in runs if run["verb"] == "sync"]
    last_sync = state.runs.last(name, verb="sync")
    last_run = runs[0] if runs else None
    check = state.integrations.last_check(name)
    checkpoints = state.ledger.checkpoints(name)
    loading: Mapping[str, Any] = next((run["report"] for run in syncs if (run["report"] or {}).get("loaded")), {})
    facts = Facts(
        integration,
        now,
        ledger,
        last_end=syncs[0] if syncs else None,
        last_sync=last_sync,
        due_every=every or _interval(syncs) or timedelta(minutes=5),
        late_after=max(STALE, 3 * _interval(syncs), 3 * (every or timedelta())),
        check=check,
        trails=state.integrations.trails(name),
        quarantine=state.ledger.quarantine(name, now - timedelta(days=1)) if ledger["quarantined"] else (),
        silent=() if integration.bucket.startswith("file:") else silent(checkpoints),
        failing=failing,
        last_delivered_at=max(filter(None, (row["last_delivered_at"] for row in checkpoints)), default=None),
        # Of a sync that has one before it: the first may find files that were copied from elsewhere.
        lag_p50=loading.get("lag_p50") if syncs and syncs[-1]["report"] is not loading else None,
        learning=_learning(checkpoints, young),
        report=(last_sync or {}).get("report") or {},
    )
    first, *others = verdicts(facts)
    finished = last_sync["finished_at"] if last_sync else None
    return {
        "name": name,
        **first._asdict(),
        "also": [{"reason": one.reason, "next_step": one.next_step} for one in others],
        "bucket": integration.bucket,
        "account_id": integration.account_id,
        "region": integration.region,
        "prefix": integration.prefix,
        "last_sync_at": finished,
        "last_sync_age": (now - finished).total_seconds() if finished else None,
        "due_every": facts.due_every.total_seconds(),
        "last_run": last_run and {key: last_run[key] for key in ("run_id", "verb", "state", "finished_at", "error")},
        "events_processed": ledger["events"],
        "lag": {key: loading.get(f"lag_{key}") for key in ("p50", "p95", "max")},
        "ledger": ledger,
        "quarantine": list(facts.quarantine),
        "history": history,
        "checkpoints": checkpoints,
        "silent": [
            {key: row[key] for key in ("account", "region", "since")} | {"usual_pause": row["usual"].total_seconds()}
            for row in facts.silent
        ],
        "trails": [_trail(trail) for trail in facts.trails],
        "learning": facts.learning,
        "listing": _listing(state, integration, now),
        "failing_detections": [row["detection"] for row in failing],
        "last_check": check
        and {"checked_at": check[0], "failed": [probe.name for probe in check[1] if probe.passed is False]},
    }


def _trail(trail: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "home_region", "logging", "latest_delivery_at", "latest_delivery_error", "checked_at")
    return {name: trail[name] for name in names}


def _young(
    state: State, integrations: Sequence[Integration], now: datetime, learning: Learning
) -> dict[str, dict[str, date]]:
    """Detections that still learn an account, with the day from which they know it: by account, then detection."""
    first = {
        account: day
        for each in integrations
        for account, day in state.ledger.first_days(each.name).items()
        if now - datetime.combine(day, time.min) < YOUNG
    }
    lengths = learning() if first else {}
    today = now.date()
    return {
        account: {id: day + length for id, length in lengths.items() if day + length > today}
        for account, day in first.items()
    }


def _learning(
    checkpoints: Sequence[Mapping[str, Any]], young: Mapping[str, Mapping[str, date]]
) -> dict[str, Any] | None:
    """What is still being learnt of the integration's accounts; None when nothing is."""
    accounts = {row["account"] for row in checkpoints}
    until: dict[str, date] = {}
    for account in accounts & set(young):
        for id, day in young[account].items():
            until[id] = max(day, until.get(id, day))
    if not until:
        return None
    return {
        "until": max(until.values()),
        "detections": len(until),
        "accounts": sum(bool(young.get(account)) for account in accounts),
        "by_detection": dict(sorted(until.items())),
    }


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


def silent(checkpoints: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Accounts' regions that pause far longer than they ever did in the last weeks, as of their last listing.

    Not asked of a folder: somebody fills it when they like.
    """
    return [
        {
            "account": row["account"],
            "region": row["region"],
            "since": row["last_delivered_at"],
            "usual": timedelta(seconds=row["usual_pause"]),
        }
        for row in checkpoints
        if row["usual_pause"] is not None
        and row["day_folders"] >= HABIT_DAYS
        and row["listed_at"] - row["last_delivered_at"]
        > max(SILENT, SILENT_TIMES * timedelta(seconds=row["usual_pause"]))
    ]


def _local(state: State) -> dict[str, Any] | None:
    """What `kyra load` took in; None when nothing."""
    counts = state.ledger.counts(LOCAL)
    return counts if any(counts[key] for key in ("loaded", "pending", "planned", "quarantined", "gone")) else None
