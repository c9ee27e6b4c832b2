"""Whether a five-minute run costs the same on a lake of a year as on a lake of a month.

    python benchmarks/flat.py [--days 30 365] [--accounts 20] [--per-day 300] [--events 6000] [--runs 7] [--kind both]

For each age a lake is made as compaction leaves it: a day of each account goes the real way (log files, load, compact),
and every day before is that day again under ids and times of its own, with its files, its activity, and its rows in the
ledger: of an hour's sync each, 60 log files. Then five-minute runs come in: 60 log files in a folder, taken by the real
sync with deduplication and all detections. The lakes take turns, and each takes some runs of another time first, to
warm up. An ordinary run holds what people and programs call all day; the other kind holds besides a call for every
single detection, so that all of them look back as far as they ever do.

    opened    files of the lake that were opened, by whatever reader, as the kernel tells (inotify; Linux alone)
    read      bytes that the process read in all: lake, state database, log files (rchar of /proc/self/io)
    wall      from the beginning of the sync to its end; processor time of this process beside it, which a machine with
              other work disturbs less

The aim: opened and read at most 1.2 times, wall at most 1.3 times; medians. It says which are met and which are MISSED.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import statistics
import struct
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import insert, text

from benchmarks import generate
from kyra_etl import config, resources, wiring
from kyra_etl.cases import load_cases
from kyra_etl.integrations import make_integration
from kyra_etl.lake import layout
from kyra_etl.lake.compact import BLOOMS
from kyra_etl.lake.writer import parquet_options
from kyra_etl.load import load
from kyra_etl.maintain.compact import compact
from kyra_etl.model import DataFile, Integration, RunReport
from kyra_etl.ports import Silent
from kyra_etl.state import tables
from kyra_etl.state.commits import data_row
from kyra_etl.sync import sync

NOON = datetime(2026, 3, 2, 12)
FIVE = timedelta(minutes=5)
FILES = 60
"""Log files of a five-minute run."""
TARGETS = (1.2, 1.2, 1.3)
"""How many times as much the oldest lake may cost as the youngest: opened, read, wall."""


BOOKS = """
CREATE TEMP TABLE made AS
WITH RECURSIVE n(h) AS (SELECT 0 UNION ALL SELECT h + 1 FROM n WHERE h < :hours - 1)
SELECT 'made-' || h AS id, h, strftime('%Y-%m-%d %H!%M!%f000', :first, '+' || h || ' hours') AS at FROM n;
UPDATE made SET at = replace(at, '!', char(58));
INSERT INTO runs (run_id, verb, integration, state, started_at, finished_at, report, published)
SELECT id, 'sync', 'acme', 'succeeded', at, at, :report, true FROM made;
INSERT INTO batches (batch_id, integration, bucket, run_id, state, attempt, owner, lease_expires_at, planned_at,
  settled_at, files, bytes, records, events, first_event_at, last_event_at)
SELECT id, 'acme', :bucket, id, 'committed', 1, 'made', at, at, at, :files, 60000, 6000, 6000, at, at FROM made;
INSERT INTO log_files (integration, bucket, key, etag, size, last_modified, account, region, day, state, observed_at,
  changed_at, plans, batch_id, run_id, loaded_at, records, events, uncompressed, sha256, first_event_at, last_event_at)
WITH RECURSIVE f(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM f WHERE k < :files - 1),
files AS (SELECT *, 111122223333 + k % 20 AS account, replace(substr(at, 1, 10), '-', '/') AS day FROM made, f)
SELECT 'acme', :bucket, :folder || account || '/CloudTrail/us-east-1/' || day || '/' || account
  || '_CloudTrail_us-east-1_' || replace(day, '/', '') || 'T' || substr(at, 12, 2) || '00Z_'
  || printf('%016x', h * 100 + k) || '.json.gz', hex(randomblob(32)), 1000, at, account, 'us-east-1', substr(at, 1, 10),
  'loaded', at, at, 1, id, id, at, 100, 100, 9000, hex(randomblob(32)), at, at
