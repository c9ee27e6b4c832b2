"""The parts of the evaluation, each measured on its own: what was seen, what was asked for, whether it holds."""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from evaluation import labelled, organization
from evaluation.detonations import Verdict, judge, techniques
from evaluation.road import Played, Record, play, read
from kyra_etl.detection.rule import Corpus
from kyra_etl.model import SEVERITIES, Alert

VERIFIED = Path(__file__).parent / "verified.toml"

AGREEMENT = 0.9
LEAST_RULES = 60
MOST_IN_INVICTUS = 40
MOST_IN_BOOGY_PARSER = 5
MOST_IN_A_WEEK = 2


@dataclass(slots=True)
class Part:
    """A part as it is reported: lines to read, targets and whether each is met, and what fired."""

    title: str
    lines: list[str] = field(default_factory=list)
    targets: list[tuple[str, bool]] = field(default_factory=list)
    fired: set[str] = field(default_factory=set)
    verdicts: list[Verdict] = field(default_factory=list)

    def volume(self, alerts: Sequence[Alert], account_days: int) -> None:
        """How many alerts, by severity, in all and a day and account."""
        counts = Counter(alert.severity for alert in alerts)
        self.fired |= {alert.detection for alert in alerts}
        said = ", ".join(f"{counts[severity]} {severity}" for severity in reversed(SEVERITIES))
        each = ", ".join(f"{counts[severity] / account_days:.2f}" for severity in reversed(SEVERITIES))
        self.lines.append(f"alerts: {said}; an account and day: {each} ({account_days} account-days)")


def stratus(corpus: Corpus, data: Path) -> Part:
    """Nineteen detonations of Stratus Red Team, each into an empty lake."""
    part = Part("Detonations of single techniques (cases/stratus_cases)")
    truths = techniques("stratus")
    for case in read(data / "cases" / "stratus_cases.ndjson.gz"):
        played = play(case["events"], corpus)
        part.fired |= {alert.detection for alert in played.alerts}
        part.verdicts.append(judge(truths[case["technique"]], case["events"], played))
    _recall(part)
    return part


def invictus(corpus: Corpus, data: Path) -> Part:
    """An hour of attacks on one account, with Terraform setting up and tearing down in between."""
    part = Part("An attack run (records/invictus)")
    records, played = _recording(data, "invictus", corpus)
    part.volume(played.alerts, _account_days(records))
    part.verdicts = [judge(technique, records, played) for technique in techniques("invictus").values()]
    _recall(part)
    loud = len(played.at_least("medium"))
    part.targets.append((f"{loud} of at most {MOST_IN_INVICTUS} alerts at medium or above", loud <= MOST_IN_INVICTUS))
    return part


def boogy_parser(corpus: Corpus, data: Path) -> Part:
    """Records as production makes them."""
    part = Part("Records like production's (records/boogy_parser)")
    records, played = _recording(data, "boogy_parser", corpus)
    part.volume(played.alerts, _account_days(records))
    part.lines += [f"{alert.severity} {alert.detection}: {alert.summary}" for alert in played.at_least("medium")]
    loud = len(played.at_least("medium"))
    part.targets.append((f"{loud} of at most {MOST_IN_BOOGY_PARSER} at medium or above", loud <= MOST_IN_BOOGY_PARSER))
    return part


def panther(corpus: Corpus, data: Path) -> Part:
    """Labelled cases of rules whose subject we cover."""
    part = Part("Cases that others labelled (cases/panther_cases, without mocks)")
    rules, left_out = labelled.covered(), labelled.left_out()
    cases = list(read(data / "cases" / "panther_cases.ndjson.gz"))
    answers = list(labelled.answers(cases, corpus))
    part.fired |= {detection for answer in answers for detection, _ in answer.alerts}
    agreed = sum(answer.agrees for answer in answers)
    for answer in answers:
        why = rules[answer.rule].looked_at.get(answer.number)
        if not answer.agrees:
            said = "yes" if answer.said else "no"
            part.lines.append(f"{answer.rule} {answer.number}: we say {said}. {why or 'Nobody has looked at it yet.'}")
            part.targets += [] if why else [(f"{answer.rule} {answer.number} looked at", False)]
        elif why:
            part.targets.append((f"{answer.rule} {answer.number} is no disagreement any more: strike it", False))
    asked = {answer.rule for answer in answers}
    part.lines += [f"{rule} is left out. {why}" for rule, why in sorted(left_out.items())]
    part.targets.append(
        (f"{len(asked)} of at least {LEAST_RULES} rules covered", asked == rules.keys() and len(asked) >= LEAST_RULES)
    )
    whole = {case["rule_id"] for case in cases if not case["mocks"]} == asked | left_out.keys()
    part.targets.append((f"{len(left_out)} left out, each with its reason", whole and not asked & left_out.keys()))
    part.targets.append(
        (f"{agreed} of {len(answers)} answers agree ({agreed / len(answers):.1%})", agreed / len(answers) >= AGREEMENT)
    )
    return part


