"""An S3 bucket in memory: what it holds is a matter of time. Pages, faults and a clock as S3's."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, takewhile

from kyra_etl.errors import AccessError, KyraError, ObjectError, ObjectGone, TransientError
from kyra_etl.model import LogFile
from tests.simulation.process import Process


@dataclass(frozen=True)
class Delivery:
    """An object put at a time; the next delivery of the same key overwrites it. `gone` is when it is deleted."""

    key: str
    body: bytes
    at: datetime
    gone: datetime | None = None

    @property
    def etag(self) -> str:
        return hashlib.md5(self.body).hexdigest()


LISTING: dict[str, Callable[[], KyraError]] = {
    "500": lambda: TransientError("S3 failed on its side."),
    "503": lambda: TransientError("S3 asks us to slow down."),
    "timeout": lambda: TransientError("S3 did not answer in time."),
    "403": lambda: AccessError("Listing is refused."),
}
READING: dict[str, Callable[[], KyraError]] = {
    "500": lambda: ObjectError("server_error", "S3 failed on its side."),
    "503": lambda: ObjectError("throttled", "S3 asks us to slow down."),
    "timeout": lambda: TransientError("S3 did not answer in time."),
    "interrupted": lambda: ObjectError("interrupted", "The body broke off."),
    "403": lambda: ObjectError("access_denied", "Reading is refused."),
    "kms": lambda: ObjectError("kms_denied", "The key may not be used."),
}
TRUNCATED = "truncated"


class SimBucket:
    """A `LogBucket` as one process sees it."""

    def __init__(self, name: str, deliveries: Iterable[Delivery], process: Process, page: int) -> None:
        self.name = name
        self._process, self._page = process, page
        self._versions: dict[str, list[Delivery]] = {}
        for delivery in sorted(deliveries, key=lambda each: (each.key, each.at)):
            self._versions.setdefault(delivery.key, []).append(delivery)
        self._sorted = sorted(self._versions)

    def folders(self, prefix: str) -> Iterator[str]:
        last = ""
        while True:
            with self._process.stepping("list folders"):
                self._process.fault("list", LISTING)
                found = {
                    prefix + key[len(prefix) :].split("/")[0] + "/" for key in self._keys(prefix) if _below(key, prefix)
                }
                page = sorted(folder for folder in found if folder > last)[: self._page]
            yield from page
            if len(page) < self._page:
                return
            last = page[-1]

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        last = start_after
        while True:
            with self._process.stepping("list"):
                self._process.fault("list", LISTING)
                page = sorted(key for key in self._keys(prefix) if key > last)[: self._page]
                files = [self._file(key) for key in page]
            yield from files
            if len(page) < self._page:
                return
            last = page[-1]

    def read(self, key: str) -> bytes:
        with self._process.stepping("get"):
            self._process.fault("get", READING)
            version = self._current(key)
            if version is None:
                raise ObjectGone(f"{key} is not there.")
            body = version.body
            if body.startswith(b"\x1f\x8b") and self._process.fate.fault("body", (TRUNCATED,)):
                body = body[: len(body) * 2 // 3]
        return body

    def now(self) -> datetime:
        with self._process.stepping("ask time"):
            self._process.fault("list", LISTING)
        return self._process.fate.timeline.now

    def _current(self, key: str) -> Delivery | None:
        now = self._process.fate.timeline.now
        there = [version for version in self._versions.get(key, ()) if version.at <= now]
        return there[-1] if there and (there[-1].gone is None or there[-1].gone > now) else None

    def _keys(self, prefix: str) -> list[str]:
        first = bisect_left(self._sorted, prefix)
        there = takewhile(lambda key: key.startswith(prefix), islice(self._sorted, first, None))
        return [key for key in there if self._current(key) is not None]

    def _file(self, key: str) -> LogFile:
        version = self._current(key)
        assert version is not None
        return LogFile(key, version.etag, len(version.body), version.at)


def _below(key: str, prefix: str) -> bool:
    return "/" in key[len(prefix) :]
