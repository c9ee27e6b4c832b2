"""The seams to the outside world, as small protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from kyra_etl.model import LogFile, Message

Clock = Callable[[], datetime]
"""Tells the time as a naive UTC datetime."""


class LogBucket(Protocol):
    """A bucket of log files, read-only. `kyra_etl.aws.bucket` and `kyra_etl.folder` implement it.

    Raises AccessError, TransientError or CollectError from listing; ObjectError from `read`.
    """

    name: str

    def folders(self, prefix: str) -> Iterator[str]:
        """The common prefixes one level below `prefix` ("a/" → "a/b/"), complete and paginated."""
        ...

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        """Every object below `prefix` in key order, with etag, size and last_modified.

        With `start_after`, only those whose key comes after it, which costs nothing for those before.
        """
        ...

    def read(self, key: str) -> bytes:
        """The object's bytes as stored (still compressed)."""
        ...

    def now(self) -> datetime:
        """The bucket server's clock, naive UTC."""
        ...


class NoticeQueue(Protocol):
    """A queue that is told of new log files. `kyra_etl.aws.queue` implements it.

    Raises AccessError, TransientError or CollectError.
    """

    def receive(self, wait_seconds: int) -> list[Message]:
        """Some messages, hidden from others for a while; none when there were none for so long."""
        ...

    def delete(self, messages: Sequence[Message]) -> None:
        """Take messages out of the queue for good."""
        ...

    def confirm(self, topic_arn: str, token: str) -> None:
        """Confirm that the queue may be subscribed to the topic."""
        ...


class Spread(Protocol):
    """Has planned batches loaded by other processes, of this machine or others; flows implement it."""

    def __call__(self, batch_ids: Sequence[str], alive: Callable[[], object]) -> None:
        """Return when every batch was tried; `alive` is called meanwhile. Raises the first KyraError of any."""
        ...


class Progress(Protocol):
    """Tells a waiting person how far long work is; the command line draws it, tests ignore it."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage of the work begins, of `total` steps where that is known."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Some steps of the current stage are done."""
        ...


class Silent:
    """The Progress nobody watches."""

    def stage(self, name: str, total: int | None = None) -> None:
        return None

    def advance(self, steps: int = 1) -> None:
        return None
