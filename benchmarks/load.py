"""How fast `kyra load` is, measured against DuckDB loading the same files in one statement.

    python benchmarks/load.py [--events 100000] [--repeat 3] [--keep FOLDER]

Writes CloudTrail log files from a fixed seed into a temporary folder, then loads them alternately with
`kyra load --no-detect` and with DuckDB, each in a process of its own, and prints medians, their spread and
ratios. The figures are of this machine and moment; ratios travel better than seconds.

What is compared is not the same work. Both read gzip JSON and write zstd Parquet by account and date with the free-form
parts as text. kyra also keeps unknown fields, deduplicates, derives columns, writes `activity` and keeps a ledger;
DuckDB's statement does none of that.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

ACCOUNTS = ("012345678901", "111122223333", "444455556666")
REGIONS = ("eu-central-1", "us-east-1")
FIRST = datetime(2026, 3, 2)
DAYS = 5
PER_FILE = 250

CALLS = (
    ("DescribeInstances", "ec2.amazonaws.com", True, {"instancesSet": {}, "filterSet": {}}),
    (
        "AssumeRole",
        "sts.amazonaws.com",
        True,
        {"roleArn": "arn:aws:iam::111122223333:role/deploy", "durationSeconds": 900},
    ),
    ("GetObject", "s3.amazonaws.com", True, {"bucketName": "reports", "key": "2026/summary.csv", "Host": "reports.s3"}),
    (
        "PutObject",
        "s3.amazonaws.com",
        False,
        {"bucketName": "reports", "key": "2026/summary.csv", "x-amz-acl": "private"},
    ),
    ("Decrypt", "kms.amazonaws.com", True, {"encryptionContext": {"aws:s3:arn": "arn:aws:s3:::reports"}}),
    ("RunInstances", "ec2.amazonaws.com", False, {"instancesSet": {"items": [{"minCount": 1, "maxCount": 3}]}}),
    ("CreateLogStream", "logs.amazonaws.com", False, {"logGroupName": "/aws/lambda/export", "logStreamName": "2026"}),
    ("ListUsers", "iam.amazonaws.com", True, None),
)

DUCKDB = """
COPY (
  SELECT coalesce(r.recipientAccountId, '000000000000') AS account, CAST(r.eventTime AS DATE) AS date, r.*,
         r.userIdentity->>'$.type' AS user_type, r.userIdentity->>'$.arn' AS user_arn,
         r.userIdentity->>'$.principalId' AS user_principal_id, r.userIdentity->>'$.accountId' AS user_account_id,
         r.userIdentity->>'$.accessKeyId' AS user_access_key_id, r.userIdentity->>'$.userName' AS user_name,
         r.userIdentity->>'$.sessionContext.sessionIssuer.arn' AS issuer_arn, filename AS source_key
  FROM (SELECT unnest(Records) AS r, filename FROM read_json('{source}/**/*.json.gz', filename = true,
        maximum_object_size = 67108864, columns = {{Records: 'STRUCT({columns})[]'}}))
) TO '{target}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (account, date))
"""
COLUMNS = {
    "VARCHAR": "eventVersion eventID eventName eventSource eventType eventCategory awsRegion sourceIPAddress userAgent "
    "errorCode errorMessage recipientAccountId requestID sharedEventID vpcEndpointId apiVersion",
    "BOOLEAN": "readOnly managementEvent",
    "TIMESTAMP": "eventTime",
    "JSON": "userIdentity requestParameters responseElements additionalEventData resources serviceEventDetails "
    "tlsDetails",
}


@dataclass(frozen=True)
class Measured:
    """One process, start to end. `peak` is the resident set of its largest process, in bytes."""

    wall: float
    cpu: float
    peak: int


def record(rng: random.Random, account: str, region: str, at: datetime) -> dict[str, object]:
    """One management event, about the size real ones have."""
    name, source, read_only, parameters = rng.choice(CALLS)
    role = rng.choice(("deploy", "readonly", "backup", "ci"))
    session = f"{role}-{rng.randrange(10**6)}"
    failed = rng.random() < 0.03
    return {
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": f"AROA{rng.randrange(16**12):012X}:{session}",
            "arn": f"arn:aws:sts::{account}:assumed-role/{role}/{session}",
            "accountId": account,
            "accessKeyId": f"ASIA{rng.randrange(16**16):016X}",
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role",
                    "arn": f"arn:aws:iam::{account}:role/{role}",
                    "accountId": account,
                    "userName": role,
                },
                "attributes": {"creationDate": at.isoformat() + "Z", "mfaAuthenticated": "false"},
            },
        },
        "eventTime": at.isoformat() + "Z",
        "eventSource": source,
        "eventName": name,
        "awsRegion": region,
        "sourceIPAddress": f"198.51.100.{rng.randrange(256)}",
        "userAgent": "aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.5 md/GOARCH#amd64",
        "requestParameters": parameters,
        "responseElements": None
        if read_only
        else {"requestId": str(uuid.UUID(int=rng.getrandbits(128))), "_return": True},
        **(
            {"errorCode": "AccessDenied", "errorMessage": f"User is not authorized to perform: {name}"}
            if failed
            else {}
        ),
        "requestID": str(uuid.UUID(int=rng.getrandbits(128))),
        "eventID": str(uuid.UUID(int=rng.getrandbits(128))),
        "readOnly": read_only,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": account,
        "eventCategory": "Management",
        "tlsDetails": {
            "tlsVersion": "TLSv1.3",
            "cipherSuite": "TLS_AES_128_GCM_SHA256",
            "clientProvidedHostHeader": source,
        },
    }


def write_files(folder: Path, events: int, seed: int = 1) -> Iterator[int]:
    """Write `events` events as log files below `folder`; yields the uncompressed size of each file."""
    rng = random.Random(seed)
    places = [(a, r, FIRST + timedelta(days=d)) for d in range(DAYS) for a in ACCOUNTS for r in REGIONS]
    for number in range(0, events, PER_FILE):
        account, region, day = places[(number // PER_FILE) % len(places)]
        start = day + timedelta(minutes=5 * rng.randrange(287))
        count = min(PER_FILE, events - number)
        records = [record(rng, account, region, start + timedelta(seconds=rng.randrange(300))) for _ in range(count)]
        text = json.dumps({"Records": records}, separators=(",", ":")).encode()
        stem = f"{account}_CloudTrail_{region}_{start:%Y%m%dT%H%MZ}_{rng.getrandbits(64):016x}"
        path = folder / f"AWSLogs/{account}/CloudTrail/{region}/{start:%Y/%m/%d}/{stem}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text, mtime=0))
        yield len(text)


def run(command: list[str], env: dict[str, str] | None = None) -> Measured:
    """Run a process to its end; its output is kept back unless it fails."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            sys.exit(f"{' '.join(command)[:200]} failed:\n{output.read().decode(errors='replace')}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def load_with_kyra(source: Path, work: Path) -> tuple[Measured, Path]:
    """`kyra load` into a new home."""
    home = work / "kyra"
    shutil.rmtree(home, ignore_errors=True)
    kyra = [sys.executable, "-c", "from kyra_etl.cli import main; main()"]
    measured = run([*kyra, "load", "--no-detect", "--json", str(source)], {"KYRA_HOME": str(home)})
    return measured, home / "lake" / "events"


