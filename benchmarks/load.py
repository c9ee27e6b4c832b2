"""How fast `kyra load` is, measured against DuckDB and polars loading the same files.

    python benchmarks/load.py [--events 100000] [--repeat 3] [--keep FOLDER]

Writes an organization's log files from a fixed seed (benchmarks/generate.py), then loads them in turn with each of

    kyra load   `kyra load --no-detect`: everything that loading is, to the committed lake
    decode      the part of it that others do as well: decode and write Parquet, a process a core
    DuckDB      one statement, its `maximum_object_size` set just above the largest document
    polars      the records cut out of their envelopes, then read_ndjson and sink_parquet
    floor       inflate with isal, parse with msgspec, write the rows with pyarrow: nothing derived, nothing kept back

each in a process of its own, and prints medians, their spread and ratios. The figures are of this machine and moment;
ratios travel better than seconds. What is compared is not the same work: all write zstd Parquet by account and date
with the free-form parts as text, but kyra also keeps unknown fields and every byte, deduplicates, derives columns,
writes `activity` and keeps a ledger. That the lake is right is checked against the manifest of the files: rows, ids,
unknown fields, and every byte of the free-form parts of a record in a thousand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.generate import manifest_of, write_bucket, write_document

LABELS = {"decode": "decode", "duckdb": "DuckDB", "polars": "polars", "floor": "floor"}


@dataclass(frozen=True)
class Measured:
    """One process, start to end. `peak` is the resident set of its largest process, in bytes."""

    wall: float
    cpu: float
    peak: int


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


def load_with(name: str, source: Path, work: Path) -> tuple[Measured, Path]:
    """One of the contenders into a new folder."""
    target = work / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    contender = Path(__file__).with_name("contenders.py")
    return run([sys.executable, str(contender), name, str(source), str(target)]), target


def verify(lake: Path, manifest: dict[str, Any]) -> None:
    """Insist that kyra's lake holds what the manifest says: rows, ids, unknown fields, and every byte of a sample."""
    import duckdb

    place = f"read_parquet('{lake}/**/*.parquet')"
    counted = duckdb.sql(f"SELECT count(*), count(DISTINCT event_id), count(extra) FROM {place}").fetchall()[0]
    wanted = (manifest["events"], manifest["events"], manifest["unknown_fields"])
    if counted != wanted:
        sys.exit(f"{lake} holds {counted} events, ids and unknown fields, not {wanted}: the times mean nothing.")
    for part, size in manifest["part_bytes"].items():
        column = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in part)
        (held,) = duckdb.sql(f"SELECT sum(strlen({column})) FROM {place}").fetchall()[0]
        cells = dict(
            duckdb.execute(
                f"SELECT event_id, {column} FROM {place} WHERE event_id IN (SELECT unnest(?))",
                [list(manifest["sample"])],
            ).fetchall()
        )
        if held != size or cells != {id_: parts[part] for id_, parts in manifest["sample"].items()}:
            sys.exit(f"{part} is not what was delivered in {lake}: the times mean nothing.")


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
    arguments.add_argument("--document", type=int, metavar="MB", help="one log file of so many megabytes instead")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--only", nargs="+", default=["kyra load", *LABELS], help="some of the contenders")
    arguments.add_argument("--keep", type=Path, help="work in this folder and leave the files there")
    chosen = arguments.parse_args()
    work = chosen.keep or Path(tempfile.mkdtemp(prefix="kyra-bench-"))
    try:
        source = work / "bucket"
        shutil.rmtree(source, ignore_errors=True)
        made = write_document(source, chosen.document) if chosen.document else write_bucket(source, chosen.events)
        packed = sum(file.stat().st_size for file in source.rglob("*.json.gz"))
        print(
            f"{made.events:,} events in {made.files:,} files: {made.bytes / 2**20:,.0f} MB of JSON, "
            f"{packed / 2**20:,.0f} MB gzip; {os.cpu_count()} cores, {chosen.repeat} runs each\n"
        )
        runs: dict[str, list[Measured]] = {name: [] for name in chosen.only}
        lakes: dict[str, Path] = {}
        for _ in range(chosen.repeat):
            for name, measured in runs.items():
                loaded = load_with_kyra(source, work) if name == "kyra load" else load_with(name, source, work)
                measured.append(loaded[0])
                lakes[name] = loaded[1]
        if "kyra load" in lakes:
            verify(lakes["kyra load"], json.loads(manifest_of(source).read_text()))
        base = runs.get("duckdb") or next(iter(runs.values()))
        print(f"{'':<12}   median  range            CPU   events/s     memory      event  time ×   mem ×")
        for name, measured in runs.items():
            print(line(LABELS.get(name, name), measured, made.events, lakes[name], base))
        print(
            "\nmemory: resident set of the largest process. event: bytes on disk. ×: over DuckDB's, below 1 is better."
        )
    finally:
        if not chosen.keep:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
