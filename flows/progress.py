"""How far a long run is, as a bar on its page."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

log = logging.getLogger("kyra_etl.flows")

EVERY = 5.0
"""Seconds between two updates within a day's work."""


class ProgressArtifact:
    """A bar of `total` days, and the stage its day is at. A bar that cannot be drawn never stops the work.

    It is a Progress (kyra_etl.ports) for the journey, which tells its stages; `advance_day` is told of each day done.
    """

    def __init__(self, key: str, total: int) -> None:
        self._key, self._total = key, total
        self._done, self._stage, self._steps, self._of = 0, "", 0, 0
        self._artifact: UUID | None = None
        self._shown_at = 0.0
        self._show(f"0 of {total} days")

    def stage(self, name: str, total: int | None = None) -> None:
        self._stage, self._steps, self._of = name, 0, total or 0
        self._show_sometimes()

    def advance(self, steps: int = 1) -> None:
        self._steps += steps
        self._show_sometimes()

    def advance_day(self, what: str) -> None:
        """One more day is done; `what` came of all so far."""
        self._done, self._steps, self._of = self._done + 1, 0, 0
        self._show(f"{self._done} of {self._total} days: {what}")

    def finish(self, what: str) -> None:
        """All is done; `what` came of it."""
        self._done, self._of = self._total, 0
        self._show(what)

    def _show_sometimes(self) -> None:
        if time.monotonic() - self._shown_at >= EVERY:
            self._show(f"{self._stage} {self._steps:,} of {self._of:,}" if self._of else self._stage)

    def _show(self, text: str) -> None:
        within = min(self._steps / self._of, 1.0) if self._of else 0.0
        percent = min(100.0, 100.0 * (self._done + within) / max(self._total, 1))
        self._shown_at = time.monotonic()
        try:
            if self._artifact is None:
                made = create_progress_artifact(percent, key=self._key, description=text)
                self._artifact = made if isinstance(made, UUID) else None  # a coroutine only where a loop runs
            else:
                update_progress_artifact(self._artifact, progress=percent, description=text)
        except Exception as error:  # whatever keeps the server from answering just now
            log.debug("Progress not shown: %s", error)
