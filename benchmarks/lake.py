"""What compaction does to a day of small files: bytes an event, and the time of everyday queries before and after.

    python benchmarks/lake.py [--events 443000] [--accounts 23] [--repeat 3] [--keep FOLDER]

Writes a day of an organization's log files from a fixed seed (the records of benchmarks/generate.py): one for every
account and five minutes, as small as they then are. Loads them as syncs would, in 288 runs, so that some 6,700 files of
events lie in the lake. Then everyday queries are asked of DuckDB over the committed files, each on a connection of its
own; the day is compacted, and they are asked again. Ratios of medians. While it is compacted, `kyra sql` counts the
events over and over, and so does a plain DuckDB with a glob: the first may never be wrong, the second never see one
twice. Prints what is MISSED, and ends with 1 when a count is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import generate

from kyra_etl import config, wiring
from kyra_etl.cloudtrail.schema import EVENTS
from kyra_etl.lake import Rows, views
from kyra_etl.lake.dedup import Distinct
from kyra_etl.load import load
from kyra_etl.maintain.compact import CompactReport, compact
from kyra_etl.ports import Silent
from tests.looping import Looping

DAY = f"{generate.FIRST:%Y-%m-%d}"
SLOTS = 288
"""Five minutes of a day."""
COUNT = "SELECT count(*) AS n FROM events"


def opened(home: Path) -> wiring.Parts:
    """The parts of a home of its own; the clock stands some days after the log files."""
    parts = wiring.open(config.load({"KYRA_HOME": str(home)}))
    parts.clock = lambda: generate.FIRST + timedelta(days=3)
    return parts


def write_day(bucket: Path, events: int, accounts: int) -> list[list[Path]]:
    """A day's log files, in the order of their five minutes."""
    rng, manifest = generate.Random(1), generate.Manifest()
    names = [f"{111122223333 + number:012}" for number in range(accounts)]
    average = events / (SLOTS * accounts)
    slots = []
    for slot in range(SLOTS):
        start = generate.FIRST + timedelta(minutes=5 * slot)
        for account in names:
            count = max(1, round(average * rng.uniform(0.2, 1.8)))
            region = rng.choice(generate.REGIONS[:2])
            texts = generate.records(rng, account, region, start, count, manifest)
            generate.write_file(bucket / str(slot), rng, account, region, start, texts, manifest)
        slots.append(sorted((bucket / str(slot)).rglob("*.json.gz")))
    return slots


def everything(rows: Rows, committed: object) -> Distinct:
    """The deduplication of what is known to be distinct."""
    return Distinct(pa.repeat(pa.scalar(True), rows.num_rows), pa.repeat(pa.scalar(False), rows.num_rows))


def allowed(parts: wiring.Parts) -> int:
    """Files there may be: one for every 128 MB of a partition."""
    sizes: Counter[tuple[str, Any]] = Counter()
    for file in parts.state.ledger.data_files("events"):
        sizes[file.account, file.date] += file.size
    return sum(math.ceil(size / 2**27) for size in sizes.values())


