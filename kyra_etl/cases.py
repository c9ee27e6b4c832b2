"""Cases of detections: records written in YAML, and the alerts they must raise or must not.

    detection: cloudtrail_disabled
    base: {eventSource: cloudtrail.amazonaws.com, eventName: StopLogging, eventTime: "2026-01-10T10:00:00Z", …}
    cases:
      - name: stopping a trail is high
        events: [{requestParameters: {name: main}}]
        expect: {alerts: 1, severity: high, target: main}

Each event is the base with its own fields merged into it, field by field; `!only {…}` replaces an object instead, and
`!absent` leaves a field out. `at: "+10m"` sets eventTime relative to the base's. `repeat: {days: 20}` makes one a day,
`repeat: {times: 3, seconds: 60}` some in a row. `history` is committed before, `now` is when all is loaded, and
`params`, `trails`, `accounts` and `alerts` (of other detections; `events` are positions among the case's) are what the
detection finds set.

Nothing is faked: records become gzipped JSON, are decoded, deduplicated, written as Parquet and read by the engine.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kyra_etl import resources
from kyra_etl.cloudtrail.decode import Source, decode_files
from kyra_etl.cloudtrail.records import parse_time
from kyra_etl.detection.alerts import alerts_of, by_anchor
from kyra_etl.detection.frontmatter import duration
from kyra_etl.detection.rule import Corpus, Detection, tuned
from kyra_etl.errors import DetectionError, KyraError
from kyra_etl.lake import Lake, Rows, open_lake
from kyra_etl.lake.engine import Engine
from kyra_etl.model import SEVERITIES, Alert, DataFile, Finding

FIELDS = ("severity", "account", "region", "actor", "source_ip", "target", "event_count", "summary")
"""What `expect` may say about the leading alert, besides `alerts` and `severities`; summary is a part of it.

`summary_ends` is how the summary ends, for what it must not add.
"""

_CASE_KEYS = {"name", "events", "history", "now", "params", "trails", "accounts", "alerts", "expect"}
_MAX_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Case:
    """One case: records as delivered, and what is expected of them."""

    detection: str
    name: str
    path: str
    events: tuple[Mapping[str, Any], ...]
    history: tuple[Mapping[str, Any], ...]
    now: datetime
    expect: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    trails: tuple[Mapping[str, Any], ...] = ()
    accounts: tuple[Mapping[str, Any], ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()

    @property
    def fires(self) -> bool:
        return int(self.expect["alerts"]) > 0

    def __str__(self) -> str:
        return f"{self.detection}: {self.name}"


@dataclass(frozen=True, slots=True)
class Result:
    """A case and how it went; `failures` says what differs, a line each."""

    case: Case
    alerts: tuple[Alert, ...]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures


def load_cases(dirs: Sequence[Path], only: str = "*") -> list[Case]:
    """Read `<dir>/<group>/<id>.yaml` (also `<dir>/<id>.yaml`), all or one id. Raises DetectionError naming it."""
    names = (f"{only}.yaml", f"*/{only}.yaml")
    paths = [path for folder in dirs for path in sorted(path for name in names for path in folder.glob(name))]
    return [case for path in paths for case in _read(path)]


def run_cases(cases: Iterable[Case], corpus: Corpus) -> Iterator[Result]:
    """Run cases one after the other, each against nothing but its own history."""
    with Bench() as bench:
        for case in cases:
            yield bench.run(case, corpus.get(case.detection))


class Bench:
    """A lake in a temporary folder and an engine over it, for many cases. Use as a context manager."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="kyra-cases-")
        self._lake = open_lake(self._folder.name)
        self._committed = _Committed(self._lake)
        self._known: tuple[Sequence[Mapping[str, Any]], ...] = ()
        self._engine = Engine(
            self._lake, self._committed, resources.views_dir(), trusted=resources.detections_dir(), lanes=1
        )

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()
        self._folder.cleanup()

    def run(self, case: Case, detection: Detection) -> Result:
        """Deliver a case's events together and compare the alerts with what is expected."""
        try:
            alerts = self.deliver(case, detection, [case.events])
        except KyraError as error:  # of one case; the others are run
            return Result(case, (), (str(error),))
        return Result(case, alerts, tuple(failures(case.expect, alerts)))

    def judge(self, case: Case, detections: Sequence[Detection]) -> Iterator[tuple[Alert, ...] | KyraError]:
        """The alerts of each detection, in turn, when a case's events come together; or why it could not run."""
        ready = [_set_up(detection, case) for detection in detections]
        self._begin(case)
        new = self._committed.add(case.events, case)
        self._engine.take(lambda: new, detections=ready)
        for detection in ready:
            try:
                yield tuple(alerts_of(detection, by_anchor(self._engine.evaluate(detection)).values()))
            except KyraError as error:
                yield error

    def deliver(
        self, case: Case, detection: Detection, batches: Sequence[Sequence[Mapping[str, Any]]]
    ) -> tuple[Alert, ...]:
        """The alerts after events came in these batches, each judged when it came."""
        ready = _set_up(detection, case)
        self._begin(case)
        found: dict[tuple[str, str, str], Finding] = {}
        for batch in batches:
            new = self._committed.add(batch, case)
            self._engine.take(lambda new=new: new, detections=[ready])  # type: ignore[misc]
            found |= by_anchor(self._engine.evaluate(ready))
        return tuple(alerts_of(detection, found.values()))

    def _begin(self, case: Case) -> None:
        rests_on = [{**event, "alert_id": alert["alert_id"]} for alert in case.alerts for event in alert["rests_on"]]
        known = (case.trails, case.accounts, case.alerts, rests_on)
        if known != self._known:  # nearly all cases know nothing, and the last one's relations are theirs
            self._engine.know(*known)
            self._known = known
        self._committed.begin(case)