def load_with_duckdb(source: Path, work: Path) -> tuple[Measured, Path]:
    """DuckDB's own reader and writer, one statement, no settings but the columns."""
    target = work / "duckdb"
    shutil.rmtree(target, ignore_errors=True)
    columns = [f"{name} {kind}" for kind, names in COLUMNS.items() for name in names.split()]
    statement = DUCKDB.format(source=source, target=target, columns=", ".join(columns))
    return run([sys.executable, "-c", "import duckdb, sys; duckdb.sql(sys.argv[1])", statement]), target


def rows(lake: Path) -> int:
    """Events in a lake."""
    import duckdb

    return int(duckdb.sql(f"SELECT count(*) FROM read_parquet('{lake}/**/*.parquet')").fetchall()[0][0])


def line(label: str, runs: list[Measured], events: int, lake: Path, base: list[Measured]) -> str:
    """One row of the table; ratios are of medians, this one's over DuckDB's."""
    walls = [one.wall for one in runs]
    wall = statistics.median(walls)
    cpu = statistics.median(one.cpu for one in runs)
    peak = max(one.peak for one in runs)
    disk = sum(file.stat().st_size for file in lake.rglob("*.parquet"))
    against = wall / statistics.median(one.wall for one in base)
    memory = peak / max(one.peak for one in base)
    return (
        f"{label:<12}{wall:>7.2f} s  {min(walls):>6.2f}–{max(walls):<6.2f}{cpu:>7.2f} s  {events / wall:>9,.0f}"
        f"{peak / 2**20:>8.0f} MB {disk / events:>8.0f} B {against:>7.2f} {memory:>7.2f}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--events", type=int, default=100_000)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--keep", type=Path, help="work in this folder and leave the files there")
    chosen = arguments.parse_args()
    work = chosen.keep or Path(tempfile.mkdtemp(prefix="kyra-bench-"))
    try:
        source = work / "bucket"
        shutil.rmtree(source, ignore_errors=True)
        raw = sum(write_files(source, chosen.events))
        files = list(source.rglob("*.json.gz"))
        packed = sum(file.stat().st_size for file in files)
        print(
            f"{chosen.events:,} events in {len(files):,} files: {raw / 2**20:,.0f} MB of JSON, "
            f"{packed / 2**20:,.0f} MB gzip; {os.cpu_count()} cores, {chosen.repeat} runs each\n"
        )
        ours, theirs = [], []
        for _ in range(chosen.repeat):
            measured, kyra_lake = load_with_kyra(source, work)
            ours.append(measured)
            measured, duckdb_lake = load_with_duckdb(source, work)
            theirs.append(measured)
        for lake in (kyra_lake, duckdb_lake):
            if rows(lake) != chosen.events:
                sys.exit(f"{lake} holds {rows(lake):,} events, not {chosen.events:,}: the times mean nothing.")
        print(f"{'':<12}   median  range            CPU   events/s     memory      event  time ×   mem ×")
        print(line("kyra load", ours, chosen.events, kyra_lake, theirs))
        print(line("DuckDB", theirs, chosen.events, duckdb_lake, theirs))
        print("\nmemory: resident set of the largest process. event: bytes on disk. ×: over DuckDB's.")
    finally:
        if not chosen.keep:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
