"""A detection's file: TOML front matter in the leading `--` lines, then one SELECT. Rows it returns are findings.

    -- ---
    -- title = "CloudTrail Disabled"
    -- …
    -- ---
    SELECT …

The SQL is taken as it stands; whether it binds and what it returns is `kyra_etl.lake.engine`'s to say.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, cast

from kyra_etl.errors import DetectionError
from kyra_etl.model import SEVERITIES, Severity

FENCE = "-- ---"
MOST_TECHNIQUES = 3

REQUIRED = ("title", "severity", "attack", "about", "group_by", "group_window")
OPTIONAL = (
    *(
        "attack_legacy",
        "benign",
        "event_names",
        "only_named",
        "needs",
        "lookback",
        "baseline",
        "params",
        "runbook",
        "references",
    ),
)

PARAM_TYPES: Mapping[str, tuple[type, str]] = {
    "str": (str, "VARCHAR"),
    "int": (int, "BIGINT"),
    "float": (float, "DOUBLE"),
    "bool": (bool, "BOOLEAN"),
}

LONGEST = timedelta(days=36_600)
"""The longest a duration may be: a hundred years before the first event is still a time."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d{1,10})([smhd])")
_PARAM = re.compile(r"[a-z_][a-z0-9_]*")
_TECHNIQUE = re.compile(r"T\d{4}(\.\d{3})?")
_LINE = re.compile(r"at line (\d+)")
_PARTS = re.compile(r"'[^']*'|--[^\n]*|[()]")
"""What counts when parentheses are matched: themselves, and texts and comments that may hold others."""


@dataclass(frozen=True, slots=True)
class Attack:
    """An ATT&CK technique, and why this detection is a sign of it."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class Param:
    """A tunable: `type` is str, int, float, bool or a list[…] of them; `value` is what is in force."""

    name: str
    type: str
    default: Any
    value: Any
    about: str = ""

    @property
    def sql_type(self) -> str:
        """Its type in DuckDB."""
        if self.type.startswith("list["):
            return f"{PARAM_TYPES[self.type[5:-1]][1]}[]"
        return PARAM_TYPES[self.type][1]


@cache
def _reads_alerts(sql: str) -> bool:
    return re.search(r"^(?!\s*--).*\b(FROM|JOIN) alerts\b", sql, re.MULTILINE) is not None


@dataclass(frozen=True, slots=True)
class Detection:
    """One detection, as its file says. `sql` is the SELECT, beginning at line `sql_line` of `path`."""

    id: str
    group: str
    path: str
    title: str
    severity: Severity
    attack: tuple[Attack, ...]
    about: str
    sql: str
    sql_line: int
    group_by: tuple[str, ...]
    group_window: timedelta
    attack_legacy: tuple[str, ...] = ()
    benign: tuple[str, ...] = ()
    event_names: frozenset[str] = frozenset()
    """Names that can make it fire; empty means any."""
    only_named: bool = False
    """`events` holds events of these names alone, so that many detections share one reading."""
    needs: str = ""
    """A CTE of the SELECT without whose rows there is no finding: while it is empty, the rest is not even planned."""
    lookback: timedelta = timedelta()
    baseline: timedelta = timedelta()
    params: Mapping[str, Param] = field(default_factory=dict)
    runbook: str = ""
    references: tuple[str, ...] = ()

    def concerns(self, names: set[str]) -> bool:
        """Whether events of these names can make it fire."""
        return not self.event_names or not self.event_names.isdisjoint(names)

    @property
    def on_alerts(self) -> bool:
        """Whether it reads the relation `alerts`: such a detection runs after all others."""
        return _reads_alerts(self.sql)

    @property
    def sql_of_needs(self) -> str:
        """The SELECT up to the CTE it needs, asking whether that has a row; empty when it needs none."""
        if not self.needs:
            return ""
        return f"{self.sql[: _end_of_cte(self.sql, self.needs)]}\nSELECT 1 FROM {self.needs}"

    def variable(self, param: str) -> str:
        """The name its SQL reads a param by: `getvariable('<id>_<param>')`."""
        return f"{self.id}_{param}"

    def at(self, line: int | None = None) -> str:
        """`file:line` for messages."""
        return f"{self.path}:{line or self.sql_line}"


def parse(text: str, *, id: str, group: str, path: str) -> Detection:
    """Read one file's text. Raises DetectionError naming file and line."""
    front, sql, sql_line = _split(text, path)
    try:
        said = tomllib.loads(front)
    except tomllib.TOMLDecodeError as error:
        found = _LINE.search(str(error))
        line = int(found[1]) + 1 if found else sql_line - 2
        raise DetectionError(f"{path}:{line}: the front matter is not TOML: {error}.", "Mend that line.") from None
    return _Reader(path, front, said).detection(id, group, sql, sql_line)