class Everyday:
    """Queries of every day, asked of DuckDB over the committed files."""

    def __init__(self, parts: wiring.Parts) -> None:
        self._parts = parts
        ((rare,),) = self.ask("SELECT event_name FROM events GROUP BY 1 ORDER BY count(*), 1 LIMIT 1")
        ((account,),) = self.ask("SELECT account FROM events GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
        keys = "SELECT user_access_key_id FROM events WHERE user_access_key_id IS NOT NULL GROUP BY 1"
        ((key,),) = self.ask(f"{keys} ORDER BY count(*), 1 LIMIT 1")
        hour = f"event_time >= TIMESTAMP '{DAY} 10:00:00' AND event_time < TIMESTAMP '{DAY} 11:00:00'"
        self.rare = rare
        self.queries = {
            f"one name ({rare})": f"SELECT event_time, principal FROM events WHERE event_name = '{rare}'",
            "one account-day": "SELECT event_name, count(*) FROM events "
            f"WHERE account = '{account}' AND date = DATE '{DAY}' GROUP BY 1",
            "top sources": "SELECT source_ip_address, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC LIMIT 20",
            "one access key": f"SELECT event_time, event_name FROM events WHERE user_access_key_id = '{key}'",
            "one hour": f"SELECT event_name, count(*) FROM events WHERE {hour} GROUP BY 1",
        }

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        files = self._parts.lake.readable(self._parts.state.ledger.data_files("events"))
        with duckdb.connect() as connection:
            connection.execute(f"CREATE VIEW events AS {views.reading(EVENTS, files)}")
            return connection.execute(sql).fetchall()

    def timed(self, repeat: int) -> dict[str, float]:
        return {name: seconds(partial(self.ask, sql), repeat) for name, sql in self.queries.items()}


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Median of so many runs."""
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


class Counting(Looping):
    """Counts the events over and over, as `kyra sql` does and with a plain glob. Use as a context manager."""

    def __init__(self, home: Path, lake: Path) -> None:
        super().__init__(self._ask, self._look)
        self.asked: list[int] = []
        self.globbed: list[int] = []
        self._home, self._glob = home, f"{lake}/events/*/*/*.parquet"

    def _ask(self) -> None:
        sql = [sys.executable, "-c", "from kyra_etl.cli import main; main()", "sql", COUNT, "--json"]
        ran = subprocess.run(sql, env={**os.environ, "KYRA_HOME": str(self._home)}, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(ran.stderr)
        self.asked.append(json.loads(ran.stdout)[0]["n"])

    def _look(self) -> None:
        try:
            with duckdb.connect() as connection:
                ((n,),) = connection.execute(COUNT.replace("events", f"read_parquet('{self._glob}')")).fetchall()
            self.globbed.append(n)
        except duckdb.IOException:  # a file left between listing and reading: such a reader asks again
            pass


def compacted(parts: wiring.Parts) -> tuple[CompactReport, float]:
    began = time.perf_counter()
    return compact(parts.for_maintenance(Silent())), time.perf_counter() - began


def tell(before: dict[str, float], after: dict[str, float]) -> None:
    ratios = {name: before[name] / after[name] for name in before}
    print(f"{'':<32}{'before':>11}{'after':>11}{'ratio':>8}")
    for name, ratio in ratios.items():
        print(f"{name:<32}{before[name] * 1e3:>8,.0f} ms{after[name] * 1e3:>8,.0f} ms{ratio:>8.1f}")
    mean, least = math.prod(ratios.values()) ** (1 / len(ratios)), min(ratios.values())
    print(f"geometric mean {mean:.1f}{missed(mean < 20)}, least {least:.1f}{missed(least < 3)}")


def missed(really: bool) -> str:
    return "  MISSED" if really else ""


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--events", type=int, default=443_000)
    arguments.add_argument("--accounts", type=int, default=23)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--keep", type=Path, help="work in this folder and leave the files there")
    chosen = arguments.parse_args()
    work = chosen.keep or Path(tempfile.mkdtemp(prefix="kyra-lake-"))
    try:
        for name in ("home", "bucket"):
            shutil.rmtree(work / name, ignore_errors=True)
        slots = write_day(work / "bucket", chosen.events, chosen.accounts)
        with opened(work / "home") as parts:
            began = time.perf_counter()
            given = parts.for_run() | {"corpus": None}
            # No event is there twice, and comparing with thousands of small files is not what is measured here.
            parts.lake.distinct = everything  # type: ignore[method-assign]
            for slot in slots:
                load(slot, **given)
            files = sum(map(len, slots))
            print(f"{files:,} log files loaded in {len(slots)} runs, {time.perf_counter() - began:.0f} s", flush=True)
            everyday = Everyday(parts)
            before = everyday.timed(chosen.repeat)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            counting = Counting(work / "home", work / "home" / "lake")
            with counting:
                report, took = compacted(parts)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for failed in report.failed:
                sys.exit(f"{failed}: the times mean nothing.")
            for when, one in (("before", report.before), ("after", report.after)):
                print(
                    f"{when:<7}{one['event_files']:>7,.0f} files of events {one['event_bytes'] / 2**20:>8.1f} MB "
                    f"{one['bytes_per_event']:>7.1f} bytes an event"
                )
            print(f"compacted in {took:.1f} s, {took / report.after['events'] * 1e6:.0f} µs an event; ", end="")
            print(f"memory {peak / 1024:,.0f} MB → {grown / 1024:,.0f} MB")
            too_many = report.after["event_files"] > allowed(parts)
            print(f"at most {allowed(parts)} files{missed(too_many)}, ", end="")
            print(f"at most 145 bytes an event{missed(report.after['bytes_per_event'] > 145)}")
            truth = report.before["events"]
            if counting.problems:
                sys.exit(f"A reader failed: {counting.problems[0]}")
            wrong = sum(n != truth for n in counting.asked), sum(n > truth for n in counting.globbed)
            print(f"counted meanwhile: by kyra sql {len(counting.asked)} times, {wrong[0]} wrong; ", end="")
            print(f"by a glob {len(counting.globbed)} times, {wrong[1]} above the truth\n")
            after = everyday.timed(max(chosen.repeat, 5))
            tell(before, after)
            first = f"SELECT * FROM events WHERE event_name = '{everyday.rare}' ORDER BY event_time DESC LIMIT 100"
            found = seconds(partial(everyday.ask, first), 5)
            text = f"contains(concat_ws(' ', event_name, user_identity, request_parameters), '{everyday.rare}')"
            scan = seconds(partial(everyday.ask, first.replace(f"event_name = '{everyday.rare}'", text)), 3)
            print(f"\na rare name, newest first: {found * 1e3:,.0f} ms; ", end="")
            print(f"the same by scanning texts: {scan * 1e3:,.0f} ms, {scan / found:.1f} times as long")
            if any(wrong):
                sys.exit(1)
    finally:
        if not chosen.keep:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
