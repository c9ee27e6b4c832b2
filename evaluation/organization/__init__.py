"""A benign organization of our own making: five accounts, thirty days, nothing wrong anywhere.

Seeded: the same seed makes the same records. Each source of noise is one that sets off some detection as soon as what
keeps that detection quiet is taken away: `evaluation/guards.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from evaluation.organization import people, pipelines, services
from evaluation.organization.calls import ACCOUNTS, BEGIN, Day, Record

__all__ = ["ACCOUNTS", "BEGIN", "DAYS", "SEED", "SOURCES", "records"]

SEED = 20260302
DAYS = 30

SOURCES: Mapping[str, Callable[[Day], Iterator[Record]]] = {
    "fan_out": services.fan_out,
    "scaling": services.scaling,
    "backups": services.backups,
    "console": people.console,
    "terraform": pipelines.terraform,
    "delivery": pipelines.delivery,
    "programs": pipelines.programs,
}


def records(
    *,
    seed: int = SEED,
    accounts: Collection[str] = tuple(ACCOUNTS),
    days: Collection[int] = range(DAYS),
    sources: Collection[str] = tuple(SOURCES),
) -> Iterator[Record]:
    """The records of these accounts (by name), days and sources; a part of them is a part of the whole."""
    for number in days:
        for name in accounts:
            for source in sources:
                yield from SOURCES[source](Day(seed, source, name, number))
