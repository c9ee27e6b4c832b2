"""Every kind of bad object, all in one bucket behind real HTTP: what becomes of each, and that it stops no other.

The bucket is synced once. Then everything is mended (permissions given back, objects replaced), `kyra quarantine retry`
is called, and it is synced again.
"""

from __future__ import annotations

import gzip
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import pytest

from kyra_etl import cli, resources
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.simulation import truth
from tests.state.making import log_files

pytestmark = pytest.mark.xdist_group("bad input")  # one bucket for all of them

ACCOUNT = "111122223333"
NOW = datetime.now(UTC).replace(tzinfo=None)
FOLDER = f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/{NOW:%Y/%m/%d}"
CEILING = 128 * 2**20

ACCESS, TRANSIENT, PERMANENT = timedelta(minutes=15), timedelta(minutes=5), timedelta(hours=24)
"""When it is tried again for the first time."""


def log(*event_ids: str, **more: Any) -> bytes:
    records = [
        {
            "eventID": event_id,
            "eventTime": f"{NOW:%Y-%m-%d}T00:00:00Z",
            "eventName": "DescribeInstances",
            "recipientAccountId": ACCOUNT,
            **more,
        }
        for event_id in event_ids
    ]
    return json.dumps({"Records": records}).encode()


def envelope(records: str) -> bytes:
    return gzip.compress(f'{{"Records": {records}}}'.encode())


@dataclass(frozen=True)
class Said:
    """What the server answers instead of the object."""

    status: int
    code: str = ""
    text: str = ""
    cut: bool = False
    """The object's own body, which breaks off."""


@dataclass(frozen=True)
class Case:
    """An object and what becomes of it. `key` is its place; in the day's folder unless it has slashes."""

    name: str
    body: bytes = b""
    state: str = "loaded"
    reason: str | None = None
    retry: timedelta | None = None
    said: Said | None = None
    key: str = ""
    events: int = 1
    malformed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        name = self.key or f"{self.name.replace(' ', '-')}.json.gz"
        return name if "/" in name else f"{FOLDER}/{name}"

    @property
    def good(self) -> bytes:
        """The object as it should have been."""
        return gzip.compress(log(self.name))


def refused(name: str, said: Said, reason: str, retry: timedelta) -> Case:
    return Case(name, gzip.compress(log(name)), "quarantined", reason, retry, said)


def bad(name: str, body: bytes, reason: str) -> Case:
    return Case(name, body, "quarantined", reason, PERMANENT)


def ignored(name: str, key: str, kind: str, body: bytes = b"x") -> Case:
    return Case(name, body, "ignored", kind, key=key)


def elsewhere(kind: str) -> str:
    return f"AWSLogs/{ACCOUNT}/{kind}/eu-west-1/{NOW:%Y/%m/%d}/{ACCOUNT}_{kind}_eu-west-1.json.gz"


def read(name: str, body: bytes, *, events: int = 1, malformed: int = 0, key: str = "") -> Case:
    return Case(name, body, events=events, malformed=malformed, key=key)


WHOLE = gzip.compress(log(*(f"cut {number}" for number in range(50)), userAgent="x" * 20), mtime=0)
KMS = f"User: arn:aws:iam::{ACCOUNT}:role/kyra is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:k"