FROM files;
INSERT INTO run_files (run_id, log_file_id, how) SELECT run_id, id, 'listed' FROM log_files WHERE run_id LIKE 'made-%'
"""
"""Of the hours before, in the state database; times without their colons at first, which mark parameters."""


class Opened:
    """Counts the files below a lake's folders that are opened, by any thread and any library."""

    _OPEN, _IS_FOLDER = 0x20, 0x40000000

    def __init__(self, lake: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(os.O_NONBLOCK)
        self._lake, self._watched = lake, set[Path]()
        self.count()

    def count(self) -> int:
        """Files opened since the last time; folders that are new since are watched from now on."""
        opened = 0
        while data := self._read():
            at = 0
            while at < len(data):
                _, mask, _, length = struct.unpack_from("iIII", data, at)
                opened += bool(mask & self._OPEN) and not mask & self._IS_FOLDER
                at += 16 + length
        for folder, *_ in os.walk(self._lake):
            if Path(folder) not in self._watched:
                if self._libc.inotify_add_watch(self._inotify, folder.encode(), self._OPEN) < 0:
                    sys.exit("Folders cannot be watched: raise fs.inotify.max_user_watches.")
                self._watched.add(Path(folder))
        while self._read():  # the walk opened every folder, and a queue that is full drops what comes later
            pass
        return opened

    def _read(self) -> bytes:
        try:
            return os.read(self._inotify, 2**20)
        except BlockingIOError:
            return b""


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


class House:
    """A lake of so many days and its state, in a folder."""

    def __init__(self, folder: Path, days: int, given: argparse.Namespace) -> None:
        self.folder, self.days, self._given = folder, days, given
        self._rng = random.Random(days)
        self.now = NOON
        self.parts = wiring.open(config.load({"KYRA_HOME": str(folder)}))
        self.parts.clock = lambda: self.now
        self.integration = self._integrate()
        self._a_day()
        self._days_before()
        self._books()
        with self.parts.state._database._engine.connect() as connection:
            # So much in one transaction leaves a journal that later runs would tidy up.
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self.opened = Opened(folder / "lake")

    def _integrate(self) -> Integration:
        bucket = self.folder / "bucket"
        bucket.mkdir(parents=True)
        integration = make_integration("acme", bucket=bucket.as_uri(), now=NOON - timedelta(days=self.days))
        self.parts.state.integrations.add(integration, integration.created_at)
        return integration

    def accounts(self) -> list[str]:
        return [f"{111122223333 + number:012}" for number in range(self._given.accounts)]

    def _a_day(self) -> None:
        """Yesterday, the real way."""
        rng, manifest = generate.Random(1), generate.Manifest()
        start = datetime.combine(NOON.date() - timedelta(days=1), datetime.min.time())
        for account in self.accounts():
            for part in range(4):
                region, at = generate.REGIONS[part % 3], start + timedelta(hours=6 * part + 1)
                texts = generate.records(rng, account, region, at, self._given.per_day // 4, manifest)
                generate.write_file(self.folder / "first", rng, account, region, at, texts, manifest)
        load([self.folder / "first"], **{**self.parts.for_run(), "corpus": None})
        compact(self.parts.for_maintenance(Silent()), last=NOON.date())
        ledger = self.parts.state.ledger
        for kind in ("events", "activity"):
            assert len(ledger.data_files(kind, first=start.date(), last=start.date())) == self._given.accounts

    def _days_before(self) -> None:
        """The days before yesterday: the same again, by other ids."""
        state, yesterday = self.parts.state, NOON.date() - timedelta(days=1)
        rows: list[dict[str, Any]] = []
        for kind in ("events", "activity"):
            for file in state.ledger.data_files(kind, first=yesterday, last=yesterday):
                whole = pq.ParquetFile(self.folder / "lake" / file.path).read()
                for back in range(1, self.days):
                    day = yesterday - timedelta(days=back)
                    rows.append(self._written(kind, file, whole, day, timedelta(days=back)))
        swap = {"swap_id": "compact-made", "kind": "compact", "account": "", "date": yesterday, "state": "committed"}
        with state._database.write() as connection:
            connection.execute(insert(tables.swaps), [swap | {"planned_at": NOON, "settled_at": NOON}])
            for start in range(0, len(rows), 1000):
                connection.execute(insert(tables.data_files), rows[start : start + 1000])
            versions = [{"account": row["account"], "date": row["date"], "version": 2} for row in rows]
            once = {(row["account"], row["date"]): row for row in versions}
            connection.execute(state._database.insert(tables.partitions).on_conflict_do_nothing(), list(once.values()))

    def _written(self, kind: Any, like: DataFile, rows: pa.Table, day: date, back: timedelta) -> dict[str, Any]:
        # Nobody calls at the same second every day; which day events are of must not change.
        late = 1800 if kind == "activity" else 0
        earlier = [back + timedelta(seconds=self._rng.randint(-late, late)) for _ in range(rows.num_rows)]
        for name in rows.column_names:
            if rows.schema.field(name).type == pa.timestamp("us"):
                rows = _put(rows, name, pc.subtract(rows[name], pa.array(earlier, pa.duration("us"))))
        options = parquet_options(rows.schema)
        if kind == "events":
            ids = [str(uuid.UUID(int=self._rng.getrandbits(128))) for _ in range(rows.num_rows)]
            rows = _put(rows, "event_id", pa.array(ids))
            options["bloom_filter_options"] = {name: {"ndv": rows.num_rows, "fpp": 0.05} for name in BLOOMS}
        folder = layout.EVENTS_DIR if kind == "events" else layout.ACTIVITY_DIR
        path = layout.partitioned(folder, like.account or "", day, "compact-made-0")
        target = self.folder / "lake" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, target, **options)
        times = [at - back if at else None for at in (like.min_time, like.max_time)]
        file = DataFile(
            kind, path, path, rows.num_rows, target.stat().st_size, like.account, day, *times, published=True
        )
        return data_row(file, swap_id="compact-made")

    def _books(self) -> None:
        """Runs, batches and log files of every hour before: made by the database, as they are many."""
        hours = 24 * (self.days - 1)
        with self.parts.state._database.write() as connection:
            for statement in BOOKS.split(";"):
                given = {
                    "first": f"{NOON - timedelta(days=self.days):%Y-%m-%d 00:00:00}",
                    "hours": hours,
                    "files": FILES,
                }
                given |= {"bucket": self.integration.bucket, "report": json.dumps({"loaded": FILES})}
                given |= {"folder": f"AWSLogs/{generate.ORGANIZATION}/"}
                needed = {name: value for name, value in given.items() if f":{name}" in statement}
                connection.execute(text(statement), needed)

    def run(self, wakers: list[dict[str, Any]]) -> tuple[float, ...]:
        """The next five minutes: files opened, bytes read, seconds, and those of the processor."""
        self._deliver(wakers)
        self.now += 2 * FIVE
        bucket = wiring.bucket_of(self.parts, self.integration)
        given = self.parts.for_run()
        self.opened.count()
        read, begun, worked = bytes_read(), time.perf_counter(), time.process_time()
        report = sync(self.integration, bucket=bucket, **given)
        taken, worked, read = time.perf_counter() - begun, time.process_time() - worked, bytes_read() - read
        self.check(report)
        opened = self.opened.count()
        self.now -= FIVE
        return opened, read, taken, worked

    def check(self, report: RunReport) -> None:
        assert (report.loaded, report.duplicates, report.detect.failed) == (FILES, 0, ()), report

    def _deliver(self, wakers: list[dict[str, Any]]) -> None:
        """Sixty log files of the five minutes that begin now."""
        rng, manifest = generate.Random(int(self.now.timestamp())), generate.Manifest()
        bucket, accounts = self.folder / "bucket", self.accounts()
        for number in range(FILES):
            account, region = accounts[number % len(accounts)], generate.REGIONS[number // len(accounts) % 3]
            own = [self._waking(rng, event, account) for event in wakers[number::FILES]]
            count = self._given.events // FILES - len(own)
            texts = [*generate.records(rng, account, region, self.now, count, manifest), *own]
            generate.write_file(bucket, rng, account, region, self.now, iter(texts), manifest)

    def _waking(self, rng: random.Random, event: dict[str, Any], account: str) -> str:
        own = {"recipientAccountId": account, "eventID": str(uuid.UUID(int=rng.getrandbits(128)))}
        return json.dumps(event | own | {"eventTime": f"{self.now + rng.random() * FIVE:%Y-%m-%dT%H:%M:%SZ}"})


def _put(rows: pa.Table, name: str, values: Any) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), values)


