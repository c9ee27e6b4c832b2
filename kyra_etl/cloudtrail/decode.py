"""Bytes of a log file → events and malformed records. Pure: the same bytes give the same table.

The quick path is measured (docs/performance.md): inflate with isal, one typed decode a record with msgspec, free-form
parts as slices of the document, small chunks so that Python's objects stay in the processor's cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa

from kyra_etl.cloudtrail import identity
from kyra_etl.cloudtrail.framing import frame, inflate
from kyra_etl.cloudtrail.records import (
    EARLIEST,
    HASH_PREFIX,
    JSON_PARTS,
    TYPED,
    MalformedRecord,
    hash_id,
    parse_time,
    read,
    with_extra,
)
from kyra_etl.cloudtrail.schema import EVENTS, SOURCE_TYPE
from kyra_etl.model import UNKNOWN_ACCOUNT

CHUNK = 2_000
"""Records converted at a time."""

AHEAD = timedelta(days=2)
"""An eventTime later than this after loading is no time."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a log file came from: the provenance columns, and the accounts to fall back on."""

    integration: str
    source_key: str
    batch_id: str
    delivered_at: datetime | None = None
    key_account: str | None = None
    integration_account: str | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that is no event: its place in the file, why, and its bytes as delivered."""

    position: int
    reason: str
    record: bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """`records == events.num_rows + len(malformed)`; `events` has the schema `schema.EVENTS`."""

    records: int
    events: pa.Table
    malformed: tuple[Malformed, ...]
    sha256: str
    uncompressed: int


def decode(data: bytes, source: Source, *, now: datetime, max_bytes: int) -> Decoded:
    """Decode one log file as stored. Raises DecodeError when the bytes are none.

    `now` (naive UTC) bounds eventTime; `max_bytes` bounds the uncompressed size.
    """
    document = inflate(data, max_bytes)
    framed = frame(document)
    latest = now + AHEAD
    malformed = [Malformed(position, "not JSON", line) for position, line in framed.broken]
    chunks: list[pa.RecordBatch] = []
    for start in range(0, len(framed.records), CHUNK):
        rows = _Rows(source, latest)
        for position, raw in enumerate(framed.records[start : start + CHUNK], start):
            try:
                rows.add(raw)
            except MalformedRecord as reason:
                malformed.append(Malformed(position, str(reason), raw))
        chunks.append(rows.to_arrow())
    return Decoded(
        records=len(framed.records) + len(framed.broken),
        events=pa.Table.from_batches(chunks, EVENTS),
        malformed=tuple(malformed),
        sha256=hashlib.sha256(document).hexdigest(),
        uncompressed=len(document),
    )


_NAMES = tuple(EVENTS.names)
_FIELDS = tuple(TYPED)
_TYPED_NAMES = tuple(column.name for column in TYPED.values())


class _Rows:
    """Rows of one chunk, column by column."""

    def __init__(self, source: Source, latest: datetime) -> None:
        self._source = source
        self._latest = latest
        self._columns: dict[str, list[Any]] = {name: [] for name in _NAMES}
        self._append: dict[str, Callable[[Any], None]] = {name: cells.append for name, cells in self._columns.items()}

    def add(self, raw: bytes) -> None:
        """Append one record's row, or raise MalformedRecord and append nothing."""
        record, extra = read(raw)
        moment, canonical = parse_time(record.eventTime)
        if moment is None:
            raise MalformedRecord("no valid eventTime" if record.eventTime else "no eventTime")
        if not EARLIEST <= moment <= self._latest:
            raise MalformedRecord(f"eventTime {record.eventTime} is out of bounds")
        try:
            parts = {name: _text(getattr(record, field)) for field, name in JSON_PARTS.items()}
            extra_text = extra.decode() if extra is not None else None
        except UnicodeDecodeError as error:
            raise MalformedRecord("not UTF-8") from error
        if not canonical and (extra is None or b'"eventTime":' not in extra):
            extra_text = _with(extra_text, "eventTime", record.eventTime)
        event_id = record.eventID
        if not event_id:
            extra_text = extra_text if event_id is None else _with(extra_text, "eventID", event_id)
            event_id = hash_id(raw)
        elif event_id.startswith(HASH_PREFIX):
            extra_text = _with(extra_text, "eventID", event_id)

        append = self._append
        for field, name in zip(_FIELDS, _TYPED_NAMES, strict=True):
            append[name](getattr(record, field))
        self._columns["event_time"][-1] = moment
        self._columns["event_id"][-1] = event_id
        for name, text in parts.items():
            append[name](text)
        append["extra"](extra_text)
        self._add_actor(record, moment.date())

    def _add_actor(self, record: Any, day: date) -> None:
        append = self._append
        raw_identity = bytes(record.userIdentity)
        who = identity.identity_of(raw_identity) if raw_identity else identity.NOBODY
        for name, value in zip(who._fields, who, strict=True):
            append[name](value)
        response = record.responseElements
        append["success"](
            identity.is_success(
                record.eventName, record.eventSource, record.errorCode, record.errorMessage, bytes(response)
            )
        )
        append["denied"](identity.is_denied(record.errorCode))
        append["actor_kind"](identity.actor_kind(who, record.eventType, record.sourceIPAddress))
        append["principal"](identity.principal(who))
        append["access_key_kind"](identity.access_key_kind(who.user_access_key_id))
        source_kind, source_net = identity.source(record.sourceIPAddress)
        append["source_kind"](source_kind)
        append["source_net"](source_net)
        append["is_write"](identity.is_write(record.readOnly, record.eventName))
        append["account"](self._account(record.recipientAccountId, who.user_account_id))
        append["date"](day)

    def _account(self, recipient: str | None, caller: str | None) -> str:
        source = self._source
        for account in (recipient, source.key_account, caller, source.integration_account):
            if account is not None and is_account(account):
                return account
        return UNKNOWN_ACCOUNT

    def to_arrow(self) -> pa.RecordBatch:
        source = self._source
        rows = len(self._columns["date"])
        constants = {
            "source_type": SOURCE_TYPE,
            "integration": source.integration,
            "source_key": source.source_key,
            "delivered_at": source.delivered_at,
            "batch_id": source.batch_id,
        }
        arrays = [
            pa.repeat(pa.scalar(constants[field.name], field.type), rows)
            if field.name in constants
            else pa.array(self._columns[field.name], field.type)
            for field in EVENTS
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=EVENTS)


def is_account(text: str) -> bool:
    """Exactly 12 ASCII digits: all that may become part of a path."""
    return len(text) == 12 and text.isascii() and text.isdigit()


def _text(part: Any) -> str | None:
    raw = bytes(part)
    return raw.decode() if raw else None


def _with(extra: str | None, name: str, value: str) -> str:
    return with_extra(extra.encode() if extra is not None else None, name, json.dumps(value).encode()).decode()