def id_of(title: str) -> str:
    """snake_case of a title: "S3 Bucket Public" → s3_bucket_public."""
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def duration(text: str) -> timedelta | None:
    """ "15m", "1h", "30d" → timedelta, up to LONGEST; None for anything else."""
    match = _DURATION.fullmatch(text)
    if not match or int(match[1]) > LONGEST / timedelta(**{_UNITS[match[2]]: 1}):
        return None
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _split(text: str, path: str) -> tuple[str, str, int]:
    lines, number = text.split("\n"), 1
    if lines[0].rstrip() != FENCE:
        raise DetectionError(f"{path}:1: there is no front matter.", f"Begin the file with a line `{FENCE}`.")
    for number, line in enumerate(lines[1:], 2):
        if line.rstrip() == FENCE:
            front = [each.removeprefix("--").removeprefix(" ") for each in lines[1 : number - 1]]
            sql = "\n".join(lines[number:]).rstrip()
            if not sql.strip():
                raise DetectionError(f"{path}:{number}: there is no SQL below the front matter.", "Write one SELECT.")
            return "\n".join(front), sql, number + 1
        if not line.startswith("--"):
            break
    raise DetectionError(f"{path}:{number}: the front matter does not end.", f"Close it with a line `{FENCE}`.")


def _end_of_cte(sql: str, name: str) -> int | None:
    """Where the CTE of that name ends, behind its closing parenthesis; None when there is none."""
    begin = re.search(rf'(?:\bWITH|,)\s+(?:--[^\n]*\s+)*"?{re.escape(name)}"? AS (?:MATERIALIZED )?\(', sql)
    depth = 1
    for part in _PARTS.finditer(sql, begin.end()) if begin else ():
        depth += {"(": 1, ")": -1}.get(part[0], 0)
        if not depth:
            return part.end()
    return None