def wakers() -> list[dict[str, Any]]:
    """For every detection, the first event of its first case that fires."""
    first: dict[str, dict[str, Any]] = {}
    for case in load_cases([resources.cases_dir()]):
        if case.fires:
            first.setdefault(case.detection, dict(case.events[0]))
    return list(first.values())


def measured(houses: list[House], kind: str, runs: int) -> Iterator[list[float]]:
    """For each house, the medians of its runs; the first of each is not counted."""
    events = wakers() if kind == "every" else []
    taken: list[list[tuple[float, ...]]] = [[] for _ in houses]
    for _ in range(runs + 1):
        for house, own in zip(houses, taken, strict=True):
            own.append(house.run(events))
    for own in taken:
        yield [statistics.median(column) for column in zip(*own[1:], strict=True)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--days", type=int, nargs="+", default=[30, 365])
    arguments.add_argument("--accounts", type=int, default=20)
    arguments.add_argument("--per-day", type=int, default=300, help="events of an account's day")
    arguments.add_argument("--events", type=int, default=6_000, help="events of a five-minute run")
    arguments.add_argument("--runs", type=int, default=7)
    arguments.add_argument("--kind", choices=("ordinary", "every", "both"), default="both")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="kyra-bench-") as scratch:
        houses = []
        for days in given.days:
            begun = time.perf_counter()
            houses.append(House(Path(scratch) / str(days), days, given))
            print(f"a lake of {days} days made in {time.perf_counter() - begun:.0f} s", flush=True)
        for kind in ("ordinary", "every") if given.kind == "both" else (given.kind,):
            print(f"\n{kind:<10}{'opened':>10}{'read':>12}{'wall':>11}{'processor':>13}")
            found = list(measured(houses, kind, given.runs))
            for days, (opened, read, wall, worked) in zip(given.days, found, strict=True):
                times = f"{wall * 1e3:>8,.0f} ms{worked * 1e3:>10,.0f} ms"
                print(f"{days:>5} days{opened:>10,.0f}{read / 2**20:>9,.1f} MB{times}", flush=True)
            ratios = [last / max(first, 1e-9) for first, last in zip(found[0], found[-1], strict=True)]
            print("{:<10}{:>10.2f}{:>12.2f}{:>11.2f}{:>13.2f}".format("ratio", *ratios), flush=True)
            for what, at_most, ratio in zip(("opened", "read", "wall"), TARGETS, ratios, strict=False):
                print(f"{'met   ' if ratio <= at_most else 'MISSED'}  {what} {ratio:.2f} times, at most {at_most}")
        for house in houses:
            house.parts.close()


if __name__ == "__main__":
    main()
