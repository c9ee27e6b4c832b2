"""Simulated time. Actors are threads of which one runs at a time: the one whose turn comes first."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta


class Stopped(BaseException):
    """Another actor failed; this one has nothing left to prove."""


@dataclass(eq=False)
class Actor:
    """Somebody with a story of their own. `due` is when they go on."""

    name: str
    story: Callable[[], None]
    due: datetime
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Timeline:
    """The one clock of a simulated world. Nothing happens at the same time, and the seed decides what comes first."""

    def __init__(self, start: datetime, rng: random.Random) -> None:
        self.now = start
        self._rng = rng
        self._actors: list[Actor] = []
        self._here = threading.local()
        self._over = threading.Semaphore(0)
        self._failure: BaseException | None = None

    def add(self, name: str, story: Callable[[], None], *, at: datetime | None = None) -> None:
        """Let an actor begin at a time (now, unless told)."""
        self._actors.append(Actor(name, story, at or self.now))

    def run(self) -> None:
        """Play until every story has ended; raises what the first failing one raised."""
        threads = [
            threading.Thread(target=self._play, args=(actor,), name=actor.name, daemon=True) for actor in self._actors
        ]
        for thread in threads:
            thread.start()
        self._next().gate.release()
        self._over.acquire()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def sleep(self, seconds: float) -> None:
        """Let the others go on until so many simulated seconds have passed. Other threads than actors' do not wait."""
        actor: Actor | None = getattr(self._here, "actor", None)
        if actor is None:
            return
        actor.due = self.now + timedelta(seconds=seconds)
        following = self._next()
        if following is not actor:
            following.gate.release()
            actor.gate.acquire()
        if self._failure is not None:
            raise Stopped

    def _next(self) -> Actor:
        first = min(actor.due for actor in self._actors)
        self.now = max(self.now, first)
        return self._rng.choice([actor for actor in self._actors if actor.due == first])

    def _play(self, actor: Actor) -> None:
        self._here.actor = actor
        actor.gate.acquire()
        try:
            if self._failure is None:
                actor.story()
        except Stopped:
            pass
        except BaseException as failure:
            self._failure = self._failure or failure
        finally:
            self._actors.remove(actor)
            if self._actors:
                self._next().gate.release()
            else:
                self._over.release()
