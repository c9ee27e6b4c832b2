"""How far a long run is, as a bar on its page."""

from __future__ import annotations

import logging
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

log = logging.getLogger("kyra_etl.flows")


class ProgressArtifact:
    """A bar of `total` steps, counted in `unit`. A bar that cannot be drawn never stops the work."""

    def __init__(self, key: str, total: int, unit: str) -> None:
        self._key, self._total, self._unit = key, total, unit
        self._done = 0
        self._artifact: UUID | None = None
        self._show(f"0 of {total} {unit}")

    def advance(self) -> None:
        """One more step is done."""
        self._done += 1
        self._show(f"{self._done} of {self._total} {self._unit}")

    def finish(self, what: str) -> None:
        """All is done; `what` came of it."""
        self._done = self._total
        self._show(what)

    def _show(self, text: str) -> None:
        percent = 100.0 * self._done / max(self._total, 1)
        try:
            if self._artifact is None:
                made = create_progress_artifact(percent, key=self._key, description=text)
                self._artifact = made if isinstance(made, UUID) else None  # a coroutine only where a loop runs
            else:
                update_progress_artifact(self._artifact, progress=percent, description=text)
        except Exception as error:  # whatever keeps the server from answering just now
            log.debug("Progress not shown: %s", error)
