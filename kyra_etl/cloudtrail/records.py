"""One record ↔ one row, without loss.

A typed column holds a field's value where the value can be rebuilt from it. Where it cannot (another type, an odd time,
a name nobody has heard of) the field's own text goes into `extra` under its own name, and rules when the record is
rebuilt. Free-form parts are their own text. So every record comes back key by key and digit by digit; only an explicit
null in a typed field may come back as absent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from kyra_etl.cloudtrail.schema import EVENT_COLUMNS

ABSENT = msgspec.Raw()

TYPED = {column.field: column for column in EVENT_COLUMNS if column.role == "typed"}
JSON_PARTS = {column.field: column.name for column in EVENT_COLUMNS if column.role == "json" and column.field}

_OTHERS = ("addendum", "annotation", "edgeDeviceDetails", "eventContext", "insightDetails")
"""Fields AWS documents that are too rare for a column: known, so that they stay on the quick path."""

HASH_PREFIX = "sha256:"


def _annotation(name: str) -> tuple[str, Any, Any]:
    return name, bool | None if name in ("readOnly", "managementEvent") else str | None, None


Record = msgspec.defstruct(
    "Record",
    [
        *(_annotation(name) for name in TYPED),
        *((name, msgspec.Raw, ABSENT) for name in (*JSON_PARTS, *_OTHERS)),
    ],
    forbid_unknown_fields=True,
    gc=False,
)
"""A record whose typed fields have their documented types and whose other fields are known: nearly every record."""

_record = msgspec.json.Decoder(Record)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_bool = msgspec.json.Decoder(bool)
_encode = msgspec.json.Encoder().encode

_CANONICAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_SHORTEST_TIME = len("20260304T050607Z")
EARLIEST = datetime(1990, 1, 1)


class MalformedRecord(ValueError):
    """The record is no event; the text says why."""


def read(raw: bytes) -> tuple[Any, bytes | None]:
    """A record's bytes → (Record, text of `extra` or None). Raises MalformedRecord.

    The quick path takes records of the documented shape; `_read_leniently` takes any JSON object, and gives the same
    for those.
    """
    try:
        record = _record.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read_leniently(raw)
    except RecursionError as error:
        raise MalformedRecord("nested too deeply") from error
    others = [(name, part) for name in _OTHERS if (part := getattr(record, name))]
    return record, _object(others)


def _read_leniently(raw: bytes) -> tuple[Any, bytes | None]:
    try:
        fields = _fields.decode(raw)
    except RecursionError as error:
        raise MalformedRecord("nested too deeply") from error
    except msgspec.ValidationError as error:
        raise MalformedRecord("not a JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRecord(f"not JSON ({error})") from error
    record = Record()
    others: list[tuple[str, msgspec.Raw]] = []
    for name, part in fields.items():
        if name in JSON_PARTS:
            setattr(record, name, part)
        elif name in TYPED:
            value, exact = _typed(name, part)
            if name == "eventTime" and not exact:
                raise MalformedRecord("no valid eventTime")
            setattr(record, name, value)
            if not exact:
                others.append((name, part))
        else:
            others.append((name, part))
    return record, _object(others)


def _typed(name: str, part: msgspec.Raw) -> tuple[Any, bool]:
    """A typed field's best value, and whether the value alone rebuilds the field."""
    text = bytes(part)
    if text == b"null":
        return None, True
    if name in ("readOnly", "managementEvent"):
        try:
            return _bool.decode(part), True
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {b'"true"': True, b'"false"': False}.get(text.lower()), False
    try:
        return _text.decode(part), True
    except (msgspec.DecodeError, UnicodeDecodeError):
        return (text.decode() if text[:1] not in b'{["' else None), False


def _object(members: list[tuple[str, msgspec.Raw]]) -> bytes | None:
    if not members:
        return None
    return b"{" + b",".join(_encode(name) + b":" + bytes(part) for name, part in members) + b"}"


@lru_cache(maxsize=65_536)
def parse_time(text: str | None) -> tuple[datetime | None, bool]:
    """(naive UTC time or None, whether `format_time` gives the same text back)."""
    if not text:
        return None, False
    try:
        if _CANONICAL_TIME.fullmatch(text):
            return datetime.fromisoformat(text[:-1]), True
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None, False
    if len(text) < _SHORTEST_TIME:
        return None, False
    try:
        # Tools that pass records on drop the zone; CloudTrail's times are UTC.
        return (moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment), False
    except OverflowError:
        return None, False


def format_time(moment: datetime) -> str:
    """The way CloudTrail writes times: 2026-03-04T05:06:07Z."""
    return f"{moment.isoformat(timespec='seconds')}Z"


def with_extra(extra: bytes | None, name: str, value: str) -> bytes:
    """`extra` with one more field."""
    member = _encode(name) + b":" + _encode(value)
    return b"{" + member + b"}" if extra is None else extra[:-1] + b"," + member + b"}"


def hash_id(raw: bytes) -> str:
    """An id for a record that has none: the SHA-256 of the record, whatever its spacing and the order of its keys.

    Of its bytes where `json` cannot read it: damaged, or nested too deeply.
    """
    try:
        value = json.loads(raw, parse_float=_Number, parse_int=_Number)
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str).encode()
    except (ValueError, RecursionError):
        canonical = raw
    return HASH_PREFIX + hashlib.sha256(canonical).hexdigest()


class _Number(str):
    """A number kept as its text, so that 1.0 and 1 differ."""


def rebuild(row: Mapping[str, Any]) -> str:
    """The record a row of `events` was made from, as JSON text.

    `row` needs the columns of `schema.RECORD_COLUMNS`; `event_time` is a naive UTC datetime.
    """
    members: dict[str, str] = {}
    for name, column in TYPED.items():
        value = row[column.name]
        if value is None or (name == "eventID" and value.startswith(HASH_PREFIX)):
            continue
        members[name] = json.dumps(format_time(value) if name == "eventTime" else value, ensure_ascii=False)
    for name, column_name in JSON_PARTS.items():
        if row[column_name] is not None:
            members[name] = row[column_name]
    if row["extra"] is not None:
        for name, part in _fields.decode(row["extra"]).items():
            members[name] = bytes(part).decode()
    return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{text}" for name, text in members.items()) + "}"
