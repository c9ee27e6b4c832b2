"""Find the log files of an integration that the ledger does not know yet.

    accounts ─▶ kinds and regions ─▶ what is due (kyra_etl.cadence) ─▶ pages (kyra_etl.listing) ─▶ the ledger

New is what was listed minus what the ledger holds: never "after the last key", since names are not in order of arrival
and files may come thirty days late. Checkpoints only say when a folder is due and from which day it is looked through;
without them everything is listed from its beginning.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

from kyra_etl import cadence
from kyra_etl.cloudtrail import keys
from kyra_etl.errors import CollectError
from kyra_etl.listing import Found, Page, Seen, Task, pages
from kyra_etl.model import ACCOUNT, LOGS, Folder, Integration, Limits, LogFile, Window
from kyra_etl.ports import Clock, LogBucket, Progress
from kyra_etl.state import State

PAGE = 1_000

SMALL_REGION = 8
"""Day folders up to which a region is always looked through whole: it costs no more than looking back."""

SMALL_ARCHIVE = 100
"""Day folders, shared by all regions of a bucket, up to which those that stand still are looked through whole too."""

SMALL_BUCKET = 200
"""Regions' folders up to which everything is listed in every run: some 30 cents a day at five minutes' pace."""

PATIENCE = 10
"""Folders in a row that cannot be listed, after which the bucket is asked whether it answers at all."""


def discover(
    run_id: str,
    integration: Integration,
    *,
    bucket: LogBucket,
    state: State,
    limits: Limits,
    clock: Clock,
    progress: Progress,
    alive: Callable[[], object] = lambda: None,
) -> Found:
    """List what is due and tell the ledger of the log files. `alive` is called as the work goes on.

    Raises CollectError when the bucket cannot be listed at all; where some folders could not, `Found.problem` says why.
    """
    return _Search(run_id, integration, bucket, state, limits, clock, progress, alive).sync()


def discover_days(
    run_id: str,
    integration: Integration,
    window: Window,
    *,
    bucket: LogBucket,
    state: State,
    limits: Limits,
    clock: Clock,
    progress: Progress,
    accounts: Collection[str] | None = None,
    alive: Callable[[], object] = lambda: None,
) -> Iterator[Found]:
    """List the window's days in every region (of these accounts), whatever is due; checkpoints stay as they are.

    By day, then account. Yields what was found so far each time that `limits.backfill_files` log files are to be
    loaded, and at the end. Raises CollectError as `discover` does.
    """
    search = _Search(run_id, integration, bucket, state, limits, clock, progress, alive)
    return search.days(window, accounts)


def survey(
    integration: Integration,
    window: Window,
    *,
    bucket: LogBucket,
    state: State,
    limits: Limits,
    clock: Clock,
    progress: Progress,
    accounts: Collection[str] | None = None,
) -> tuple[Found, dict[date, Surveyed]]:
    """List as `discover_days` does, but only look: by day, what there is. Raises CollectError."""
    return _Search("", integration, bucket, state, limits, clock, progress, lambda: None).survey(window, accounts)


@dataclass(slots=True)
class Surveyed:
    """What a day's folders hold."""

    files: int = 0
    """Log files to load."""
    bytes: int = 0
    """Theirs, as stored."""
    already_loaded: int = 0


