"""List many folders at once, a page at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import islice

from kyra_etl.cloudtrail import keys
from kyra_etl.errors import CollectError
from kyra_etl.model import Folder, LogFile
from kyra_etl.ports import LogBucket

AHEAD = 2
"""Pages asked for ahead, by thread: with the page's size this bounds the memory of a listing of any length."""


@dataclass(slots=True)
class Found:
    """What listing saw, while it goes on: `listed == already_loaded + linked to the run + ignored`."""

    listed: int = 0
    already_loaded: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    """LIST requests made."""
    folders: Counter[str] = field(default_factory=Counter)
    """Folders listed, by tier."""
    waiting: int = 0
    """Folders that were due, and are left to the next run by a budget."""
    waiting_new: int = 0
    """Of those, the ones that were never listed."""
    problem: CollectError | None = None
    """Why a folder could not be listed, the first of them; the others were."""


@dataclass(frozen=True, slots=True)
class Task:
    """A folder to list: its keys below `prefix` that come after `start_after`.

    `sweeps` and `rechecks` say which looking back it does, `keeps` whether it counts as a listing of the folder.
    """

    folder: Folder
    prefix: str
    start_after: str = ""
    sweeps: bool = False
    rechecks: bool = False
    keeps: bool = True


@dataclass(slots=True)
class Seen:
    """What a listing saw so far."""

    listed: int = 0
    days: set[date] = field(default_factory=set)
    last_key: str | None = None
    last_delivered_at: datetime | None = None
    longest_pause: timedelta | None = None
    """Between one delivery and the next."""

    def delivered(self, at: datetime) -> None:
        """Takes a log file's time in; keys come nearly in order of time, so the latest so far is the one before."""
        before = self.last_delivered_at
        if before is None or at > before:
            self.last_delivered_at = at
            if before is not None:
                self.longest_pause = max(at - before, self.longest_pause or timedelta())


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a folder's listing: its log files, and how many other objects of which kind."""

    task: Task
    seen: Seen
    listed: int
    logs: tuple[LogFile, ...]
    ignored: Counter[str]
    is_last: bool
    problem: CollectError | None = None
    """Why the folder could not be listed further."""


def pages(bucket: LogBucket, tasks: Iterator[Task], *, threads: int, page: int) -> Iterator[Page]:
    """Every page of every task, as they come. Tasks are taken one by one, only when they can begin soon.

    A folder that cannot be listed ends with a page that says why, and the others go on.
    """
    waiting: deque[tuple[_Listing, Future[Page]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="list") as pool:
        while True:
            while len(waiting) < threads * AHEAD and (task := next(tasks, None)) is not None:
                listing = _Listing(bucket, task, page)
                waiting.append((listing, pool.submit(listing.turn)))
            if not waiting:
                return
            listing, future = waiting.popleft()
            got = future.result()
            if not got.is_last:
                waiting.append((listing, pool.submit(listing.turn)))
            yield got


class _Listing:
    """One folder's listing; each turn reads a page, in whichever thread."""

    def __init__(self, bucket: LogBucket, task: Task, page: int) -> None:
        self._task, self._page = task, page
        self._files = bucket.files(task.prefix, task.start_after)
        self._seen = Seen()

    def turn(self) -> Page:
        problem: CollectError | None = None
        files: list[LogFile] = []
        try:
            files.extend(islice(self._files, self._page))
        except CollectError as error:
            problem = error
        seen, logs, ignored = self._seen, [], Counter[str]()
        seen.listed += len(files)
        for file in files:
            info = keys.parse_key(file.key, file.size)
            if info.day is not None:
                seen.days.add(info.day)
            if info.kind != "log":
                ignored[info.kind] += 1
                continue
            logs.append(replace(file, account=info.account, region=info.region, day=info.day))
            seen.last_key = max(filter(None, (seen.last_key, file.key)))
            if file.last_modified is not None:
                seen.delivered(file.last_modified)
        is_last = problem is not None or len(files) < self._page
        return Page(self._task, seen, len(files), tuple(logs), ignored, is_last, problem)