CASES = [
    # what S3 will not hand out
    refused("access denied", Said(403, "AccessDenied", "Access Denied"), "access_denied", ACCESS),
    refused("kms denied", Said(403, "AccessDenied", KMS), "kms_denied", ACCESS),
    refused("kms disabled", Said(400, "KMS.DisabledException", "arn:aws:kms:k is disabled."), "kms_unusable", ACCESS),
    refused("archived", Said(403, "InvalidObjectState", "Not valid for its storage class"), "archived", PERMANENT),
    refused("throttled", Said(503, "SlowDown", "Please reduce your request rate."), "throttled", TRANSIENT),
    refused("server error", Said(500, "InternalError", "We encountered an internal error."), "server_error", TRANSIENT),
    refused("breaks off", Said(200, cut=True), "interrupted", TRANSIENT),
    Case("vanished", gzip.compress(log("vanished")), "gone", "vanished", said=Said(404, "NoSuchKey", "It is gone.")),
    # what is no log file, whatever its name
    bad("truncated gzip", WHOLE[:-20], "corrupt_gzip"),
    bad("corrupt gzip", WHOLE[:60] + bytes(40) + WHOLE[100:], "corrupt_gzip"),
    bad("gzip bomb", gzip.compress(b'{"Records": [' + b" " * (CEILING + 1) + b"]}", 1), "too_large"),
    bad("cut off json", log("one", "two")[:-30], "not_json"),
    bad("cut off json by lines", log("one", "two").replace(b"}, {", b"}\n,{")[:-30], "not_json"),
    bad("text", b"<html>Service unavailable</html>", "not_json"),
    bad("utf-16", log("one").decode().encode("utf-16"), "not_utf8"),
    bad("an empty object", gzip.compress(b"{}"), "no_records"),
    bad("records null", envelope("null"), "no_records"),
    bad("records not a list", envelope('{"eventID": "e"}'), "no_records"),
    bad("an s3 notice", envelope('[{"eventSource": "aws:s3", "s3": {"object": {"key": "k"}}}]'), "notification"),
    bad("a digest among logs", gzip.compress(b'{"digestStartTime": "2026-01-01T00:00:00Z", "logFiles": []}'), "digest"),
    # what looks bad and is not
    read("no records at all", envelope("[]"), events=0),
    read("a record that is no object", envelope(f'["text", 7, {log("among others")[13:-2].decode()}]'), malformed=2),
    read("a record that is not utf-8", log("good").replace(b"}]", b'}, {"eventID": "\xff"}]'), malformed=1),
    read("a record without time", envelope('[{"eventID": "timeless"}]'), events=0, malformed=1),
    read("byte-order mark", gzip.compress(b"\xef\xbb\xbf" + log("marked"))),
    read("plain json called gz", log("plain")),
    read("two gzip members", gzip.compress(log("members")[:40]) + gzip.compress(log("members")[40:])),
    read(
        "100 MB", gzip.compress(log(*(f"large {n}" for n in range(100)), requestParameters="x" * 2**20), 1), events=100
    ),
    # names
    read("no grammar", gzip.compress(log("named")), key="no grammar at all.json.gz"),
    read("percent and plus", gzip.compress(log("percent")), key="100%25 a+b & c=d%20.json.gz"),
    read("beyond ascii", gzip.compress(log("beyond")), key="ünïcode 日誌.json.gz"),
    read("without gz", log("without"), key="without.json"),
    ignored("zero bytes", "zero.json.gz", "marker", b""),
    ignored("a stranger's name", "notes.txt", "other"),
    ignored("a digest", elsewhere("CloudTrail-Digest"), "digest"),
    ignored("an insight", elsewhere("CloudTrail-Insight"), "insight"),
    ignored("network activity", elsewhere("CloudTrail-NetworkActivity"), "network_activity"),
    ignored("aggregated", elsewhere("CloudTrail-Aggregated"), "aggregated"),
    Case("outside CloudTrail's folders", gzip.compress(log("outside")), "unknown", key=f"AWSLogs/{ACCOUNT}/a.json.gz"),
]
GOOD = [read(f"good {number}", gzip.compress(log(f"good {number}"))) for number in range(5)]


class _Moody:
    """An S3 that answers for some objects as it pleases, and passes everything else on to the look-alike."""

    def __init__(self, behind: str) -> None:
        self.behind = urlsplit(behind).netloc
        self.moods: dict[str, Said] = {}


