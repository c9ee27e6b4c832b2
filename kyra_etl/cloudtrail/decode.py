"""Bytes of a log file → events and malformed records. Pure: the same bytes give the same table.

The quick path is measured (docs/performance.md): inflate with isal, one typed decode a record with msgspec, free-form
parts as slices of the document, small chunks so that Python's objects stay in the processor's cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
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
from kyra_etl.cloudtrail.schema import EVENT_COLUMNS, EVENTS, SOURCE_TYPE
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


NOTHING = Decoded(0, EVENTS.empty_table(), (), "", 0)
"""What a log file decodes to that could not be had or read."""


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


_CONSTANT = {column.name for column in EVENT_COLUMNS if column.role == "provenance"}
_VARYING = [field for field in EVENTS if field.name not in _CONSTANT]
"""The columns of a row, in its order: typed, free-form, identity, derived, partition."""

_typed_of = attrgetter(*TYPED)
_parts_of = attrgetter(*JSON_PARTS)


class _Rows:
    """Rows of one chunk, each a tuple in the order of `_VARYING`."""

    def __init__(self, source: Source, latest: datetime) -> None:
        self._source = source
        self._latest = latest
        self._rows: list[tuple[Any, ...]] = []

    def add(self, raw: bytes) -> None:
        """Append one record's row, or raise MalformedRecord and append nothing."""
        record, extra = read(raw)
        moment, canonical = parse_time(record.eventTime)
        if moment is None:
            raise MalformedRecord("no valid eventTime" if record.eventTime else "no eventTime")
        if not EARLIEST <= moment <= self._latest:
            raise MalformedRecord(f"eventTime {record.eventTime} is out of bounds")
        if not canonical and (extra is None or b'"eventTime":' not in extra):
            extra = with_extra(extra, "eventTime", record.eventTime)
        event_id = record.eventID
        if not event_id or event_id.startswith(HASH_PREFIX):
            if event_id is not None:
                extra = with_extra(extra, "eventID", event_id)
            event_id = event_id or hash_id(raw)
        try:
            parts = [part.decode() if (part := bytes(value)) else None for value in _parts_of(record)]
            extra_text = None if extra is None else extra.decode()
        except UnicodeDecodeError as error:
            raise MalformedRecord("not UTF-8") from error

        who = identity.identity_of(bytes(record.userIdentity))
        success = identity.is_success(
            record.eventName,
            record.eventSource,
            record.errorCode,
            record.errorMessage,
            record.responseElements,
        )
        self._rows.append(
            (
                moment,
                event_id,
                *_typed_of(record)[2:],
                *parts,
                extra_text,
                *who,
                success,
                identity.is_denied(record.errorCode),
                *identity.actor(who, record.eventType, record.sourceIPAddress),
                identity.is_write(record.readOnly, record.eventName),
                self._account(record.recipientAccountId, who.user_account_id),
                moment.date(),
            )
        )

    def _account(self, recipient: str | None, caller: str | None) -> str:
        source = self._source
        for account in (recipient, source.key_account, caller, source.integration_account):
            if account is not None and is_account(account):
                return account
        return UNKNOWN_ACCOUNT

    def to_arrow(self) -> pa.RecordBatch:
        source = self._source
        constants = {
            "source_type": SOURCE_TYPE,
            "integration": source.integration,
            "source_key": source.source_key,
            "delivered_at": source.delivered_at,
            "batch_id": source.batch_id,
        }
        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(_VARYING)
        arrays = {field.name: pa.array(cells, field.type) for field, cells in zip(_VARYING, columns, strict=True)} | {
            name: pa.repeat(pa.scalar(value, EVENTS.field(name).type), len(self._rows))
            for name, value in constants.items()
        }
        return pa.RecordBatch.from_arrays([arrays[name] for name in EVENTS.names], schema=EVENTS)


def is_account(text: str) -> bool:
    """Exactly 12 ASCII digits: all that may become part of a path."""
    return len(text) == 12 and text.isascii() and text.isdigit()
