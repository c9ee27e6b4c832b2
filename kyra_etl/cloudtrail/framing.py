"""The bytes of a log file → the exact bytes of each record in it.

Accepted, plain or gzipped (any number of members), with or without a byte-order mark: the `Records` envelope that
CloudTrail delivers, a bare array, one object, NDJSON or objects one after another, answers of LookupEvents and events
of EventBridge. Anything else is a DecodeError that says what the bytes are instead.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable

import msgspec
from isal import igzip_lib, isal_zlib

from kyra_etl.errors import DecodeError

GZIP = b"\x1f\x8b"
GZIP_WINDOW = 31
INFLATE_ERRORS = (igzip_lib.IsalError, zlib.error, EOFError, ValueError)
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec raises: the second for text that is not UTF-8, which is not a kind of the first."""
UNREADABLE = (*NOT_JSON, RecursionError)
"""The same, and what it raises for JSON that is nested some thousand levels deep."""
_ENVELOPE = re.compile(rb'\{\s*"Records"\s*:')
_RECORD_HINTS = frozenset({"eventTime", "eventName", "eventSource", "eventID", "eventVersion"})


class _Envelope(msgspec.Struct):
    Records: msgspec.Raw = msgspec.Raw()


class _Lookup(msgspec.Struct):
    CloudTrailEvent: str


_raw_dict = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_envelope = msgspec.json.Decoder(_Envelope)
_lookup = msgspec.json.Decoder(_Lookup)


def inflate(data: bytes, max_bytes: int) -> bytes:
    """The document's bytes: gunzipped through every member if gzipped, else as they are.

    The format is told by its first bytes, not by the name: HTTP clients unpack some bodies on the way.
    Raises DecodeError 'corrupt_gzip' or, beyond `max_bytes`, 'too_large'.
    """
    if not data.startswith(GZIP):
        if len(data) > max_bytes:
            raise too_large(max_bytes)
        return data
    parts: list[bytes] = []
    room = max_bytes
    rest = data
    while rest.startswith(GZIP):
        member = isal_zlib.decompressobj(wbits=GZIP_WINDOW)
        try:
            part = member.decompress(rest, room + 1)
        except INFLATE_ERRORS as error:  # type: ignore[misc]  # isal's stubs call its exception class an instance
            raise DecodeError("corrupt_gzip", f"The gzip stream is damaged ({error}).", READ_AGAIN) from error
        room -= len(part)
        if room < 0:
            raise too_large(max_bytes)
        if not member.eof:
            raise DecodeError("corrupt_gzip", "The gzip stream ends too early: the file is truncated.", READ_AGAIN)
        parts.append(part)
        rest = member.unused_data
    if rest.strip(b"\x00"):
        raise DecodeError("corrupt_gzip", "Bytes that are not gzip follow the gzip stream.", READ_AGAIN)
    return b"".join(parts) if len(parts) != 1 else parts[0]


def frame(document: bytes) -> list[bytes]:
    """Split an uncompressed document into its records, in order and each byte for byte as delivered.

    What stands where a record should, and is none, is among them: `records.read` says what is wrong with it.
    Raises DecodeError with reason 'empty', 'not_json', 'not_utf8', 'digest', 'notification', 'no_records' or
    'not_cloudtrail'.
    """
    body = document.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise DecodeError("empty", "The file is empty.", "Nothing to do: CloudTrail leaves empty markers behind.")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DecodeError("not_utf8", "The file is UTF-16, not UTF-8.", "Convert it to UTF-8 and load it again.")
    if not body.startswith((b"{", b"[")):
        raise DecodeError("not_json", "The file is not JSON.", _EXPECTED)
    try:
        if body.startswith(b"["):
            return _cloudtrail_only(_unwrap(_raw_list.decode(body)))
        return _of_object(_raw_dict.decode(body), body)
    except UNREADABLE:
        # Something in it is not JSON as msgspec reads it. One such record must not take its neighbours along.
        elements = _scan(body)
        return elements if any(map(_hints, elements)) else _sequence(body)


def _of_object(fields: dict[str, msgspec.Raw], body: bytes) -> list[bytes]:
    if "Records" in fields:
        try:
            records = _raw_list.decode(_envelope.decode(body).Records)
        except NOT_JSON as error:
            raise DecodeError("no_records", "`Records` is not a list.", _EXPECTED) from error
        if records and _is_notification(records[0]):
            raise DecodeError("notification", "This is an S3 event notice, not a log file.", _EXPECTED)
        return [bytes(record) for record in records]
    if "digestS3Object" in fields or "digestStartTime" in fields:
        raise DecodeError("digest", "This is a digest file: it vouches for log files and holds no records.", _NOT_LOGS)
    if "Events" in fields:
        try:
            return _cloudtrail_only(_unwrap(_raw_list.decode(fields["Events"])))
        except NOT_JSON as error:
            raise DecodeError("no_records", "`Events` is not a list.", _EXPECTED) from error
    return _cloudtrail_only(_unwrap([msgspec.Raw(body)]))


