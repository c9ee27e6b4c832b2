"""Doing things over and over while something else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Looping:
    """Calls each of these again and again, in a thread of its own, until the block ends. Keeps what they raise."""

    def __init__(self, *calls: Callable[[], None]) -> None:
        self.problems: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._loop, args=(call,)) for call in calls]

    def __enter__(self) -> Looping:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _loop(self, call: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                call()
            except Exception as error:
                self.problems.append(repr(error))