@dataclass
class _Search:
    """One run's way through the bucket. Times are the bucket server's, as far as they decide anything."""

    run_id: str
    integration: Integration
    bucket: LogBucket
    state: State
    limits: Limits
    clock: Clock
    progress: Progress
    alive: Callable[[], object]
    found: Found = field(default_factory=Found)

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._now = self.bucket.now()
        self._known = {folder.folder: folder for folder in self.state.ledger.folders(self.integration.name)}
        used = self.state.ledger.list_requests(self.integration.name, self._now.date()).get(self._now.date(), 0)
        self._allowance = cadence.allowance(self.limits, used, self._now)
        self._lock = threading.Lock()
        self._counted = self._promised = self._failures = self._linked = self._few = 0
        self._logs: list[LogFile] = []
        self._done: list[Folder] = []

    def sync(self) -> Found:
        folders = self._regions(self._may_go_on)
        small = self._is_small()
        self._few = SMALL_ARCHIVE // max(len(folders), 1)
        owed = self._owed((one, cadence.due_at(one, self._now, small=small)) for one in folders)
        self.progress.stage("Listing", len(owed))
        self._list(self._affordable(owed))
        return self.found

    def days(self, window: Window, accounts: Collection[str] | None) -> Iterator[Found]:
        for page in pages(self.bucket, self._day_tasks(window, accounts), threads=self.limits.list_threads, page=PAGE):
            self._take(page)
            if len(self._logs) >= PAGE:
                self._hand_over()
            if self._linked >= self.limits.backfill_files:
                self._linked = 0
                yield self.found
        self._hand_over()
        yield self.found

    def survey(self, window: Window, accounts: Collection[str] | None) -> tuple[Found, dict[date, Surveyed]]:
        name, bucket = self.integration.name, self.integration.bucket
        by_day = {day: Surveyed() for day in window.days()}
        for page in pages(self.bucket, self._day_tasks(window, accounts), threads=self.limits.list_threads, page=PAGE):
            self._take(page)
            loaded = self.state.ledger.loaded(name, bucket, self._logs)
            for log in self._logs:
                if log.day in by_day:
                    day = by_day[log.day]
                    if (log.key, log.etag) in loaded:
                        day.already_loaded += 1
                    else:
                        day.files, day.bytes = day.files + 1, day.bytes + log.size
            self._logs = []
        self._hand_over()
        return self.found, by_day

    def _day_tasks(self, window: Window, accounts: Collection[str] | None) -> Iterator[Task]:
        folders = sorted(self._regions(lambda: True), key=lambda one: (one.account, one.folder))
        chosen = [one for one in folders if one.is_logs and (accounts is None or one.account in accounts)]
        days = window.days()
        self.progress.stage("Listing", len(chosen) * len(days))
        tasks = (Task(one, keys.day_folder(one.folder, day), keeps=False) for day in days for one in chosen)
        return itertools.takewhile(lambda _: self._answers(), tasks)

    # ── what there is ──

    def _regions(self, may_go_on: Callable[[], bool]) -> list[Folder]:
        """Every region's folder of every account, those found just now included.

        Accounts are looked for in every run, their regions when that is due.
        """
        self.progress.stage("Discovering")
        known = (folder for folder, one in self._known.items() if one.kind == ACCOUNT)
        accounts = set(self._accounts() if may_go_on() else known)
        small = self._is_small()
        due = ((one, cadence.explore_at(one, self._now, small=small)) for one in map(self._account, accounts))
        owed = deque(self._owed(due))
        with ThreadPoolExecutor(self.limits.list_threads, thread_name_prefix="explore") as pool:
            while owed and may_go_on():
                some = [owed.popleft() for _ in range(min(len(owed), self.limits.list_threads * 4))]
                for folders in pool.map(self._explore, some):
                    self._remember(folders)
                self._hand_over()
        self.found.waiting += len(owed)
        return [one for one in self._known.values() if one.kind != ACCOUNT and _account_folder(one.folder) in accounts]

    def _accounts(self) -> Iterator[str]:
        """Every account's folder, of accounts' own trails and of organization trails."""
        for folder in self._folders(keys.logs_root(self.integration.prefix)):
            if keys.account_of_folder(folder):
                yield folder
            elif keys.is_organization_folder(folder):
                yield from (inner for inner in self._folders(folder) if keys.account_of_folder(inner))

    def _account(self, folder: str) -> Folder:
        return self._known.get(folder) or Folder(folder, keys.account_of_folder(folder) or "", found_at=self._now)

    def _explore(self, account: Folder) -> list[Folder]:
        """An account's own folder and those of its regions, asked for: no two accounts need have the same.

        Folders of other services are passed over.
        """
        found = [replace(account, listed_at=self._now)]
        try:
            for kind_folder in self._folders(account.folder):
                kind = _last(kind_folder)
                if kind.startswith(LOGS):
                    found += [
                        Folder(folder, account.account, _last(folder), kind, self._now)
                        for folder in self._folders(kind_folder)
                    ]
        except CollectError as problem:
            with self._lock:
                self._failed(problem)
            return [replace(account, refused_at=self._now)]
        with self._lock:
            self._failures = 0
        return found

    def _folders(self, prefix: str) -> list[str]:
        folders: list[str] = []
        try:
            folders.extend(self.bucket.folders(prefix))
        finally:
            self._count(cadence.requests_for(len(folders)))
        return folders

    def _remember(self, folders: list[Folder]) -> None:
        new = [one for one in folders if one.kind == ACCOUNT or one.folder not in self._known]
        self._known.update((one.folder, one) for one in new)
        self._done += new

    def _is_small(self) -> bool:
        return sum(folder.kind != ACCOUNT for folder in self._known.values()) <= SMALL_BUCKET

    # ── what of it is listed ──

    def _owed(self, due: Iterable[tuple[Folder, datetime]]) -> list[Folder]:
        """Those of the folders, each with when it is due, that are due now, the longest neglected first."""
        owed = {(at, one.folder): one for one, at in due if cadence.is_due(at, self._now)}
        return [owed[turn] for turn in sorted(owed)]

    def _affordable(self, owed: list[Folder]) -> Iterator[Task]:
        """One task after the other while the budgets last, the most overdue folder first."""
        for number, folder in enumerate(owed):
            if not self._may_go_on():
                self.found.waiting += len(owed) - number
                self.found.waiting_new += sum(one.listed_at is None for one in owed[number:])
                return
            self._promised += 1
            self.found.folders[cadence.tier(folder, self._now)] += 1
            yield self._task(folder)

    def _may_go_on(self) -> bool:
        return (
            self.found.requests + self._promised < self._allowance
            and self._answers()
            and self.clock() < self._started + timedelta(seconds=self.limits.list_seconds)
        )

    def _answers(self) -> bool:
        """Whether the bucket still does. Where many folders in a row refuse, its root tells if it is only they."""
        if self._failures >= PATIENCE:
            try:
                self._folders(keys.logs_root(self.integration.prefix))
            except CollectError:
                return False
            self._failures = 0
        return True

    def _task(self, folder: Folder) -> Task:
        """Where a folder's listing begins, and which of its times it brings up to date."""
        today = self._now.date()
        few = max(SMALL_REGION, self._few if cadence.stands_still(folder, today) else 0)
        if folder.listed_at is None or folder.day_folders <= few:
            return Task(folder, folder.folder, sweeps=True, rechecks=True)
        sweeps = cadence.is_owed(folder.swept_at, cadence.SWEEP_EVERY, self._now)
        rechecks = sweeps or cadence.is_owed(folder.rechecked_at, cadence.RECHECK_EVERY, self._now)
        days = cadence.SWEEP_DAYS if sweeps else cadence.RECHECK_DAYS if rechecks else 0
        first = cadence.first_day(today, folder.day, max(days, self.limits.lookback_days))
        return Task(folder, folder.folder, keys.day_folder(folder.folder, first), sweeps, rechecks)

    def _list(self, tasks: Iterator[Task]) -> None:
        for page in pages(self.bucket, tasks, threads=self.limits.list_threads, page=PAGE):
            self._take(page)
            if len(self._logs) >= PAGE or len(self._done) >= PAGE:
                self._hand_over()
        self._hand_over()

    def _take(self, page: Page) -> None:
        self.found.listed += page.listed
        self.found.ignored += page.ignored
        self._logs += page.logs
        if not page.is_last:
            return
        self.progress.advance()
        self._promised -= 1
        self._count(cadence.requests_for(page.seen.listed))
        if page.problem is not None:
            self._failed(page.problem)
            if page.task.keeps:
                self._done.append(replace(page.task.folder, refused_at=self._now))
            return
        self._failures = 0
        if page.task.keeps:
            self._done.append(self._listed(page.task, page.seen))

    def _listed(self, task: Task, seen: Seen) -> Folder:
        known = task.folder
        return replace(
            known,
            listed_at=self._now,
            swept_at=self._now if task.sweeps else None,
            rechecked_at=self._now if task.rechecks else None,
            day=max(filter(None, (known.day, *seen.days)), default=None),
            last_key=max(filter(None, (known.last_key, seen.last_key)), default=None),
            last_delivered_at=max(filter(None, (known.last_delivered_at, seen.last_delivered_at)), default=None),
            day_folders=max(known.day_folders, len(seen.days)),
            usual_pause=seen.longest_pause.total_seconds() if task.sweeps and seen.longest_pause else None,
        )

    def _hand_over(self) -> None:
        """Tell the ledger what was seen, and only then that it was listed: a crash in between costs a listing."""
        name, ledger = self.integration.name, self.state.ledger
        for start in range(0, len(self._logs), PAGE):
            logs = self._logs[start : start + PAGE]
            observed = ledger.observe(self.run_id, name, self.integration.bucket, logs, "listed", self._started)
            self.found.already_loaded += observed.already_loaded
            self._linked += observed.linked
            # Hinted already, or listed twice while the bucket changed: one log file all the same.
            self.found.listed -= observed.repeated
        ledger.save_listing(name, self._done, requests=self._counted, day=self._now.date())
        self._logs, self._done, self._counted = [], [], 0
        self.alive()

    def _count(self, requests: int) -> None:
        with self._lock:
            self.found.requests += requests
            self._counted += requests

    def _failed(self, problem: CollectError) -> None:
        self._failures += 1
        self.found.problem = self.found.problem or problem


def _account_folder(region_folder: str) -> str:
    """("AWSLogs/1…/CloudTrail/eu-west-1/") → "AWSLogs/1…/"."""
    return region_folder.rsplit("/", 3)[0] + "/"


def _last(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]