def _set_up(detection: Detection, case: Case) -> Detection:
    """The detection with the params' defaults, whatever the user has set, and what the case sets."""
    defaults = {name: param.default for name, param in detection.params.items()}
    return tuned(detection, defaults | dict(case.params))


class _Committed:
    """A ledger in small: the data files of one case."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._files: list[DataFile] = []
        self._histories: dict[str, list[DataFile]] = {}
        self._batches = itertools.count()

    def begin(self, case: Case) -> None:
        """Start a case: nothing is there but its history, which many cases have in common."""
        self._files = []
        if case.history:
            name = f"history-{hashlib.sha256(json.dumps(case.history).encode()).hexdigest()[:12]}"
            if name not in self._histories:
                self.add(case.history, case, name)
                self._histories[name] = self._files
            self._files = list(self._histories[name])

    def add(self, records: Sequence[Mapping[str, Any]], case: Case, batch_id: str = "") -> list[DataFile]:
        """Decode, deduplicate and write records as one batch; returns its files of events."""
        batch_id = batch_id or f"batch-{next(self._batches)}"
        document = gzip.compress(json.dumps({"Records": list(records)}).encode(), 1)
        source = Source("cases", f"{batch_id}.json.gz", batch_id, case.now)
        decoded = decode_files([(0, document, source)], now=case.now, max_bytes=_MAX_BYTES)
        if decoded.files[0].malformed:
            why = decoded.files[0].malformed[0].reason
            raise DetectionError(f"{case.path}: {case.name}: {why}.", "Mend the case's record.")
        known: dict[tuple[str, date], list[DataFile]] = {}
        for file in self._files:
            if file.kind == "events" and file.account is not None and file.date is not None:
                known.setdefault((file.account, file.date), []).append(file)
        rows = Rows(decoded.events)
        distinct = self._lake.distinct(rows, known)
        files = self._lake.stage(batch_id, 1, rows.segments(distinct.keep), ())
        self._files.extend(files)
        return [file for file in files if file.kind == "events"]

    def data_files(
        self,
        kind: str,
        *,
        accounts: Collection[str] | None,
        first: date | None,
        last: date | None,
        times: tuple[datetime, datetime] | None,
    ) -> Sequence[DataFile]:
        return [
            file
            for file in self._files
            if file.kind == kind
            and (accounts is None or file.account in accounts)
            and (first is None or file.date is None or file.date >= first)
            and (last is None or file.date is None or file.date <= last)
        ]

    def historical_batches(self, batch_ids: Iterable[str]) -> set[str]:
        return {batch_id for batch_id in batch_ids if batch_id.startswith("history")}


def failures(expect: Mapping[str, Any], alerts: Sequence[Alert]) -> Iterator[str]:
    """What differs from what a case expects, a line each."""
    severities = sorted((alert.severity for alert in alerts), key=SEVERITIES.index, reverse=True)
    if len(alerts) != expect["alerts"]:
        yield f"expected {expect['alerts']} alerts, got {len(alerts)}{_listed(alerts)}"
    if "severities" in expect and severities != expect["severities"]:
        yield f"expected severities {expect['severities']}, got {severities}"
    wanted = {name: value for name, value in expect.items() if name in FIELDS}
    ending = expect.get("summary_ends", "")
    if not alerts:
        if wanted and expect["alerts"]:
            yield f"expected {wanted}"
        return
    leading = min(alerts, key=lambda alert: (-SEVERITIES.index(alert.severity), alert.first_seen))
    for name, value in wanted.items():
        got = getattr(leading, name)
        if (name == "summary" and str(value) not in (got or "")) or (name != "summary" and got != value):
            yield f"expected {name} {value!r}, got {got!r}"
    if not (leading.summary or "").endswith(ending):
        yield f"expected a summary that ends with {ending!r}, got {leading.summary!r}"


def _listed(alerts: Sequence[Alert]) -> str:
    return "".join(f"; {alert.severity} {alert.target}: {alert.summary}" for alert in alerts)


@dataclass(frozen=True, slots=True)
class _Only:
    """An object that replaces the base's instead of being merged into it."""

    value: Any


_ABSENT = object()


