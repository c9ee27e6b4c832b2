"""What a reviewer says about a detection that loads: the rules of the corpus, for the built-in ones and for yours.

Whether its SQL binds and what it returns is `kyra_etl.lake.engine.problems`' to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kyra_etl.detection.attack import table
from kyra_etl.detection.frontmatter import Detection

LEAST_STEPS, MOST_STEPS = 3, 6
MOST_LOOKBACK_DAYS = 7

_COMMENT = re.compile(r"--.*$", re.MULTILINE)
_TEXTS = r"'[^']*'(?:\s*,\s*'[^']*')*"
_NAMES = re.compile(rf"\bevent_name\s*(?:IN\s*\(|=)\s*({_TEXTS})")
_LIKE = re.compile(r"\bevent_name\s+LIKE\s+'([^'%_]+)%'")
_SOURCE = re.compile(r"\bevent_source\s*(?:=|IN\s*\()|\(event_source, event_name\) IN\s*\(")
_PAIR = re.compile(r"\('[a-z0-9.-]+\.amazonaws\.com',\s*'(\w+)'\)")
_INTERVAL = re.compile(r"\bINTERVAL (\d+) (MINUTE|HOUR|DAY)\b")
_SECONDS = {"MINUTE": 60, "HOUR": 3_600, "DAY": 86_400}
_STEP = re.compile(r"^(\d+)\. \S.*$", re.MULTILINE)
_PASTE = re.compile(r"\b(?:SELECT|aws [a-z0-9-]+|kyra [a-z]+)\b")


def lint(detection: Detection) -> list[str]:
    """What there is to say, a line each; empty when nothing."""
    said = table().problems([technique.id for technique in detection.attack], detection.attack_legacy)
    if not detection.attack:
        said.append("attack names no technique")
    for key in ("benign", "references"):
        if not getattr(detection, key):
            said.append(f"{key} is empty")
    said += [*_runbook(detection), *_names(detection), *_reach(detection)]
    for name in detection.params:
        if detection.variable(name) not in detection.sql:
            said.append(f"param {name} is never read: the SQL lacks getvariable('{detection.variable(name)}')")
    return [f"{detection.at(1)}: {text}" for text in said]


def _runbook(detection: Detection) -> Iterator[str]:
    """Steps, few and concrete."""
    if not detection.runbook:
        yield "runbook is empty"
        return
    steps = [int(number) for number in _STEP.findall(detection.runbook)]
    if not LEAST_STEPS <= len(steps) <= MOST_STEPS or steps != [*range(1, len(steps) + 1)]:
        yield f"the runbook has no {LEAST_STEPS} to {MOST_STEPS} steps, numbered 1., 2., …, a line each"
    if not _PASTE.search(detection.runbook):
        yield "the runbook has no query or command to paste: a SELECT, aws … or kyra …"


def _names(detection: Detection) -> Iterator[str]:
    """Whose calls it looks at: what the SELECT asks for must wake it, or evidence comes and nobody looks."""
    sql = _COMMENT.sub("", detection.sql)
    if "event_source" not in sql and not detection.on_alerts:
        yield "the SQL does not look at event_source: many services share names of calls"
    if not detection.event_names:
        return
    if not _SOURCE.search(sql):
        yield "the SQL names calls and holds event_source to no service: many services share names of calls"
    asked = {name for texts in _NAMES.findall(sql) for name in re.findall(r"'([^']+)'", texts)}
    asked |= set(_PAIR.findall(sql))
    if missing := asked - detection.event_names:
        yield f"event_names lacks {', '.join(sorted(missing))}, which the SQL asks for"
    for beginning in _LIKE.findall(sql):
        if not any(name.startswith(beginning) for name in detection.event_names):
            yield f"event_names has no name that begins with {beginning}, which the SQL asks for"
    words = set(re.findall(r"\w+", sql))
    begun = tuple(_LIKE.findall(sql))
    idle = {name for name in detection.event_names if name not in words and not (begun and name.startswith(begun))}
    if idle:
        yield f"event_names has {', '.join(sorted(idle))}, which the SQL never mentions"


def _reach(detection: Detection) -> Iterator[str]:
    """`events` reaches twice the lookback around a new event, so an interval may be as long as the lookback."""
    if detection.lookback.days > MOST_LOOKBACK_DAYS:
        yield f"a lookback of more than {MOST_LOOKBACK_DAYS} days reads too much: use baseline and activity"
    spans = [int(number) * _SECONDS[unit] for number, unit in _INTERVAL.findall(detection.sql)]
    if max(spans, default=0) > max(detection.lookback, detection.baseline).total_seconds():
        yield "the SQL has an INTERVAL longer than lookback and baseline: what it looks for is not there"
