"""What AWS charges: one dated table, shipped beside this module, which settings may correct."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for one of each; `as_of` says how old the table is, `own` which prices the settings gave."""

    as_of: str
    usd: Mapping[str, float]
    own: tuple[str, ...] = ()

    def of(self, what: str, number: float) -> float:
        """What so many cost."""
        return self.usd[what] * number

    def corrected(self, own: Mapping[str, float]) -> Prices:
        """With these prices instead of the table's."""
        return replace(self, usd={**self.usd, **own}, own=tuple(sorted(own)))


@cache
def table() -> Prices:
    """The shipped table."""
    data = tomllib.loads((resources.files(__package__) / "prices.toml").read_text(encoding="utf-8"))
    return Prices(data["as_of"], data["usd"])
