"""Retention: days that are older than an account's events are kept leave the lake, and their log files the ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any

from kyra_etl.cadence import SWEEP_DAYS
from kyra_etl.lake import Partition
from kyra_etl.lake.compact import FULL
from kyra_etl.maintain.swap import Work, remove_replaced, swap, working
from kyra_etl.model import DataFile
from kyra_etl.retention import horizon
from kyra_etl.run import Kit

AHEAD = timedelta(days=3)
"""How far events may be ahead of the day of their log file's folder: two days at most, and one to be sure."""


@dataclass(frozen=True, slots=True)
class Expired:
    """What goes of one account: the days before `horizon`."""

    account: str
    horizon: date
    partitions: int = 0
    files: int = 0
    bytes: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class RetainReport:
    """What a retention took away, or would take away."""

    dry_run: bool
    skipped: str | None = None
    accounts: tuple[Expired, ...] = ()
    partitions: int = 0
    files: int = 0
    bytes: int = 0
    events: int = 0
    removed: int = 0
    """Files replaced earlier whose grace was over."""
    horizons: Mapping[str, date] = field(default_factory=dict)
    """The first day that is kept, by account."""
    log_files: int = 0
    """Log files of such days that left the ledger, but for a fingerprint each: they are never loaded again."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def retain(kit: Kit, *, accounts: Collection[str] | None = None, dry_run: bool = False) -> RetainReport:
    """Take the days of these accounts (all, without) out of the lake that are older than events are kept.

    The horizon is set first, and only ever moves on: what arrives later and is older counts as expired, also when the
    settings keep more by then. With `dry_run` nothing is changed.
    """
    if dry_run:
        due = _due(kit, accounts)
        gone = {partition: _files(kit, partition) for partition in _partitions(kit, due)}
        return _report(due, gone, dry_run=True, log_files=kit.state.ledger.prunable(_unneeded(kit, due)))
    with working(kit) as work:
        if work is None:
            return RetainReport(dry_run=False, skipped="another run is maintaining this lake")
        due = _due(kit, accounts)
        kit.state.swaps.set_horizons(due, kit.clock())
        partitions = _partitions(kit, due)
        kit.progress.stage("Removing", len(partitions))
        gone = {}
        for partition in partitions:
            if files := _take_away(work, kit, partition):
                gone[partition] = files
            work.alive()
            kit.progress.advance()
        # Of accounts that have nothing left, too: the run that took it may have been killed before it came to this.
        past = kit.state.swaps.horizons()
        kit.lake.forget_gathered({name: day for name, day in past.items() if accounts is None or name in accounts})
        log_files = kit.state.ledger.prune(_unneeded(kit, due), work.alive)
        return _report(due, gone, dry_run=False, removed=remove_replaced(work), log_files=log_files)


def _due(kit: Kit, accounts: Collection[str] | None) -> dict[str, date]:
    """The horizon of every account in the lake that has one."""
    today = kit.clock().date()
    known = sorted({account for account, _ in kit.state.swaps.filled(accounts=accounts)})
    horizons = {account: horizon(kit.limits, account, today) for account in known}
    return {account: day for account, day in horizons.items() if day is not None}


def _unneeded(kit: Kit, due: Mapping[str, date]) -> dict[str, date]:
    """By account, the day before which no log file is needed: listed no more, and of no event in the lake."""
    unswept = kit.clock().date() - timedelta(days=SWEEP_DAYS + 1)
    horizons = {**kit.state.swaps.horizons(), **due}
    return {account: min(day - AHEAD, unswept) for account, day in horizons.items()}


def _partitions(kit: Kit, due: Mapping[str, date]) -> list[Partition]:
    filled = kit.state.swaps.filled(accounts=list(due)) if due else []
    return [(account, day) for account, day in filled if day < due[account]]


def _files(kit: Kit, partition: Partition) -> list[DataFile]:
    held = kit.state.swaps.contents(partition, FULL)
    return [*held.full, *held.small, *held.activity]


def _take_away(work: Work, kit: Kit, partition: Partition) -> list[DataFile]:
    files = _files(kit, partition)
    made = swap(work, "retain", partition, lambda _: [], replaced=files)
    return [] if made is None else files


def _report(
    due: Mapping[str, date],
    gone: Mapping[Partition, list[DataFile]],
    *,
    dry_run: bool,
    removed: int = 0,
    log_files: int = 0,
) -> RetainReport:
    by_account = []
    for account, day in due.items():
        chosen = [files for where, files in gone.items() if where[0] == account]
        files = [file for some in chosen for file in some]
        events = sum(file.rows for file in files if file.kind == "events")
        by_account.append(Expired(account, day, len(chosen), len(files), sum(file.size for file in files), events))
    return RetainReport(
        dry_run=dry_run,
        accounts=tuple(one for one in by_account if one.files),
        partitions=sum(one.partitions for one in by_account),
        files=sum(one.files for one in by_account),
        bytes=sum(one.bytes for one in by_account),
        events=sum(one.events for one in by_account),
        removed=removed,
        horizons=due,
        log_files=log_files,
    )