def benign(corpus: Corpus, data: Path) -> Part:
    """The organization in which nothing is wrong; needs no data from elsewhere."""
    accounts, days = len(organization.ACCOUNTS), organization.DAYS
    part = Part(f"Benign organization ({accounts} accounts, {days} days, seed {organization.SEED})")
    played = play(organization.records(), corpus)
    part.lines.append(f"{played.events:,} events, loaded and judged in {played.seconds:.0f} seconds")
    part.volume(played.alerts, accounts * days)
    part.lines += [
        f"{alert.severity} {alert.first_seen:%Y-%m-%d} {alert.detection}: {alert.summary}"
        for alert in sorted(played.at_least("medium"), key=lambda alert: alert.first_seen)
    ]
    part.targets += calm(played)
    return part


def calm(played: Played) -> Iterator[tuple[str, bool]]:
    """What is asked of a benign organization: nothing high, and at most so many mediums an account and week."""
    weeks: Counter[tuple[str, int]] = Counter()
    for alert in played.at_least("medium"):
        weeks[alert.account, (alert.first_seen - organization.BEGIN).days // 7] += 1
    worst = max(weeks.values(), default=0)
    grave = len(played.at_least("high"))
    yield f"{grave} of at most 0 alerts at high or critical", grave == 0
    yield f"{worst} of at most {MOST_IN_A_WEEK} at medium in the worst week of an account", worst <= MOST_IN_A_WEEK


PARTS: Mapping[str, Callable[[Corpus, Path], Part]] = {
    "stratus": stratus,
    "invictus": invictus,
    "boogy_parser": boogy_parser,
    "panther": panther,
    "benign": benign,
}

WITHOUT_DATA = ("benign",)
"""Parts that need nothing but this repository."""


def verified(parts: Sequence[Part]) -> dict[str, dict[str, list[str]]]:
    """ATT&CK id → detection that names it → the techniques whose detonation it caught at medium or above."""
    found: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for part in parts:
        for verdict in part.verdicts:
            for id_, detection in verdict.by:
                found[id_][detection].add(verdict.technique.id)
    return {id_: {one: sorted(by[one]) for one in sorted(by)} for id_, by in sorted(found.items())}


def recorded() -> dict[str, dict[str, list[str]]]:
    """What `verified.toml` says."""
    return tomllib.loads(VERIFIED.read_text(encoding="utf-8"))


def record(found: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Write `verified.toml`."""
    lines = [
        "# ATT&CK ids that a recorded detonation verifies, the detections that name them, and the techniques caught.",
        '# Computed: make evaluate ARGS="--write stratus invictus". docs/detections.md shows it, a test holds it.',
    ]
    for id_, by in found.items():
        lines += ["", f'["{id_}"]']
        for detection, caught in by.items():
            lines += [f"{detection} = [", *(f'  "{one}",' for one in caught), "]"]
    VERIFIED.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _recording(data: Path, name: str, corpus: Corpus) -> tuple[list[Record], Played]:
    records: list[Record] = list(read(data / "records" / f"{name}.ndjson.gz"))
    return records, play(records, corpus)


def _account_days(records: Sequence[Record]) -> int:
    return len({(one.get("recipientAccountId"), date.fromisoformat(one["eventTime"][:10])) for one in records})


def _recall(part: Part) -> None:
    for verdict in part.verdicts:
        by = ", ".join(sorted({f"{alert.severity} {alert.detection}" for alert in verdict.alerts}))
        part.lines.append(f"{'caught' if verdict.caught else 'MISSED'}  {verdict.technique.id}: {by or 'nothing'}")
    caught = sum(verdict.caught for verdict in part.verdicts)
    part.targets.append((f"{caught} of {len(part.verdicts)} techniques caught", caught == len(part.verdicts)))
