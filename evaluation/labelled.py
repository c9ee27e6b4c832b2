"""Cases that others labelled: does a detection of ours say yes and no where theirs does?

`truths/panther.toml` names the rules whose subject we cover, by id, with our detections for it and, by the case's
number (in the order of the file, cases with mocks left out), each disagreement we have looked at: who is right, and
why; and the rules that are left out, with the reason. None of their text is here.

We say yes to a case where one of the detections named for its rule raises an alert at the severity of the rule, or
above; of rules above medium, medium is enough. In any other case we say no. The same holds whatever the label is: an
alert as loud as theirs where theirs keeps silent is a disagreement, and so is one that is too low where theirs speaks.

A rule that counts is asked as often as it counts. What no real record lacks (a time, an id, an account, somebody who
called) is supplied where a case has none. No case has a history: what ours calls usual after a day is new there.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from evaluation.detonations import TRUTHS
from evaluation.road import NOW, neutral, ranked
from kyra_etl.cases import Bench, Case
from kyra_etl.cloudtrail.records import parse_time
from kyra_etl.detection.rule import Corpus

ACCOUNT = "123456789012"
SOMEBODY = {
    "type": "AssumedRole",
    "principalId": "AROAEXAMPLE:session",
    "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/Somebody/session",
    "accountId": ACCOUNT,
    "accessKeyId": "ASIAEXAMPLE",
    "sessionContext": {"sessionIssuer": {"type": "Role", "arn": f"arn:aws:iam::{ACCOUNT}:role/Somebody"}},
}


@dataclass(frozen=True, slots=True)
class Covered:
    """A rule whose subject we cover: `looked_at` says of each known disagreement who is right, and why."""

    rule: str
    detections: tuple[str, ...]
    looked_at: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """One case: what the label says, what we say, and by which alerts."""

    rule: str
    number: int
    expected: bool
    said: bool
    alerts: tuple[tuple[str, str], ...]

    @property
    def agrees(self) -> bool:
        return self.expected == self.said


def covered() -> dict[str, Covered]:
    """The rules we answer for, by id."""
    return {
        rule: Covered(
            rule, tuple(row["detections"]), {int(number): why for number, why in row.get("looked_at", {}).items()}
        )
        for rule, row in _said().items()
        if rule != "left_out"
    }


def left_out() -> Mapping[str, str]:
    """The rules we do not answer for, by id, and why not."""
    return dict(_said()["left_out"])


def _said() -> Mapping[str, Any]:
    return tomllib.loads((TRUTHS / "panther.toml").read_text(encoding="utf-8"))


def answers(cases: Sequence[Mapping[str, Any]], corpus: Corpus) -> Iterator[Answer]:
    """Ask the detections named for each rule about each of its cases without mocks."""
    rules = covered()
    numbers: dict[str, int] = {}
    with Bench() as bench:
        for said in cases:
            rule = said["rule_id"]
            if said["mocks"] or rule not in rules:
                continue
            numbers[rule] = numbers.get(rule, 0) + 1
            alerts = [
                (alert.detection, alert.severity)
                for id_ in rules[rule].detections
                for alert in _alerts(bench, corpus, id_, said, numbers[rule])
            ]
            enough = min(ranked(said["severity"].lower()), ranked("medium"))
            fired = any(ranked(severity) >= enough for _, severity in alerts)
            yield Answer(rule, numbers[rule], said["expected"], fired, tuple(sorted(set(alerts))))


def _alerts(bench: Bench, corpus: Corpus, id_: str, said: Mapping[str, Any], number: int) -> Sequence[Any]:
    records = tuple(_records(said["log"], said["threshold"] or 1, number))
    case = Case(id_, said["rule_id"], "panther_cases", records, (), NOW, {"alerts": 0})
    return bench.deliver(case, corpus.get(id_), [records])


def _records(log: Mapping[str, Any], times: int, number: int) -> Iterator[dict[str, Any]]:
    """The case's record, once for each time its rule wants it, a second apart."""
    account = str(log.get("recipientAccountId") or "")
    if account and not (account.isdigit() and len(account) == 12):
        log = json.loads(json.dumps(log).replace(account, ACCOUNT))
    begun = (parse_time(log["eventTime"])[0] if log.get("eventTime") else None) or datetime(2024, 1, 1)
    whole = {"recipientAccountId": ACCOUNT, **neutral(log), "userIdentity": log.get("userIdentity") or SOMEBODY}
    for time in range(times):
        yield {
            **whole,
            "eventID": f"case-{number}-{time}",
            "eventTime": f"{begun + timedelta(seconds=time):%Y-%m-%dT%H:%M:%SZ}",
        }