def _unwrap(items: Iterable[msgspec.Raw]) -> list[bytes]:
    """Answers of LookupEvents hold the record as text, EventBridge's events under `detail`."""
    records: list[bytes] = []
    for item in items:
        text = bytes(item)
        if b'"CloudTrailEvent"' in text:
            try:
                records.append(_lookup.decode(text).CloudTrailEvent.encode())
                continue
            except UNREADABLE:
                pass
        elif b'"detail-type"' in text:
            try:
                fields = _raw_dict.decode(text)
            except UNREADABLE:
                fields = {}
            if "detail" in fields and "detail-type" in fields:
                text = bytes(fields["detail"])
        records.append(text)
    return records


def _cloudtrail_only(records: list[bytes]) -> list[bytes]:
    """Without the envelope, JSON counts as CloudTrail's only if some object in it looks like a record."""
    if any(_hints(record) for record in records):
        return records
    if all(record in (b"{}", b"null") for record in records):
        raise DecodeError("no_records", "The file holds no records.", _EXPECTED)
    raise DecodeError("not_cloudtrail", "The file is JSON, but not of CloudTrail.", _EXPECTED)


def _hints(record: bytes) -> bool:
    try:
        return not _RECORD_HINTS.isdisjoint(_raw_dict.decode(record))
    except UNREADABLE:
        return False


def _is_notification(record: msgspec.Raw) -> bool:
    try:
        fields = _raw_dict.decode(record)
    except UNREADABLE:
        return False
    return "s3" in fields or "Sns" in fields or "messageId" in fields


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{},]', re.DOTALL)


def _scan(body: bytes) -> list[bytes]:
    """Elements of `Records`, or of a bare array, by brackets and quotes alone; none if the brackets do not close."""
    elements: list[bytes] = []
    closers: list[bytes] = []
    key = b""
    inside = start = 0
    for token in _TOKEN.finditer(body):
        text = token[0]
        if text in (b"{", b"["):
            closers.append(b"}" if text == b"{" else b"]")
            if not inside and text == b"[" and (len(closers) == 1 or (len(closers) == 2 and key == b'"Records"')):
                inside, start = len(closers), token.end()
        elif text in (b"}", b"]"):
            if not closers or closers.pop() != text:
                return []
            if inside and len(closers) < inside:
                elements.append(body[start : token.start()].strip())
                inside = 0
            if not closers and body[token.end() :].strip():
                return []
        elif text == b"," and inside and len(closers) == inside:
            elements.append(body[start : token.start()].strip())
            start = token.end()
        elif len(closers) == 1 and text != b",":
            key = text
    return [] if closers else [element for element in elements if element]


def _sequence(body: bytes) -> list[bytes]:
    """Objects a line, or one after another. A line that is neither stands for a record; if all are, it is an error."""
    records: list[bytes] = []
    good = 0
    for line in body.splitlines():
        if not line.strip():
            continue
        try:
            found = _of_line(line.strip())
        except (*UNREADABLE, DecodeError):
            if not records and _ENVELOPE.match(body):
                break  # one envelope over many lines that never closes: the rest of it is lost, so none of it counts
            found = [line]
        else:
            good += len(found)
        records.extend(found)
    return records if good else _concatenated(body)


def _of_line(line: bytes) -> list[bytes]:
    return _of_object(_raw_dict.decode(line), line)


def _concatenated(body: bytes) -> list[bytes]:
    """Objects without line ends between them, as Firehose writes them."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("not_json", "The file is not JSON.", _EXPECTED) from error
    scanner = json.JSONDecoder()
    records: list[bytes] = []
    at = 0
    try:
        while at < len(text):
            _, end = scanner.raw_decode(text, at)
            records.extend(_of_line(text[at:end].encode()))
            at = end
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise DecodeError("not_json", "The file's JSON is damaged or cut off.", READ_AGAIN) from error
    return records


def too_large(max_bytes: int) -> DecodeError:
    return DecodeError(
        "too_large",
        f"The file unpacks to more than {max_bytes:,} bytes.",
        "If it is genuine, raise `max_object_bytes` in kyra.toml and run `kyra quarantine retry`.",
    )


_EXPECTED = 'Expected CloudTrail records: {"Records": […]}, an array, NDJSON, or answers of LookupEvents.'
READ_AGAIN = "Run `kyra quarantine retry` once the file is whole again."
_NOT_LOGS = "Nothing to do: only log files are loaded."
