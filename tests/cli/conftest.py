"""`kyra …` in this process: its exit code, and what it put on each stream."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import cli, resources

ACCOUNT = "012345678901"


@dataclass(frozen=True)
class Ran:
    """One command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of a command that failed."""
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.rstrip("\n")


Kyra = Callable[..., Ran]


@pytest.fixture
def kyra(kyra_home: Path, capsys: pytest.CaptureFixture[str]) -> Kyra:
    """Runs a command over a home of its own, with one detection in force, so that loading is quick."""
    others = sorted({path.stem for path in resources.detections_dir().rglob("*.sql")} - {"cloudtrail_disabled"})
    (kyra_home / "kyra.toml").write_text(f"[detections]\ndisable = {json.dumps(others)}\n")

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return Ran(code, streams.out, streams.err)

    return run


def asking(pid: int) -> float:
    """Seconds of processor time that a process has taken beside its first thread: those of a query, and no others."""
    ticks = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            fields = (thread / "stat").read_text().rpartition(")")[2].split()
            ticks += (thread.name != str(pid)) * (int(fields[11]) + int(fields[12]))
    return ticks / os.sysconf("SC_CLK_TCK")


def record(event_id: str, name: str = "DescribeInstances", **more: Any) -> dict[str, Any]:
    """A CloudTrail record as delivered."""
    return {
        "eventVersion": "1.09",
        "eventTime": "2026-01-10T10:00:00Z",
        "eventID": event_id,
        "eventName": name,
        "eventSource": "ec2.amazonaws.com",
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "198.51.100.7",
        "userAgent": "aws-cli/2.15",
        "userIdentity": {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/alex", "userName": "alex"},
        "recipientAccountId": ACCOUNT,
        **more,
    }


def put(folder: Path, name: str, *records: dict[str, Any], day: str = "2026/01/10", region: str = "eu-west-1") -> Path:
    """A log file in a folder that is laid out as a trail's bucket."""
    path = folder / f"AWSLogs/{ACCOUNT}/CloudTrail/{region}/{day}/{name}.json.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps({"Records": list(records)}).encode()))
    return path


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder with two log files of three events, one of them twice."""
    folder = tmp_path / "bucket"
    put(
        folder,
        "one",
        record("e1", "CreateSecurityGroup"),
        record("e2", "StopLogging", eventSource="cloudtrail.amazonaws.com"),
    )
    put(folder, "two", record("e3", "DeleteSecurityGroup"), record("e1", "CreateSecurityGroup"))
    return folder