class _Reader:
    """Checks what the front matter says, value by value; every complaint carries the line of its key."""

    def __init__(self, path: str, front: str, said: Mapping[str, Any]) -> None:
        self._path = path
        self._lines = front.splitlines()
        self._said = said

    def detection(self, id_: str, group: str, sql: str, sql_line: int) -> Detection:
        for key in self._said:
            if key not in REQUIRED and key not in OPTIONAL:
                self._wrong(key, f"there is no key {key}", f"Known are: {', '.join((*REQUIRED, *OPTIONAL))}.")
        for key in REQUIRED:
            if key not in self._said:
                self._wrong("title", f"{key} is missing", "Add it to the front matter.")
        title = self._text("title")
        if id_of(title) != id_:
            self._wrong("title", f"the title makes {id_of(title)}, the file is called {id_}", "Rename one of them.")
        severity = self._text("severity")
        if severity not in SEVERITIES:
            self._wrong("severity", f"severity {severity!r} is none", f"Say one of {', '.join(SEVERITIES)}.")
        group_by = tuple(name.lower() for name in self._texts("group_by"))  # names of columns, to SQL
        if "account" not in group_by:
            self._wrong("group_by", "group_by lacks account", "An alert belongs to one account.")
        window = self._duration("group_window")
        if not window:
            self._wrong("group_window", "group_window must not be zero", 'For example "1h".')
        return Detection(
            id=id_,
            group=group,
            path=self._path,
            title=title,
            severity=cast(Severity, severity),
            attack=self._attack(),
            about=self._text("about"),
            sql=sql,
            sql_line=sql_line,
            group_by=group_by,
            group_window=window,
            attack_legacy=self._texts("attack_legacy"),
            benign=self._texts("benign"),
            event_names=frozenset(self._texts("event_names")),
            only_named=self._only_named(),
            needs=self._needs(sql),
            lookback=self._duration("lookback"),
            baseline=self._duration("baseline"),
            params=self._params(),
            runbook=self._text("runbook").strip(),
            references=self._texts("references"),
        )

    def _text(self, key: str) -> str:
        value = self._said.get(key, "")
        if not isinstance(value, str) or (key in REQUIRED and not value.strip()):
            self._wrong(key, f"{key} must be a text", "Put it in quotes.")
        return str(value)

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self._said.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self._wrong(key, f"{key} must be a list of texts", f'For example {key} = ["…"].')
        return tuple(value)

    def _duration(self, key: str) -> timedelta:
        value = self._said.get(key, "0s")
        span = duration(value) if isinstance(value, str) else None
        if span is None:
            self._wrong(
                key,
                f"{key} {value!r} is no duration",
                f'Write for example "15m", "1h" or "30d", up to {LONGEST.days}d.',
            )
        assert span is not None
        return span

    def _only_named(self) -> bool:
        value = self._said.get("only_named", False)
        if not isinstance(value, bool) or (value and not self._said.get("event_names")):
            self._wrong("only_named", "only_named is true or false, and needs event_names", "Leave it out.")
        return bool(value)

    def _needs(self, sql: str) -> str:
        name = self._text("needs")
        if name and _end_of_cte(sql, name) is None:
            self._wrong("needs", f"the SELECT has no CTE called {name}", "Name one of its WITH list, or leave it out.")
        return name

    def _attack(self) -> tuple[Attack, ...]:
        rows = self._said["attack"]
        shape = 'Write [{id = "T1078.004", why = "…"}].'
        if not isinstance(rows, list) or len(rows) > MOST_TECHNIQUES:
            self._wrong("attack", f"attack must be a list of at most {MOST_TECHNIQUES} techniques", shape)
        for row in rows:
            if not isinstance(row, dict) or set(row) != {"id", "why"} or not all(map(_is_text, row.values())):
                self._wrong("attack", "each technique needs an id and a why, and nothing else", shape)
            if not _TECHNIQUE.fullmatch(row["id"]):
                self._wrong("attack", f"{row['id']!r} is no technique's id", shape)
        return tuple(Attack(row["id"], row["why"]) for row in rows)

    def _params(self) -> dict[str, Param]:
        declared = self._said.get("params", {})
        shape = 'Write params = { name = { type = "list[str]", default = [], about = "…" } }.'
        if not isinstance(declared, dict):
            self._wrong("params", "params must be a table", shape)
        params = {}
        for name, row in declared.items():
            if not _PARAM.fullmatch(name):
                self._wrong("params", f"a param cannot be called {name}", "Use small letters, digits and _ only.")
            if not isinstance(row, dict) or not {"type", "default"} <= set(row) <= {"type", "default", "about"}:
                self._wrong("params", f"param {name} needs a type and a default", shape)
            if _fits(row["type"], row["default"]) is None:
                known = ", ".join((*PARAM_TYPES, *(f"list[{name}]" for name in PARAM_TYPES)))
                self._wrong("params", f"param {name} has a type that is none of {known}", shape)
            if not _fits(row["type"], row["default"]):
                self._wrong("params", f"the default of param {name} is no {row['type']}", shape)
            params[name] = Param(name, row["type"], row["default"], row["default"], row.get("about", ""))
        return params

    def _wrong(self, key: str, what: str, remedy: str) -> None:
        start = re.compile(rf"\s*{re.escape(key)}\s*[=.]")
        line = next((number for number, text in enumerate(self._lines, 2) if start.match(text)), 1)
        raise DetectionError(f"{self._path}:{line}: {what}.", remedy)


def fits(param: Param, value: Any) -> bool:
    """Whether a setting has the type its param declares."""
    return bool(_fits(param.type, value))


def _fits(type_: Any, value: Any) -> bool | None:
    """None when there is no such type."""
    if not isinstance(type_, str):
        return None
    if type_.startswith("list[") and type_.endswith("]"):
        inner = type_[5:-1]
        if inner not in PARAM_TYPES:
            return None
        return isinstance(value, list) and all(_fits(inner, item) for item in value)
    if type_ not in PARAM_TYPES:
        return None
    if type_ == "float":
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if type_ == "int":
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, PARAM_TYPES[type_][0])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
