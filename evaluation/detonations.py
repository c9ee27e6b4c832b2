"""Recorded attacks: which techniques are caught, by a detection mapped to them, on the calls that identify them.

`truths/*.toml` are ours: technique → the ATT&CK ids one of which the detection must name, and either the calls
(`service:EventName`) or the ids of the events that show the technique. An alert that rests on none of these does not
count, whatever it says; nor does one below medium.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.road import Played, Record
from kyra_etl.model import Alert

TRUTHS = Path(__file__).parent / "truths"


@dataclass(frozen=True, slots=True)
class Technique:
    """One technique of a recording, as its truth file says."""

    id: str
    attack: frozenset[str]
    calls: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()

    def identifying(self, records: Iterable[Record]) -> set[str]:
        """Ids of the events that show this technique."""
        return {one["eventID"] for one in records if one["eventID"] in self.events or call(one) in self.calls}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A technique and the alerts, at medium or above, that caught it: `by` names ATT&CK id and detection."""

    technique: Technique
    alerts: tuple[Alert, ...]

    @property
    def caught(self) -> bool:
        return bool(self.alerts)

    @property
    def by(self) -> set[tuple[str, str]]:
        return {(id_, one.detection) for one in self.alerts for id_ in self.technique.attack.intersection(one.attack)}


def techniques(name: str) -> dict[str, Technique]:
    """The truths of a recording, by technique. `name` is a file of `truths/`, without its suffix."""
    said = tomllib.loads((TRUTHS / f"{name}.toml").read_text(encoding="utf-8"))
    return {
        id_: Technique(id_, *(frozenset(row.get(key, ())) for key in ("attack", "calls", "events")))
        for id_, row in said.items()
    }


def judge(technique: Technique, records: Sequence[Record], played: Played) -> Verdict:
    """Whether the technique was caught among these records."""
    shown = technique.identifying(records)
    if not shown:
        raise ValueError(f"{technique.id}: none of the records shows it")
    return Verdict(
        technique,
        tuple(
            alert
            for alert in played.at_least("medium")
            if technique.attack.intersection(alert.attack) and shown.intersection(alert.event_ids)
        ),
    )


def call(record: Mapping[str, object]) -> str:
    """`ec2:RunInstances` of a record."""
    return f"{str(record.get('eventSource')).partition('.')[0]}:{record.get('eventName')}"
