"""An enormous log file, piece by piece: the same records as `framing` finds, in the memory of a piece.

Only CloudTrail's own envelope is read this way, `{"Records": [ … ]}` and nothing else in the object. Whatever is
different, or turns out to be half way, is NotStreamable: the whole document then goes the ordinary way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

import msgspec
from isal import isal_zlib

from kyra_etl.cloudtrail.framing import GZIP, GZIP_WINDOW, INFLATE_ERRORS, READ_AGAIN, UNREADABLE, frame, too_large
from kyra_etl.errors import DecodeError

BLOCK = 2 * 2**20
"""Uncompressed bytes looked at together, about."""

_SLICE = 64 * 2**10
"""Compressed bytes handed to the decompressor at a time: what it does not take is copied."""

_HEAD = 1_000
"""Bytes in which a document has shown what it begins with."""

_TRIES = 20
"""Ends of records of each kind that are tried before more of the document is taken in."""

_LONGEST = 64 * 2**20
"""Bytes without the end of a record beyond which it is no use to go on."""

_START = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"Records"\s*:\s*\[\s*(?=(\{\s*"[^"\\\\]*"\s*:))')
_END = re.compile(rb"\}(?=\s*,\s*\{)")
_CLOSE = re.compile(rb"\s*\]\s*\}\s*\Z")
_COMMA = re.compile(rb"\s*,\s*")
_records = msgspec.json.Decoder(list[msgspec.Raw])


class NotStreamable(Exception):
    """The document has to be read whole."""


def blocks(source: IO[bytes], max_bytes: int) -> Iterator[bytes]:
    """The document's bytes, gunzipped through every member if gzipped, a block at a time.

    `source` gives the log file's bytes as stored. Raises DecodeError 'corrupt_gzip' or, beyond `max_bytes`,
    'too_large', as `framing.inflate` does.
    """
    room = max_bytes
    first = source.read(_SLICE)
    for block in _inflated(first, source) if first.startswith(GZIP) else _sliced(first, source):
        room -= len(block)
        if room < 0:
            raise too_large(max_bytes)
        yield block


def _sliced(block: bytes, source: IO[bytes]) -> Iterator[bytes]:
    while block:
        yield block
        block = source.read(BLOCK)


def _inflated(rest: bytes, source: IO[bytes]) -> Iterator[bytes]:
    while rest:
        if len(rest) < len(GZIP):
            rest += source.read(_SLICE)
        if not rest.startswith(GZIP):
            while rest:
                if rest.strip(b"\x00"):
                    raise DecodeError("corrupt_gzip", "Bytes that are not gzip follow the gzip stream.", READ_AGAIN)
                rest = source.read(_SLICE)
            return
        member = isal_zlib.decompressobj(wbits=GZIP_WINDOW)
        while not member.eof:
            try:
                block = member.decompress(rest, BLOCK)
            except INFLATE_ERRORS as error:  # type: ignore[misc]  # isal's stubs call its exception class an instance
                raise DecodeError("corrupt_gzip", f"The gzip stream is damaged ({error}).", READ_AGAIN) from error
            if block:
                yield block
            rest = member.unused_data if member.eof else member.unconsumed_tail
            if not rest:
                rest = source.read(_SLICE)
                if not rest and not block and not member.eof:
                    raise DecodeError(
                        "corrupt_gzip", "The gzip stream ends too early: the file is truncated.", READ_AGAIN
                    )


def records(document: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The records of a document that comes in blocks, some at a time and byte for byte as delivered.

    Raises DecodeError as `framing.frame` does, and NotStreamable; what came before that is then void.
    """
    buffer = b""
    for block in document:
        buffer += block
        if len(buffer) >= _HEAD:
            break
    start = _START.match(buffer)
    if start is None:
        raise NotStreamable
    first_key = re.compile(rb"\s*,\s*" + re.escape(start[1]))
    buffer = buffer[start.end() :]
    enough = 0
    checked = False
    for block in document:
        buffer += block
        if len(buffer) < enough:
            continue
        found, end = _whole(buffer, first_key)
        if not found:
            # A record longer than this, or something that is no JSON. Asked again when there is twice as much.
            enough = 2 * len(buffer)
            if enough > _LONGEST:
                raise NotStreamable
            continue
        if not checked:
            frame(b'{"Records":[' + found[0] + b"]}")  # or it is a notice, and says so
            checked = True
        yield found
        buffer, enough = buffer[end:], 0
    close = _CLOSE.search(buffer)
    if close is None:
        raise NotStreamable
    try:
        yield [bytes(record) for record in _records.decode(b"[" + buffer[: close.start()] + b"]")]
    except UNREADABLE as error:
        raise NotStreamable from error


def _whole(buffer: bytes, first_key: re.Pattern[bytes]) -> tuple[list[bytes], int]:
    """The whole records at the start of `buffer`, and where the next one begins.

    Elements that decode as a list are all of it: JSON leaves no other way to read what precedes them. Where a record
    ends is guessed, from the end backwards, first where the next begins as the document's first did.
    """
    ends = [match.end() for match in _END.finditer(buffer)]
    alike = [end for end in ends if first_key.match(buffer, end)]
    others = [end for end in ends if not first_key.match(buffer, end)]
    for end in (*alike[: -_TRIES - 1 : -1], *others[: -_TRIES - 1 : -1]):
        try:
            found = _records.decode(b"[" + buffer[:end] + b"]")
        except UNREADABLE:
            continue
        comma = _COMMA.match(buffer, end)
        return [bytes(record) for record in found], comma.end() if comma else end
    return [], 0
