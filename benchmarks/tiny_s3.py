"""A bucket in memory behind HTTP, quick enough that the client is what is measured; for benchmarks and tests.

    with running({"AWSLogs/…": b"…"}) as server: ...

In a process of its own. Understands what collecting asks of S3 (HeadBucket, ListObjectsV2, GetObject, HeadObject) and
PutObject, for any bucket's name and any signature; its clock can be moved. Everything else is 501.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import pickle
import subprocess
import sys
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

PAGE = 1_000


@dataclass
class Server:
    """A running server: `url` for clients, the rest for whoever started it."""

    url: str
    process: subprocess.Popen[bytes]

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Add or replace objects, modified now by the server's clock."""
        self._ask("POST", "/_put", pickle.dumps(dict(objects)))

    def counts(self) -> Counter[str]:
        """Requests since the last time this was asked: list, get, head."""
        return Counter(self._ask("POST", "/_counts")["requests"])

    def cpu_seconds(self) -> float:
        """Processor time that the server has used."""
        return float(self._ask("POST", "/_cpu")["seconds"])

    def move_clock(self, by: timedelta) -> datetime:
        """Move the server's clock on, and tell the new time, naive UTC."""
        return datetime.fromisoformat(self._ask("POST", "/_clock", str(by.total_seconds()).encode())["now"])

    def _ask(self, method: str, path: str, body: bytes = b"") -> Any:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        try:
            connection.request(method, path, body)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def running(objects: Mapping[str, bytes] | None = None) -> Iterator[Server]:
    """A server in a process of its own, stopped at the end."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        server = Server(f"http://127.0.0.1:{port}", process)
        if objects:
            server.put(objects)
        yield server
    finally:
        process.stdin.close()  # it ends when nobody holds the other end, however its starter died
        process.wait(timeout=60)
        process.stdout.close()


@dataclass
class Bucket:
    """The objects, their keys in order, and what was asked."""

    objects: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """By key: the head of the answer to a GET, and the body."""
    entries: dict[str, str] = field(default_factory=dict)
    """By key: the element of a listing."""
    keys: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    offset: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def put(self, objects: Mapping[str, bytes]) -> None:
        now = self.now()
        new = [key for key in objects if key not in self.objects]
        if len(new) > len(self.keys) // 10:
            self.keys = sorted([*self.keys, *new])
        else:
            for key in new:
                insort(self.keys, key)
        for key, body in objects.items():
            etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nETag: {etag}\r\n"
                f"Last-Modified: {format_datetime(now, usegmt=True)}\r\n\r\n"
            )
            self.objects[key] = (head.encode(), body)
            self.entries[key] = (
                f"<LastModified>{now:%Y-%m-%dT%H:%M:%S.000Z}</LastModified><ETag>{escape(etag)}</ETag>"
                f"<Size>{len(body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )

    def listing(self, query: str) -> str:
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        after = asked.get("continuation-token") or asked.get("start-after") or ""
        limit = min(int(asked.get("max-keys", PAGE)), PAGE)
        name = quote if asked.get("encoding-type") == "url" else escape
        at = max(bisect_left(self.keys, prefix), bisect_right(self.keys, after))
        parts: list[str] = []
        last = ""
        while len(parts) < limit and at < len(self.keys) and self.keys[at].startswith(prefix):
            key = self.keys[at]
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                parts.append(f"<Contents><Key>{name(key)}</Key>{self.entries[key]}")
                last, at = key, at + 1
            else:
                folder = key[: end + len(delimiter)]
                parts.append(f"<CommonPrefixes><Prefix>{name(folder)}</Prefix></CommonPrefixes>")
                last = f"{folder}\U0010ffff"
                at = bisect_left(self.keys, last)
        more = at < len(self.keys) and self.keys[at].startswith(prefix)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        encoding = "<EncodingType>url</EncodingType>" if name is quote else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult '
            'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>'
            f"<Prefix>{name(prefix)}</Prefix><KeyCount>{len(parts)}</KeyCount><MaxKeys>{limit}</MaxKeys>{encoding}"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(parts)}</ListBucketResult>"
        )

    def answer(self, method: str, target: str, body: bytes) -> bytes:
        path, _, query = target.partition("?")
        if path.startswith("/_"):
            return _answer(json.dumps(self._control(path, body), default=str).encode(), self.now())
        key = unquote(path.lstrip("/").partition("/")[2])
        if method == "PUT" and key:
            self.put({key: body})
            return _answer(b"", self.now())
        if method not in ("GET", "HEAD"):
            return _answer(b"", self.now(), "501 Not Implemented")
        if not key:
            self.counts["head" if method == "HEAD" else "list"] += 1
            return _answer(b"" if method == "HEAD" else self.listing(query).encode(), self.now())
        self.counts["get" if method == "GET" else "head"] += 1
        if key not in self.objects:
            error = f"<Error><Code>NoSuchKey</Code><Message>No {escape(key)}</Message></Error>".encode()
            return _answer(b"" if method == "HEAD" else error, self.now(), "404 Not Found")
        head, stored = self.objects[key]
        return head if method == "HEAD" else head + stored

    def _control(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/_put":
            self.put(pickle.loads(body))  # from the process that started this one
        elif path == "/_clock":
            self.offset += timedelta(seconds=float(body))
            return {"now": self.now().replace(tzinfo=None).isoformat()}
        elif path == "/_cpu":
            return {"seconds": time.process_time()}
        elif path == "/_counts":
            counts, self.counts = self.counts, Counter()
            return {"requests": counts}
        return {}


def _answer(body: bytes, now: datetime, status: str = "200 OK") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nDate: {format_datetime(now, usegmt=True)}\r\nx-amz-bucket-region: us-east-1\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as far as S3 clients need it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            lower = head.lower()
            at = lower.find(b"\r\ncontent-length:")
            length = int(lower[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if b"\r\nexpect: 100-continue" in lower and len(self._received) == end + 4:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if len(self._received) < end + 4 + length:
                return
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            body = bytes(self._received[end + 4 : end + 4 + length])
            del self._received[: end + 4 + length]
            self._transport.write(self._bucket.answer(method, target, body))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    bucket = Bucket()
    server = await loop.create_server(lambda: _Connection(bucket), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
