"""How a backfill gains by Dask workers: one, then two, over PostgreSQL and a lake on S3 over HTTP.

    python benchmarks/spread.py [--events 100000] [--days 1] [--accounts 40] [--workers 1 2]

Starts PostgreSQL, two S3 look-alikes (the one of the log files is quick, the one of the lake is moto) and `kyra serve`,
and backfills as many days of the same events with each number of workers. The pace is that between the first batch and
the last, so starting the cluster is not in it. Everything shares this machine's cores: with as many workers as cores,
look-alikes and database take their part from the workers. Ends with 1 when the lake is not exact.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import duckdb
from sqlalchemy import text

from benchmarks.fetch import CREDENTIALS, table
from benchmarks.generate import ORGANIZATION, write_bucket
from benchmarks.tiny_s3 import running
from kyra_etl.lake import S3Options, open_lake
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests.flows.server import Server
from tests.ports import free_port
from tests.postgres import server as postgres
from tests.simulation.kills import s3_for_the_lake

BATCH_FILES = 20


@dataclass(frozen=True)
class Pace:
    """What the batches of one backfill came to, after the first."""

    workers: int
    batches: int
    files: int
    events: int
    seconds: float


def log_files(folder: Path, given: argparse.Namespace, first: list[date]) -> dict[str, bytes]:
    """The same log files from each of the first days on, by key."""
    found = {}
    for day in first:
        bucket, begins = folder / f"{day}", datetime.combine(day, datetime.min.time())
        write_bucket(bucket, given.events, accounts=given.accounts, days=given.days, first=begins)
        found |= {str(path.relative_to(bucket)): path.read_bytes() for path in bucket.rglob("*.json.gz")}
    return found


def backfill(server: Server, first: date, days: int, workers: int, state: State) -> Pace:
    """Backfill so many days with so many workers."""
    (server.home / "kyra.toml").write_text(f'task_runner = "dask"\ntask_workers = {workers}\n')
    span = {"start": f"{first}", "end": f"{first + timedelta(days=days)}"}  # some events are of shortly after midnight
    run = server.ended(server.start("backfill", integration="org", **span), 3600)
    if run["state"]["type"] != "COMPLETED":
        sys.exit(f"The backfill failed: {run['state']['message']}")
    query = text(
        "SELECT count(*), sum(files), sum(events), min(settled_at), max(settled_at) FROM batches"
        " WHERE state = 'committed' AND run_id IN (SELECT run_id FROM runs WHERE started_at >= :since)"
    )
    earliest = text(
        "SELECT files, events FROM batches WHERE state = 'committed'"
        " AND run_id IN (SELECT run_id FROM runs WHERE started_at >= :since) ORDER BY settled_at LIMIT 1"
    )
    since = {"since": datetime.fromisoformat(run["start_time"]).astimezone(UTC).replace(tzinfo=None)}
    with state._database.read() as connection:
        batches, files, events, begun, ended = connection.execute(query, since).one()
        before = connection.execute(earliest, since).one()
    seconds = (ended - begun).total_seconds()  # sums come as decimals
    return Pace(workers, batches - 1, int(files - before.files), int(events - before.events), seconds)


def in_lake(endpoint: str) -> tuple[int, int]:
    """Events and distinct ids by day, read as anybody would."""
    lake = open_lake("s3://lake/kyra", S3Options(endpoint, "us-east-1", "x", "x"))
    connection = duckdb.connect()
    lake.register(connection)
    query = "SELECT count(*), count(DISTINCT (date, event_id)) FROM read_parquet(?, hive_partitioning = true)"
    ((rows, distinct),) = connection.execute(query, [lake.uri("events/*/*/*.parquet")]).fetchall()
    return rows, distinct


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000, help="for each number of workers (100,000)")
    parser.add_argument("--days", type=int, default=1, help="that these are spread over (1)")
    parser.add_argument("--accounts", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers (1 2)")
    given = parser.parse_args()
    os.environ.update(CREDENTIALS, AWS_EC2_METADATA_DISABLED="true")
    today = datetime.now(UTC).date()
    first = [today - timedelta(days=60 + (given.days + 5) * number) for number in range(len(given.workers))]
    with tempfile.TemporaryDirectory(prefix="kyra-spread-") as folder, postgres() as database:
        home = Path(folder) / "home"
        home.mkdir()
        url, stored = database.create(), log_files(Path(folder), given, first)
        with running(stored) as logs, s3_for_the_lake() as endpoint, State.open(url) as state:
            state.integrations.add(Integration("org", "logs", organization_id=ORGANIZATION), state.now())
            settings = {"STATE_URL": url, "LAKE": "s3://lake/kyra", "LAKE_ENDPOINT_URL": endpoint}
            settings |= {"AWS_ENDPOINT_URL": logs.url, "BATCH_FILES": f"{BATCH_FILES}", "METRICS_PORT": "0"}
            settings |= {"SYNC_SECONDS": "86400", "LOG_FORMAT": "text"}
            server = Server(home, free_port(), **{f"KYRA_{name}": value for name, value in settings.items()})
            try:
                server.wait(lambda: len(server.deployments()) == 4, "the deployments", 300)
                paces = [
                    backfill(server, day, given.days, workers, state)
                    for day, workers in zip(first, given.workers, strict=True)
                ]
                server.stop()
            finally:
                server.kill()
            rows, distinct = in_lake(endpoint)
    wanted = given.events * len(first)
    print(f"{len(stored)} log files, {wanted:,} events; {os.cpu_count()} cores; lake {rows:,} rows, {distinct:,} ids\n")
    heading = ("workers", "batches", "seconds", "log files/s", "events/s", "times the first")
    lines: list[tuple[str, ...]] = [heading]
    for one in paces:
        by = (one.files / one.seconds) / (paces[0].files / paces[0].seconds)
        rates = (f"{one.files / one.seconds:.1f}", f"{one.events / one.seconds:,.0f}")
        lines.append((f"{one.workers}", f"{one.batches}", f"{one.seconds:.1f}", *rates, f"{by:.2f}×"))
    print(table(lines))
    return 0 if rows == distinct == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
