"""Bytes of a log file → events and malformed records. Pure: the same bytes give the same table.

The quick path is measured (docs/performance.md): inflate with isal, one typed decode a record with msgspec, free-form
parts as slices of the document, small chunks so that Python's objects stay in the processor's cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import IO, Any

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
from kyra_etl.cloudtrail.stream import blocks, records
from kyra_etl.errors import DecodeError, ObjectError
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
class DecodedFile:
    """What one log file held: `records == events + len(malformed)`, or the `problem` why nothing could be read.

    `sha256` is of the uncompressed bytes, `uncompressed` their number.
    """

    number: int
    records: int = 0
    events: int = 0
    malformed: tuple[Malformed, ...] = ()
    sha256: str | None = None
    uncompressed: int = 0
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None
    problem: ObjectError | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Log files decoded together. `events` has the schema GROUPED: EVENTS, and which file a row came from."""

    files: tuple[DecodedFile, ...]
    events: pa.Table


FILE = "_file"
"""Column that holds a row's file number; never written."""

GROUPED = EVENTS.append(pa.field(FILE, pa.int64()))


def decode(data: bytes, source: Source, *, now: datetime, max_bytes: int) -> tuple[DecodedFile, pa.Table]:
    """Decode one log file as stored, into events of schema EVENTS. Raises DecodeError when the bytes are none.

    `now` (naive UTC) bounds eventTime; `max_bytes` bounds the uncompressed size.
    """
    decoded = decode_files([(0, data, source)], now=now, max_bytes=max_bytes)
    (file,) = decoded.files
    if file.problem is not None:
        raise file.problem
    return file, decoded.events.select(EVENTS.names)


def decode_files(files: Iterable[tuple[int, bytes, Source]], *, now: datetime, max_bytes: int) -> Decoded:
    """Decode log files (number, bytes as stored, source) into one table; a file that is none costs the others nothing.

    Together, because a table of fifty columns costs more to make than the dozen rows of a small file.
    """
    rows = _Rows(now + AHEAD)
    done: list[DecodedFile] = []
    for number, data, source in files:
        try:
            document = inflate(data, max_bytes)
            framed = frame(document)
        except DecodeError as problem:
            done.append(DecodedFile(number, problem=problem))
            continue
        file = _File(number, source, rows)
        file.add(framed)
        done.append(file.done(hashlib.sha256(document).hexdigest(), len(document)))
    return Decoded(tuple(done), rows.table())


def decode_large(number: int, data: IO[bytes], source: Source, *, now: datetime, max_bytes: int) -> Iterator[Decoded]:
    """Decode one log file as `decode_files` does, into the same rows, but a piece at a time.

    `data` gives the bytes as stored. The last piece carries the DecodedFile. Raises NotStreamable when the document has
    to be read whole, or the DecodeError; the pieces before are void then.
    """
    rows = _Rows(now + AHEAD)
    file = _File(number, source, rows)
    digest, size = hashlib.sha256(), 0

    def hashed() -> Iterator[bytes]:
        nonlocal size
        for block in blocks(data, max_bytes):
            digest.update(block)
            size += len(block)
            yield block

    for some in records(hashed()):
        file.add(some)
        yield Decoded((), rows.table())
    yield Decoded((file.done(digest.hexdigest(), size),), rows.table())


class _File:
    """One log file, while its records become rows."""

    def __init__(self, number: int, source: Source, rows: _Rows) -> None:
        self._number, self._rows = number, rows
        self._before = rows.count
        self._records = 0
        self.malformed: list[Malformed] = []
        rows.begin(number, source)

    def add(self, records: list[bytes]) -> None:
        """The next records of the file: each a row, or set aside."""
        for position, raw in enumerate(records, self._records):
            try:
                self._rows.add(raw)
            except MalformedRecord as reason:
                self.malformed.append(Malformed(position, str(reason), raw))
        self._records += len(records)

    def done(self, sha256: str, size: int) -> DecodedFile:
        """What the file held."""
        events = self._rows.count - self._before
        return DecodedFile(
            number=self._number,
            records=events + len(self.malformed),
            events=events,
            malformed=tuple(self.malformed),
            sha256=sha256,
            uncompressed=size,
            first_event_at=self._rows.first,
            last_event_at=self._rows.last,
        )


_typed_of = attrgetter(*TYPED)
_parts_of = attrgetter(*JSON_PARTS)


class _Rows:
    """Rows of the table, each a tuple in the order of GROUPED, turned into Arrow a chunk at a time."""

    def __init__(self, latest: datetime) -> None:
        self._latest = latest
        self._rows: list[tuple[Any, ...]] = []
        self._chunks: list[pa.RecordBatch] = []
        self.count = 0

    def begin(self, number: int, source: Source) -> None:
        """The rows that follow are of this file."""
        self._number, self._source = number, source
        self._provenance = (SOURCE_TYPE, source.integration, source.source_key, source.delivered_at, source.batch_id)
        self.first: datetime | None = None
        self.last: datetime | None = None

    def add(self, raw: bytes) -> None:
        """Append one record's row, or raise MalformedRecord and append nothing."""
        record, extra = read(raw)
        moment, canonical = parse_time(record.eventTime)
        if moment is None:
            raise MalformedRecord("no valid eventTime" if record.eventTime else "no eventTime")
        if not EARLIEST <= moment <= self._latest:
            raise MalformedRecord(f"eventTime {record.eventTime} is out of bounds")
        if not canonical:
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
                *identity.actor(who, record.eventType, record.sourceIPAddress, record.sessionCredentialFromConsole),
                identity.is_write(record.readOnly, record.eventName),
                *self._provenance,
                self._account(record.recipientAccountId, who.user_account_id),
                moment.date(),
                self._number,
            )
        )
        self.count += 1
        self.first = moment if self.first is None or moment < self.first else self.first
        self.last = moment if self.last is None or moment > self.last else self.last
        if len(self._rows) == CHUNK:
            self._flush()

    def _account(self, recipient: str | None, caller: str | None) -> str:
        source = self._source
        for account in (recipient, source.key_account, caller, source.integration_account):
            if account is not None and is_account(account):
                return account
        return UNKNOWN_ACCOUNT

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(cells, field.type) for field, cells in zip(GROUPED, columns, strict=True)]
        self._chunks.append(pa.RecordBatch.from_arrays(arrays, schema=GROUPED))
        self._rows = []

    def table(self) -> pa.Table:
        """The rows since the last table was taken."""
        if self._rows:
            self._flush()
        chunks, self._chunks = self._chunks, []
        return pa.Table.from_batches(chunks, GROUPED)


def is_account(text: str) -> bool:
    """Exactly 12 ASCII digits: all that may become part of a path."""
    return len(text) == 12 and text.isascii() and text.isdigit()