@contextmanager
def serving(moody: _Moody) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            key = unquote(urlsplit(self.path).path).partition("/logs/")[2]
            said = moody.moods.get(key) if self.command == "GET" else None
            if said is not None and not said.cut:
                body = f"<Error><Code>{said.code}</Code><Message>{said.text}</Message></Error>".encode()
                self.answer(said.status, {"Content-Type": "application/xml"}, body, len(body))
                return
            connection = http.client.HTTPConnection(moody.behind, timeout=120)
            connection.request(self.command, self.path, headers=dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            length = int(answer.headers.get("Content-Length", len(body))) if self.command == "HEAD" else len(body)
            self.answer(answer.status, headers, body[: len(body) // 2] if said else body, length)
            self.close_connection = said is not None

        def answer(self, status: int, headers: dict[str, str], body: bytes, length: int) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = pass_on

        def log_message(self, format: str, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


HOP = ("connection", "content-length", "transfer-encoding", "keep-alive")


@dataclass
class Ran:
    code: int
    report: dict[str, Any]
    files: dict[str, dict[str, Any]]
    """The ledger's rows by key; of several versions of one key the oldest."""


@dataclass
class Matrix:
    """The whole story: the first sync, what was retried, the second sync, and the lake in the end."""

    first: Ran
    retried: int
    second: Ran
    lake: Path


@pytest.fixture(scope="module")
def matrix(moto_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    home = tmp_path_factory.mktemp("home")
    moody = _Moody(moto_server)
    with pytest.MonkeyPatch.context() as patch, serving(moody) as url:
        for name, value in {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("KYRA_HOME", str(home))
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
        _settings(home, url, CEILING)
        s3 = boto3.client("s3", endpoint_url=moto_server)
        s3.create_bucket(Bucket="logs")
        for case in (*CASES, *GOOD):
            s3.put_object(Bucket="logs", Key=case.path, Body=case.body)
            if case.said is not None:
                moody.moods[case.path] = case.said
        with State.open(str(home / "state.db")) as state:
            state.integrations.add(Integration("acme", "logs", ACCOUNT), NOW)
        first = _sync(home)

        moody.moods.clear()
        _settings(home, url, 2 * CEILING)
        for case in CASES:
            if case.retry == PERMANENT and case.said is None and case.name != "gzip bomb":
                s3.put_object(Bucket="logs", Key=case.path, Body=case.good)
        _, retried = _kyra("quarantine", "retry", "--json")
        yield Matrix(first, retried["retried"], _sync(home), home / "lake")


def _settings(home: Path, url: str, ceiling: int) -> None:
    detections = sorted(path.stem for path in resources.detections_dir().rglob("*.sql"))
    (home / "kyra.toml").write_text(
        f"aws_endpoint_url = {json.dumps(url)}\nmax_object_bytes = {ceiling}\n"
        f"[detections]\ndisable = {json.dumps(detections)}\n"
    )


def _sync(home: Path) -> Ran:
    code, report = _kyra("sync", "acme", "--json")
    with State.open(str(home / "state.db")) as state:
        files = {row["key"]: row for row in reversed(log_files(state))}
    return Ran(code, report, files)


def _kyra(*arguments: str) -> tuple[int, Any]:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(list(arguments))
    assert out.getvalue(), err.getvalue()
    return code, json.loads(out.getvalue())


def named(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@named([*CASES, *GOOD])
def test_every_object_ends_in_a_named_state(matrix: Matrix, case: Case) -> None:
    row = matrix.first.files.get(case.path)
    if case.state == "ignored":
        assert row is None
        assert matrix.first.report["ignored_by_kind"][case.reason] == 1
    elif case.state == "unknown":
        assert row is None, "not even listed"
    else:
        assert row is not None
        assert (row["state"], row["reason"]) == (case.state, case.reason)
        if case.state == "loaded":
            assert (row["events"], row["malformed"]) == (case.events, case.malformed)


@named([case for case in CASES if case.retry is not None])
def test_what_is_quarantined_is_tried_again_by_its_kind_of_reason(matrix: Matrix, case: Case) -> None:
    row = matrix.first.files[case.path]

    assert row["attempts"] == 1
    assert row["next_retry_at"] - row["changed_at"] == case.retry
    assert row["detail"]


def test_every_other_object_of_the_run_loads_and_the_numbers_agree(matrix: Matrix) -> None:
    report = matrix.first.report
    states = [case.state for case in (*CASES, *GOOD)]

    assert matrix.first.code == 3
    for state in ("loaded", "quarantined", "gone", "ignored"):
        assert report[state] == states.count(state), state
    assert report["listed"] == len(states) - states.count("unknown")
    assert report["records"] == report["events"] + report["duplicates"] + report["malformed"] + report["expired"]


@named([case for case in CASES if case.state in ("quarantined", "gone")])
def test_a_retry_loads_what_has_healed(matrix: Matrix, case: Case) -> None:
    row = matrix.second.files[case.path]

    assert row["state"] == "loaded"
    assert row["reason"] is None


def test_in_the_end_nothing_is_missing_and_nothing_twice(matrix: Matrix) -> None:
    quarantined = [case for case in CASES if case.state == "quarantined"]
    held = truth.events_in(matrix.lake)

    assert matrix.retried == len(quarantined)
    assert matrix.second.code == 0
    assert matrix.second.report["quarantined"] == 0
    assert max(held.values()) == 1
    assert len(held) == sum(
        case.events if case.state == "loaded" else 1
        for case in (*CASES, *GOOD)
        if case.state not in ("ignored", "unknown") and case.name != "gzip bomb"
    )
