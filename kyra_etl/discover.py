"""Find the log files of an integration that the ledger does not know yet.

New is what was listed minus what the ledger holds: never "after the last key", since names are not in order of arrival
and files may come thirty days late. Checkpoints only narrow which day folders are listed; without them everything is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any

from kyra_etl.cloudtrail import keys
from kyra_etl.model import Found, Integration, LogFile, Window
from kyra_etl.ports import LogBucket, Progress
from kyra_etl.state import State

PAGE = 1_000

SMALL_REGION = 8
"""Day folders up to which a region is listed whole in every run: it costs no more than looking back."""

SWEEP_EVERY = timedelta(hours=24)
SWEEP_DAYS = 35
"""CloudTrail retries a delivery for 30 days."""

MIDNIGHT = timedelta(minutes=15)
"""Names run up to some minutes ahead, so tomorrow's folder may have files before midnight."""


@dataclass
class _Region:
    """Where one account's files of one region and kind lie: a folder for each layout that is or was in use."""

    account: str
    name: str
    is_logs: bool
    folders: list[str] = field(default_factory=list)


@dataclass
class _Seen:
    """What the listing of one region adds to its checkpoint."""

    day: date | None = None
    last_key: str | None = None
    last_delivered_at: datetime | None = None
    days: set[date] = field(default_factory=set)


def account_folders(bucket: LogBucket, prefix: str) -> Iterator[str]:
    """Every account's folder, of accounts' own trails and of organization trails."""
    for folder in bucket.folders(keys.logs_root(prefix)):
        if keys.account_of_folder(folder):
            yield folder
        elif keys.is_organization_folder(folder):
            for inner in bucket.folders(folder):
                if keys.account_of_folder(inner):
                    yield inner


def regions(bucket: LogBucket, prefix: str, accounts: Collection[str] | None = None) -> list[_Region]:
    """Every account's regions, asked for account by account: no two need have the same.

    Both layouts of an account's region are one region, so that its checkpoint speaks for all of it.
    """
    found: dict[tuple[str, str, str], _Region] = {}
    for account_folder in account_folders(bucket, prefix):
        account = keys.account_of_folder(account_folder) or ""
        if accounts is not None and account not in accounts:
            continue
        for kind_folder in bucket.folders(account_folder):
            kind = _last(kind_folder)
            for region_folder in bucket.folders(kind_folder):
                name = _last(region_folder)
                region = found.setdefault((account, kind, name), _Region(account, name, kind == "CloudTrail"))
                region.folders.append(region_folder)
    return list(found.values())


def discover(
    run_id: str,
    integration: Integration,
    *,
    bucket: LogBucket,
    state: State,
    now: datetime,
    lookback_days: int,
    progress: Progress,
    window: Window | None = None,
    accounts: Collection[str] | None = None,
) -> Found:
    """List what may be new and tell the ledger. With a `window`, only its days are listed, and checkpoints stay."""
    found = Found()
    checkpoints = {(row["account"], row["region"]): row for row in state.ledger.checkpoints(integration.name)}
    server_now = bucket.now()
    progress.stage("Discovering")
    discovered = regions(bucket, integration.prefix, accounts)
    progress.stage("Listing", len(discovered))
    for region in discovered:
        listing = _Listing(run_id, integration, bucket, state, now, found)
        if window is not None:
            listing.days(region, window.days())
        else:
            checkpoint = checkpoints.get((region.account, region.name)) if region.is_logs else None
            listing.since(region, checkpoint, server_now, lookback_days)
        progress.advance()
    return found


@dataclass
class _Listing:
    """The listing of one region's folders."""

    run_id: str
    integration: Integration
    bucket: LogBucket
    state: State
    now: datetime
    found: Found
    seen: _Seen = field(default_factory=_Seen)

    def since(
        self, region: _Region, checkpoint: Mapping[str, Any] | None, server_now: datetime, lookback_days: int
    ) -> None:
        """List the days that can still receive files, and move the region's checkpoint on."""
        whole = checkpoint is None or (checkpoint["day_folders"] or 0) <= SMALL_REGION
        swept_at = checkpoint["swept_at"] if checkpoint is not None else None
        sweep = whole or swept_at is None or swept_at <= self.now - SWEEP_EVERY
        for folder in region.folders:
            if whole:
                days = day_folders(self.bucket, folder)
            else:
                newest = checkpoint["day"] if checkpoint is not None else None
                days = recent_days(server_now, newest, SWEEP_DAYS if sweep else lookback_days)
            for day in days:
                self._day(keys.day_folder(folder, day))
        if region.is_logs:
            known = (checkpoint["day_folders"] or 0) if checkpoint is not None else 0
            self.state.ledger.save_checkpoint(
                self.integration.name,
                account=region.account,
                region=region.name,
                day=self.seen.day,
                last_key=self.seen.last_key,
                last_delivered_at=self.seen.last_delivered_at,
                listed_at=self.now,
                day_folders=max(known, len(self.seen.days)),
                swept_at=self.now if sweep else None,
            )

    def days(self, region: _Region, days: Collection[date]) -> None:
        """List exactly these days."""
        for folder in region.folders:
            for day in days:
                self._day(keys.day_folder(folder, day))

    def _day(self, folder: str) -> None:
        seen = self.seen
        listing = self.bucket.files(folder)
        while page := list(islice(listing, PAGE)):
            self.found.listed += len(page)
            logs: list[LogFile] = []
            for file in page:
                info = keys.parse_key(file.key, file.size)
                if info.kind != "log":
                    self.found.ignored[info.kind] += 1
                    continue
                logs.append(replace(file, account=info.account, region=info.region, day=info.day))
                if info.day is not None:
                    seen.days.add(info.day)
                    seen.day = max(filter(None, (seen.day, info.day)))
                seen.last_key = max(filter(None, (seen.last_key, file.key)))
                if file.last_modified is not None:
                    seen.last_delivered_at = max(filter(None, (seen.last_delivered_at, file.last_modified)))
            if logs:
                observed = self.state.ledger.observe(
                    self.run_id, self.integration.name, self.integration.bucket, logs, "listed", self.now
                )
                self.found.already_loaded += observed.already_loaded
                # Hinted already, or listed twice while the bucket changed: one log file all the same.
                self.found.listed -= observed.repeated


def day_folders(bucket: LogBucket, region_folder: str) -> list[date]:
    """Every day that has a folder, oldest first."""
    days = []
    for year in bucket.folders(region_folder):
        for month in bucket.folders(year):
            for folder in bucket.folders(month):
                try:
                    days.append(datetime.strptime(folder[-11:], "%Y/%m/%d/").date())
                except ValueError:
                    continue
    return sorted(days)


def recent_days(server_now: datetime, newest: date | None, lookback_days: int) -> list[date]:
    """Days that can still receive files: by the server's clock, and around the newest folder seen.

    The second part is for trails that stopped and buckets that are filled by hand.
    """
    today = server_now.date()
    days = {today - timedelta(days=back) for back in range(lookback_days + 1)}
    days.add((server_now + MIDNIGHT).date())
    if newest is not None:
        days |= {newest - timedelta(days=1), newest}
    return sorted(days)


def _last(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]
