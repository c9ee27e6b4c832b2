"""The search language of `kyra search`: a query becomes a condition on `events` and its parameters.

    event_name:CreateUser account:111122223333           all terms must hold
    event_name:Create* -user_name:terraform               * stands for anything; - or NOT excludes
    (event_name:StopLogging OR event_name:DeleteTrail)    OR and brackets
    error_code:* from:7d to:2026-01-31                    field:* means present; times are UTC
    event_time:>=2026-01-31T10:30 delivered_at:<2h        > >= < <= for times, and for numbers in JSON parts
    event_time:2026-01-30..2026-01-31                     a range, both ends included
    request_parameters.groupName:web                      anything below a JSON part, through lists too
    "0.0.0.0/0"                                           free text, in the main columns and the JSON parts

Fields are the columns of `events`, AWS's own names (eventName) and a few short ones. Case does not matter, neither in
field names nor in values. No value ever becomes part of the SQL text.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import reduce
from typing import Any

from kyra_etl.cloudtrail.schema import EVENT_COLUMNS, FLAG, TEXT
from kyra_etl.errors import QueryError
from kyra_etl.lake.layout import EVERYWHERE, Reach

SHORT_NAMES: Mapping[str, tuple[str, ...]] = {
    "actor": ("principal",),
    "access_key": ("user_access_key_id",),
    "error": ("error_code",),
    "ip": ("source_ip_address",),
    "name": ("event_name",),
    "region": ("aws_region",),
    "role": ("issuer_arn",),
    "service": ("event_source",),
    "source": ("event_source",),
    "source_ip": ("source_ip_address",),
    "user": ("user_name", "session_name", "principal"),
}
"""Further names of columns; of several, one has to match."""

_TYPES = {column.name: column.type for column in EVENT_COLUMNS}
_JSON_PARTS = {column.name for column in EVENT_COLUMNS if column.role == "json"}
_AWS_NAMES = {column.field.lower(): column.name for column in EVENT_COLUMNS if column.field}
_FREE_TEXT = tuple(
    column.name
    for column in EVENT_COLUMNS
    if column.type == TEXT and (column.role in ("typed", "json", "identity") or column.name in ("principal", "account"))
)
_FIELDS = {**{name: (name,) for name in _TYPES}, **SHORT_NAMES, **{k: (v,) for k, v in _AWS_NAMES.items()}}

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<open>\() | (?P<close>\))
      | (?P<not>-(?=[^\s]) | NOT(?=[\s("]|$))
      | (?P<or>OR(?=[\s("]|$)) | (?P<and>AND(?=[\s("]|$))
      | (?P<field>[A-Za-z_]\w*(?:\.[\w$@-]*)*):(?!//)(?P<value>"(?:[^"\\]|\\.)*" | [^\s()]*)
      | (?P<text>"(?:[^"\\]|\\.)*" | [^\s()]+)
    )""",
    re.VERBOSE,
)
_ESCAPES = (
    ("/", "\\/"),
    *((char, f"\\u{code}") for char in "<>&='" for code in dict.fromkeys([f"{ord(char):04x}", f"{ord(char):04X}"])),
)
"""What JSON need not escape and some of its writers do: CloudTrail itself writes \\u003csensitiveDataRemoved\\u003e."""
_SPAN = re.compile(r"(\d{1,6})(m|h|d|w)")
_SPANS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TIME_REMEDY = "Write 2026-01-31, 2026-01-31T10:30, 2h, 3d, today or yesterday (UTC)."


