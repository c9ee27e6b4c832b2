"""The pinned MITRE ATT&CK table: which technique ids are valid, and what became of those that were revoked.

Customers, tickets and peers still speak in revoked ids, so a detection names today's id in `attack` and may keep the
one everybody knows in `attack_legacy`. https://attack.mitre.org/resources/updates/
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Technique:
    """A technique or sub-technique: `url` is its page."""

    id: str
    name: str
    tactics: tuple[str, ...] = ()
    revoked_by: str | None = None

    @property
    def url(self) -> str:
        return f"https://attack.mitre.org/techniques/{self.id.replace('.', '/')}/"


@dataclass(frozen=True, slots=True)
class Table:
    """One version of ATT&CK, as far as detections need it."""

    version: str
    techniques: Mapping[str, Technique]
    revoked: Mapping[str, Technique]

    def problems(self, attack: Sequence[str], legacy: Sequence[str]) -> list[str]:
        """What is wrong with a detection's ids; empty when nothing is."""
        found = []
        for id_ in attack:
            if id_ in self.revoked:
                successor = self.revoked[id_].revoked_by
                found.append(f"{id_} is revoked in ATT&CK v{self.version}: name {successor}, keep it in attack_legacy")
            elif id_ not in self.techniques:
                found.append(f"{id_} is not in the pinned ATT&CK v{self.version} table")
        for id_ in legacy:
            if id_ not in self.revoked:
                found.append(f"{id_} in attack_legacy is not a revoked id")
            elif self.revoked[id_].revoked_by not in attack:
                found.append(f"{id_} in attack_legacy has its successor {self.revoked[id_].revoked_by} not in attack")
        return found


@cache
def table() -> Table:
    """The pinned table, shipped beside this module."""
    data = tomllib.loads((resources.files(__package__) / "attack_v19.toml").read_text(encoding="utf-8"))
    return Table(
        version=data["version"],
        techniques={id_: Technique(id_, row["name"], tuple(row["tactics"])) for id_, row in data["techniques"].items()},
        revoked={id_: Technique(id_, row["name"], (), row["by"]) for id_, row in data["revoked"].items()},
    )
