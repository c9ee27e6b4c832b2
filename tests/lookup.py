"""CloudTrail's LookupEvents and STS's GetCallerIdentity over HTTP, in small: moto has no LookupEvents.

It pages as AWS does (newest first, both ends of the time range included, a token that is good for its own question
only), and can be told to throttle, to deny, to let tokens expire, and to hold an answer back.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ACCOUNT = "111122223333"


@dataclass
class Lookup:
    """What the server holds and does. `records` are texts of records by region."""

    records: dict[str, list[str]]
    url: str = ""
    errors: Callable[[str, int], str | None] = lambda region, number: None
    """The error code that the n-th question (from 1) about a region is answered with."""
    held: Callable[[int], bool] = lambda total: False
    """Whether the n-th question of all is never answered."""
    asked: Counter[str] = field(default_factory=Counter)
    questions: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, region: str, question: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.asked[region] += 1
            self.questions.append((region, question))
            number, total = self.asked[region], self.asked.total()
        if self.held(total):
            self.holding.set()
            self.ended.wait()
        if code := self.errors(region, number):
            return 400, {"__type": code, "message": f"{code}: as the test wants it"}
        start, end = question.get("StartTime", 0), question.get("EndTime", 2**40)
        found = [text for text in self.records.get(region, ()) if start <= _time(text) <= end]
        found.sort(key=_time, reverse=True)
        first = 0
        if token := question.get("NextToken"):
            of, _, at = token.partition("@")
            if of != f"{start}-{end}":
                return 400, {"__type": "InvalidNextTokenException", "message": "of another question"}
            first = int(at)
        most = question.get("MaxResults", 50)
        page: dict[str, Any] = {"Events": [_event(text) for text in found[first : first + most]]}
        if first + most < len(found):
            page["NextToken"] = f"{start}-{end}@{first + most}"
        return 200, page


def _time(text: str) -> float:
    return datetime.strptime(json.loads(text)["eventTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def _event(text: str) -> dict[str, Any]:
    record = json.loads(text)
    return {
        "EventId": record["eventID"],
        "EventName": record["eventName"],
        "ReadOnly": "true",
        "EventTime": _time(text),
        "EventSource": record["eventSource"],
        "Resources": [],
        "CloudTrailEvent": text,
    }


_IDENTITY = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    f"<Arn>arn:aws:iam::{ACCOUNT}:user/kyra</Arn><UserId>AIDA</UserId><Account>{ACCOUNT}</Account>"
    "</GetCallerIdentityResult></GetCallerIdentityResponse>"
)


@contextmanager
def served(lookup: Lookup) -> Iterator[Lookup]:
    """The server, at `lookup.url`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece: in two, each would wait for the other side's acknowledgement

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if "LookupEvents" in self.headers.get("X-Amz-Target", ""):
                scope = re.search(r"Credential=[^/]+/\d+/([a-z0-9-]+)/", self.headers["Authorization"])
                assert scope
                status, document = lookup.answer(scope[1], json.loads(body))
                self._say(status, "application/x-amz-json-1.1", json.dumps(document).encode())
            else:
                self._say(200, "text/xml", _IDENTITY.encode())

        def do_GET(self) -> None:
            self._say(404, "application/xml", b"<Error><Code>NoSuchBucket</Code></Error>")

        def _say(self, status: int, kind: str, body: bytes) -> None:
            try:
                self.send_response_only(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # whoever asked was killed

        def log_message(self, format: str, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    lookup.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield lookup
    finally:
        lookup.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


MOTO: dict[str, list[str]] = {}
"""Records by region that moto's own server answers with."""


def in_moto(request: Any) -> str:
    """LookupEvents as an operation of moto's CloudTrail, so that its IAM rules it: moto has none of its own."""
    status, page = Lookup(MOTO).answer(request.region, json.loads(request.body or "{}"))
    assert status == 200, page
    return json.dumps(page)