_COMPARED = re.compile(r"(?P<op>>=|<=|>|<)(?P<one>.+)|(?P<low>.+)\.\.(?P<high>.+)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a query asks: a condition on `events`, the parameters it names, and the partitions it can hold in."""

    where: str
    params: Mapping[str, Any]
    within: Reach = EVERYWHERE


@dataclass(frozen=True, slots=True)
class _Part:
    sql: str
    within: Reach = EVERYWHERE


def terms(query: str, *, now: datetime) -> Terms:
    """What a query asks; relative times count back from `now`. Raises QueryError."""
    parser = _Parser(query, now)
    part = parser.parse()
    return Terms(part.sql, parser.params, part.within)


def moment(text: str, *, now: datetime, end: bool = False) -> datetime:
    """A moment as people write it, naive UTC: a date, a date and time, a span back from `now`, now, today, yesterday.

    With `end`, a date means the end of that day. Raises QueryError.
    """
    word = text.strip()
    if word.lower() == "now":
        return now
    days = {"today": now.date(), "yesterday": now.date() - timedelta(days=1)}
    try:
        if span := _SPAN.fullmatch(word.lower()):
            return now - timedelta(**{_SPANS[span[2]]: int(span[1])})
        if word.lower() in days or re.fullmatch(r"\d{4}-\d{2}-\d{2}", word):
            day = days.get(word.lower()) or date.fromisoformat(word)
            return datetime.combine(day, time()) + timedelta(days=int(end))
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}.*", word):
            exact = datetime.fromisoformat(word)
            return exact.astimezone(UTC).replace(tzinfo=None) if exact.tzinfo else exact
    except (ValueError, OverflowError):
        pass
    raise QueryError(f"{text!r} is not a time.", _TIME_REMEDY)


