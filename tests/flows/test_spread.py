"""How a run waits for the batches that others load: what counts as done, and what as lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Completed, Failed, Running

from flows import spread
from kyra_etl.errors import StateError, TransientError


class Batch(PrefectConcurrentFuture[Any]):
    """A batch under way; `while_asked` goes on while Prefect's server is asked how far it is."""

    def __init__(self, *while_asked: State[Any] | Exception) -> None:
        super().__init__(uuid4(), Future())
        self.meanwhile: Iterator[State[Any] | Exception] = iter(while_asked)

    @property
    def state(self) -> State[Any]:
        if self._final_state is not None:
            return self._final_state
        known: State[Any] = Running()
        for ends in self.meanwhile:
            if isinstance(ends, Exception):
                self.wrapped_future.set_exception(ends)
            else:
                self.wrapped_future.set_result(ends)
        return known


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "EVERY", 0.01)


def test_a_batch_that_ends_while_the_server_is_asked_about_it_is_not_lost() -> None:
    slow = TransientError("Slow down.")

    assert spread._ended(Batch(Completed()), lambda: None) is None
    assert spread._ended(Batch(Failed(data=slow)), lambda: None) is slow


def test_a_batch_whose_worker_died_is_lost() -> None:
    died = BrokenProcessPool("terminated abruptly")
    before = Batch()
    before.wrapped_future.set_exception(died)

    for batch in (before, Batch(died)):
        error = spread._ended(batch, lambda: None)
        assert isinstance(error, StateError)
        assert str(error) == "A worker died of a batch. Its log files wait; the next run loads them."
