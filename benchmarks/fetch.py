"""How fast log files are fetched, measured against boto3 with threads on the same server.

    python benchmarks/fetch.py [--objects 5000] [--repeat 3]

Small log files lie in memory behind HTTP on this machine, so that the clients are what is measured: no latency, no TLS.
Each client runs in a process of its own, by turns; medians are printed. The figures are of this machine and moment;
ratios travel better than seconds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tiny_s3 import running

BUCKET = "logs"
CLIENTS = {
    "kyra, 8 threads": ("kyra", 8),
    "boto3, 8 threads": ("boto3", 8),
    "boto3, 32 threads": ("boto3", 32),
}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


def key(number: int) -> str:
    return (
        f"AWSLogs/012345678901/CloudTrail/eu-west-1/2026/03/04/"
        f"012345678901_CloudTrail_eu-west-1_20260304T{number // 60 % 24:02d}{number % 60:02d}Z_{number:016d}.json.gz"
    )


def log_files(count: int) -> dict[str, bytes]:
    """Log files of about 3 kB, some larger, as small trails deliver them."""
    draw = random.Random(0)
    return {
        key(number): gzip.compress(draw.randbytes(int(draw.lognormvariate(8, 0.6))), 1, mtime=0)
        for number in range(count)
    }


def readers(kind: str, url: str, threads: int) -> Callable[[str], bytes]:
    """How one client reads a key."""
    if kind == "kyra":
        from kyra_etl.aws.bucket import open_bucket
        from kyra_etl.model import Integration

        return open_bucket(Integration("bench", BUCKET), endpoint_url=url, connections=threads).read
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", endpoint_url=url, config=Config(max_pool_connections=threads))

    def read(key: str) -> bytes:
        body: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    return read


def fetch(kind: str, url: str, threads: int, objects: int) -> dict[str, float]:
    """Read every object once; seconds, processor seconds of this process, and bytes."""
    read = readers(kind, url, threads)
    keys = [key(number) for number in range(objects)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, keys[:100]))  # connections are made, modules loaded
        wall, cpu = time.perf_counter(), time.process_time()
        size = sum(len(body) for body in pool.map(read, keys))
        return {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "bytes": size}


def in_a_process(kind: str, url: str, threads: int, objects: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--fetch", kind, url, str(threads), str(objects)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=CREDENTIALS)
    result: dict[str, float] = json.loads(ran.stdout)
    return result


def table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=5_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--fetch", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fetch:
        kind, url, threads, objects = given.fetch
        print(json.dumps(fetch(kind, url, int(threads), int(objects))))
        return
    stored = log_files(given.objects)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    with running(stored) as server:
        for _ in range(given.repeat):
            for name, (kind, threads) in CLIENTS.items():
                before = server.cpu_seconds()
                result = in_a_process(kind, server.url, threads, given.objects)
                assert result["bytes"] == sum(map(len, stored.values()))
                runs[name].append(result | {"server": server.cpu_seconds() - before})
    median = {
        name: {field: statistics.median(run[field] for run in several) for field in several[0]}
        for name, several in runs.items()
    }
    ours = median["kyra, 8 threads"]
    print(f"{given.objects} objects, {sum(map(len, stored.values())) / 2**20:.1f} MiB, median of {given.repeat}\n")
    heading = ("client", "objects/s", "client CPU ms/object", "server CPU ms/object", "kyra is faster by", "CPU by")
    rows = [heading]
    for name, result in median.items():
        rows.append(
            (
                name,
                f"{given.objects / result['seconds']:,.0f}",
                f"{result['cpu'] / given.objects * 1000:.3f}",
                f"{result['server'] / given.objects * 1000:.3f}",
                f"{result['seconds'] / ours['seconds']:.1f}×",
                f"{result['cpu'] / ours['cpu']:.1f}×",
            )
        )
    print(table(rows))


if __name__ == "__main__":
    main()