@dataclass
class _Parser:
    """Recursive descent over tokens: any := all (OR all)*; all := term+; term := NOT term | ( any ) | predicate."""

    query: str
    now: datetime
    params: dict[str, Any] = field(default_factory=dict)
    tokens: list[re.Match[str]] = field(default_factory=list)
    at: int = 0

    def parse(self) -> _Part:
        self.tokens = self._tokens()
        if not self.tokens:
            return _Part("true")
        part = self._any()
        if self.at < len(self.tokens):
            raise QueryError("There is a ) without its (.", 'Quote it if it is text: ")".')
        return part

    def param(self, value: Any) -> str:
        """The place of a value in the SQL."""
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f"${name}"

    def _tokens(self) -> list[re.Match[str]]:
        tokens, position = [], 0
        text = self.query.rstrip()
        while position < len(text):
            token = _TOKEN.match(text, position)
            if token is None or token.end() == position:
                raise QueryError(f"The query cannot be read from {text[position:][:40]!r} on.", 'Quote it: "…".')
            for part in (token["value"], token["text"]):
                if part and part.startswith('"') and (len(part) < 2 or not part.endswith('"')):
                    raise QueryError(f"A quotation mark is not closed: {part[:40]}", "Put a second one behind it.")
            tokens.append(token)
            position = token.end()
        return tokens

    def _next(self, *kinds: str) -> re.Match[str] | None:
        """The token at hand, when it is of one of these kinds; it is then used up."""
        if self.at < len(self.tokens) and any(self.tokens[self.at][kind] for kind in kinds):
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def _any(self) -> _Part:
        parts = [self._all()]
        while self._next("or"):
            parts.append(self._all())
        return _joined(" OR ", parts, widest)

    def _all(self) -> _Part:
        parts = [self._term()]
        while self.at < len(self.tokens) and not (self.tokens[self.at]["or"] or self.tokens[self.at]["close"]):
            self._next("and")
            parts.append(self._term())
        return _joined(" AND ", parts, narrowest)

    def _term(self) -> _Part:
        if self._next("not"):
            # a comparison with NULL is neither true nor false, and its negation should find those rows
            return _Part(f"NOT coalesce({self._term().sql}, false)")
        if self._next("open"):
            inner = self._any()
            if not self._next("close"):
                raise QueryError("A ( is not closed.", "Put a ) behind it.")
            return inner
        if token := self._next("field"):
            return self._field(token["field"], token["value"])
        if token := self._next("text"):
            return _Part(self._free_text(*_unquoted(token["text"])))
        raise QueryError("A term is missing after NOT, OR, AND or (.", 'Quote the word if it is text: "OR".')

    def _field(self, name: str, raw: str) -> _Part:
        value, quoted = _unquoted(raw)
        key = name.lower()
        if key == "arn":  # an ARN pasted as it is
            return _Part(self._free_text(f"{name}:{value}", quoted))
        if not value and not quoted:
            raise QueryError(f"{name}: has no value.", f'Write {name}:value, or {name}:* for "present".')
        if key in ("from", "since"):
            return self._between("event_time", moment(value, now=self.now), None)
        if key in ("to", "until"):
            return self._between("event_time", None, moment(value, now=self.now, end=True))
        part, dot, path = name.partition(".")
        columns = _FIELDS.get(part.lower())
        if columns is None:
            raise _unknown(name)
        if dot:
            return _Part(self._below(name, columns[0], path, value, quoted))
        parts = [self._column(column, value, quoted) for column in columns]
        if len(parts) == 1:
            return parts[0]
        return _Part(f"({' OR '.join(f'coalesce({part.sql}, false)' for part in parts)})")

    def _column(self, column: str, value: str, quoted: bool) -> _Part:
        if value == "*" and not quoted:
            return _Part(f"{column} IS NOT NULL")
        kind = _TYPES[column]
        if kind == FLAG:
            return _Part(f"{column} = {self.param(_flag(column, value))}")
        if kind != TEXT:
            if column == "date" and "*" in value and not quoted:
                return _Part(f"CAST({column} AS VARCHAR) LIKE {self._pattern(value)} ESCAPE '\\'")
            return self._between(column, *_times(column, value, self.now))
        if not quoted and value.startswith((">", "<")):
            raise QueryError(f"{column} is a text, it has no order.", f'Quote it if the value begins so: "{value}".')
        if column in _JSON_PARTS:
            return _Part(self._holds(column, value, quoted))
        if "*" in value and not quoted:
            return _Part(f"{column} ILIKE {self._pattern(value)} ESCAPE '\\'")
        if column == "account":
            return _Part(f"{column} = {self.param(value)}", Reach(accounts=frozenset({value})))
        return _Part(f"lower({column}) = lower({self.param(value)})")

    def _between(self, column: str, start: datetime | None, end: datetime | None) -> _Part:
        """A time from `start` to before `end`; of an event's own time the folders follow."""
        first = start.date() if start else None
        last = (end - timedelta(microseconds=1)).date() if end else None
        tests = []
        if column != "date":
            tests += [f"{column} >= {self.param(start)}"] if start else []
            tests += [f"{column} < {self.param(end)}"] if end else []
        within = EVERYWHERE
        if column in ("date", "event_time"):
            within = Reach(first, last)
            tests += [f"date >= {self.param(first)}"] if first else []
            tests += [f"date <= {self.param(last)}"] if last else []
        return _Part(f"({' AND '.join(tests)})", within)

    def _below(self, name: str, column: str, path: str, value: str, quoted: bool) -> str:
        """Anything under `column` reached by the path's keys, whatever lists lie between."""
        if column not in _JSON_PARTS:
            raise QueryError(f"{name}: {column} has no parts.", f"Parts have: {', '.join(sorted(_JSON_PARTS))}.")
        if not all(path.split(".")):
            raise QueryError(f"{name} is not a path.", "Write it as request_parameters.groupName:value.")
        steps = "$" + "".join(f'.."{step}"' for step in path.split("."))
        found = f"json_extract_string({column}, {self.param(steps)})"
        if value == "*" and not quoted:
            return f"len({found}) > 0"
        if not quoted and (test := self._number_test(value)):
            return f"len(list_filter({found}, lambda x: {test})) > 0"
        text = re.escape(value)
        pattern = f"(?im)^{text if quoted else text.replace(re.escape('*'), '.*')}$"
        return f"regexp_matches(array_to_string({found}, '\n'), {self.param(pattern)})"

    def _number_test(self, value: str) -> str | None:
        """A comparison of x with numbers; None when the value is none."""
        compared = _COMPARED.fullmatch(value)
        if compared is None:
            return None
        bounds = (
            [(compared["op"], compared["one"])]
            if compared["op"]
            else [(">=", compared["low"]), ("<=", compared["high"])]
        )
        if not all(_NUMBER.fullmatch(number) for _, number in bounds):
            return None
        return " AND ".join(f"TRY_CAST(x AS DOUBLE) {op} {self.param(float(number))}" for op, number in bounds)

    def _free_text(self, value: str, quoted: bool) -> str:
        if not value:
            raise QueryError("The text to look for is empty.", "Leave it out.")
        return self._holds(f"concat_ws('\n', {', '.join(_FREE_TEXT)})", value, quoted)

    def _holds(self, text: str, value: str, quoted: bool) -> str:
        """Whether a text that may be, or hold, JSON has the value in it, however JSON spells it."""
        # A character may be an escape: é is \\u00e9, a quotation mark \\"
        spellings = dict.fromkeys([value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]])
        pattern = _quoted_like if quoted else _like
        patterns = [self.param(f"%{pattern(spelling)}%") for spelling in spellings]
        tests = [f"{text} ILIKE {each} ESCAPE '\\'" for each in patterns]
        escapes = [(self.param(escape), self.param(char)) for char, escape in _ESCAPES if char in value]
        if escapes:  # nearly no text has any of them, and to see that is quick
            plain = reduce(lambda sql, each: f"replace({sql}, {each[0]}, {each[1]})", escapes, text)
            again = " OR ".join(f"{plain} ILIKE {each} ESCAPE '\\'" for each in patterns)
            some = " OR ".join(f"contains({text}, {escape})" for escape, _ in escapes)
            tests.append(f"(({some}) AND ({again}))")
        return tests[0] if len(tests) == 1 else f"({' OR '.join(tests)})"

    def _pattern(self, value: str) -> str:
        return self.param(_like(value))