def _read(path: Path) -> Iterator[Case]:
    import yaml  # only whoever runs cases pays for it

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """PyYAML's parser in C, where it was built with one: reading the cases takes a fifth of the time."""

    Loader.add_constructor("!absent", lambda loader, node: _ABSENT)
    Loader.add_constructor("!only", _only)
    # Times stay texts, as they stand in records.
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DetectionError(f"{path}:{line}: not YAML: {error.problem}.", "Mend that line.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DetectionError(f"{path}:1: cannot be read: {error}.", "Mend or remove the file.") from None
    try:
        if said["detection"] != path.stem:
            raise ValueError(f"detection is {said['detection']}, the file is called {path.stem}")
        for each in said["cases"]:
            yield _case(path, said["base"], each)
    except Exception as error:  # whatever somebody wrote
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise DetectionError(f"{path}:1: {what}.", "See kyra_etl/cases.py for what a case looks like.") from error


def _only(loader: Any, node: Any) -> _Only:
    return _Only(loader.construct_mapping(node, deep=True))


def _case(path: Path, base: Mapping[str, Any], said: Mapping[str, Any]) -> Case:
    name, expect = said["name"], said["expect"]
    if not isinstance(expect, Mapping):
        raise ValueError(f"{name}: expect says nothing: write for example {{alerts: 1}}")
    for key in said.keys() - _CASE_KEYS:
        raise ValueError(f"{name}: there is no key {key}")
    for key in expect.keys() - {"alerts", "severities", "summary_ends", *FIELDS}:
        raise ValueError(f"{name}: expect has no key {key}")
    if not isinstance(expect.get("alerts"), int):
        raise ValueError(f"{name}: expect lacks alerts")
    for key in ("events", "history", "trails", "accounts", "alerts"):
        if not isinstance(said.get(key, []), list) or not all(isinstance(each, Mapping) for each in said.get(key, ())):
            raise ValueError(f"{name}: {key} is no list of objects")
    history = tuple(_records(base, said.get("history", ()), f"{path.stem}/history"))
    events = tuple(_records(base, said["events"], f"{path.stem}/{name}"))
    if not events:
        raise ValueError(f"{name}: there is no event")
    latest = max(_time(record["eventTime"]) for record in events)
    return Case(
        detection=path.stem,
        name=name,
        path=str(path),
        events=events,
        history=history,
        now=_time(said["now"]) if "now" in said else latest + timedelta(minutes=5),
        expect=expect,
        params=said.get("params") or {},
        trails=tuple(said.get("trails", ())),
        accounts=tuple(said.get("accounts", ())),
        alerts=tuple(_alert(each, events) for each in said.get("alerts", ())),
    )


def _alert(said: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An alert that another detection raised; its `events` are positions among the case's events."""
    for position in said["events"]:
        if position not in range(len(events)):
            raise ValueError(f"an alert rests on event {position}, and the last one is {len(events) - 1}")
    resting = [events[position] for position in said["events"]]
    rests_on = [
        {"event_id": each["eventID"], "event_time": _time(each["eventTime"]), "historical": False} for each in resting
    ]
    times = [each["event_time"] for each in rests_on]
    given = {"account": resting[0]["recipientAccountId"], "attack": [], "status": "open", "historical": False}
    given |= {"first_seen": min(times), "last_seen": max(times), "event_count": len(times), "rests_on": rests_on}
    given |= {"alert_id": f"{said['detection']}-{said['events']}", "event_ids": [each["event_id"] for each in rests_on]}
    return given | {key: value for key, value in said.items() if key != "events"}


def _records(base: Mapping[str, Any], items: Iterable[Mapping[str, Any]], space: str) -> Iterator[dict[str, Any]]:
    """The records of a list; an eventID that is not spelt out is the same run after run."""
    for position, said in enumerate(items):
        record = _merged(base, {key: value for key, value in said.items() if key not in ("at", "repeat")})
        begun = _time(record["eventTime"]) + _offset(said.get("at", "+0s"))
        repeat = said.get("repeat", {})
        step = timedelta(days=1) if "days" in repeat else timedelta(seconds=repeat.get("seconds", 0))
        for number in range(repeat.get("days", repeat.get("times", 1))):
            own = {"eventTime": f"{begun + number * step:%Y-%m-%dT%H:%M:%SZ}"}
            name = f"{space}/{position}/{number}/{json.dumps(record, sort_keys=True)}"
            yield {"eventID": str(uuid.uuid5(uuid.NAMESPACE_OID, name))} | record | own


def _offset(text: str) -> timedelta:
    span = duration(text[1:])
    if span is None or text[0] not in "+-":
        raise ValueError(f"at {text!r} is no offset: write for example +10m or -30d")
    return -span if text[0] == "-" else span


def _merged(base: Any, own: Any) -> Any:
    if isinstance(own, _Only):
        return own.value
    if not isinstance(base, Mapping) or not isinstance(own, Mapping):
        return own
    merged = dict(base)
    for key, value in own.items():
        if value is _ABSENT:
            merged.pop(key, None)
        else:
            merged[key] = _merged(base.get(key), value)
    return merged


def _time(text: str) -> datetime:
    moment, _ = parse_time(text)
    if moment is None:
        raise ValueError(f"{text!r} is no time")
    return moment