def widest(one: Reach, other: Reach) -> Reach:
    """The partitions of either."""
    return Reach(
        None if one.first is None or other.first is None else min(one.first, other.first),
        None if one.last is None or other.last is None else max(one.last, other.last),
        None if one.accounts is None or other.accounts is None else frozenset({*one.accounts, *other.accounts}),
    )


def narrowest(one: Reach, other: Reach) -> Reach:
    """The partitions of both."""
    accounts = [set(reach.accounts) for reach in (one, other) if reach.accounts is not None]
    return Reach(
        max(filter(None, (one.first, other.first)), default=None),
        min(filter(None, (one.last, other.last)), default=None),
        frozenset(set.intersection(*accounts)) if accounts else None,
    )


def _joined(word: str, parts: Sequence[_Part], reach: Callable[[Reach, Reach], Reach]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    return _Part(f"({word.join(part.sql for part in parts)})", reduce(reach, (part.within for part in parts)))


def _times(column: str, value: str, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The time from … to before … that a value means: a comparison, a range, or the day, minute or second it names."""
    compared = _COMPARED.fullmatch(value)
    if compared is None:
        if _SPAN.fullmatch(value.lower()):
            raise QueryError(f"{column}:{value} is a single moment.", f"Write {column}:>={value} for all since then.")
        return moment(value, now=now), _end_of(value, now)
    if compared["op"] is None:
        return moment(compared["low"], now=now), _end_of(compared["high"], now)
    after = compared["op"] in (">=", ">")
    at = moment(compared["one"], now=now) if compared["op"] in (">=", "<") else _end_of(compared["one"], now)
    return (at, None) if after else (None, at)


def _end_of(text: str, now: datetime) -> datetime:
    """The end of the day, minute, second or microsecond that a text names."""
    start, end = moment(text, now=now), moment(text, now=now, end=True)
    if end > start:
        return end
    clock = re.search(r"[T ]\d{2}:\d{2}(:\d{2})?(\.\d+)?", text)
    if clock is None or clock[2]:
        return start + timedelta(microseconds=1)
    return start + (timedelta(seconds=1) if clock[1] else timedelta(minutes=1))


def _unquoted(raw: str) -> tuple[str, bool]:
    if raw.startswith('"'):
        return re.sub(r"\\(.)", r"\1", raw[1:-1]), True
    return raw, False


def _quoted_like(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


def _like(text: str) -> str:
    return _quoted_like(text).replace("*", "%")


def _flag(column: str, value: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if value.lower() not in words:
        raise QueryError(f"{column} is true or false, not {value!r}.", f"Write {column}:true.")
    return words[value.lower()]


def _unknown(name: str) -> QueryError:
    names = sorted({*_TYPES, *SHORT_NAMES, "from", "to"})
    part = name.partition(".")[0].lower()
    near = difflib.get_close_matches(part, [*names, *_AWS_NAMES], n=1, cutoff=0.6)
    meant = f"Did you mean {_AWS_NAMES.get(near[0], near[0])}? " if near else ""
    return QueryError(f"There is no field {name!r}.", f'{meant}If it is text, quote all of it: "{name}:…".')
