"""How fast `kyra load` is and what memory it takes, measured against DuckDB and polars loading the same files.

    python benchmarks/load.py [--events 100000 2000000] [--document 500] [--corpus FOLDER …]
                              [--repeat 3] [--processes 2] [--only …] [--keep FOLDER]

Without `--events`, `--document` and `--corpus` it takes 100,000 events, two million, and one log file of 500 MB. It
writes an organization's log files from a fixed seed (benchmarks/generate.py), or takes those of a folder that
generate.py has written, then loads them in turn with each of

    kyra load   `kyra load --no-detect`: everything that loading is, to the committed lake
    decode      the part of it that others do as well: decode and write Parquet, in so many processes
    DuckDB      one statement in so many threads, its `maximum_object_size` set just above the largest document
    polars      the records cut out of their envelopes, then read_ndjson and sink_parquet
    floor       inflate with isal, parse with msgspec, write the rows with pyarrow: nothing derived, nothing kept back

each in a process of its own, and prints medians, their spread and ratios, and whether the targets are met. The figures
are of this machine and moment; ratios travel better than seconds. What is compared is not the same work: all write zstd
Parquet by account and date with the free-form parts as text, but kyra also keeps unknown fields and every byte,
deduplicates, derives columns, writes `activity` and keeps a ledger. That the lake is right is checked against the
manifest of the files: rows, ids, unknown fields, and every byte of every free-form part; the command fails when it is
not. docs/performance.md says more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.generate import manifest_of, write_bucket, write_document

LABELS = {"kyra load": "kyra load", "decode": "decode", "duckdb": "DuckDB", "polars": "polars", "floor": "floor"}

DECODE_FASTER, LOAD_FASTER = 1.5, 1.2
"""How many times faster than DuckDB's statement, at least."""

PEAK = 512 * 2**20
"""Bytes of memory of a process of `kyra load`, at most."""

SMALL = 32 * 2**20
"""Bytes below which a process does no work worth telling."""

ALIKE = 0.2
"""How far the peak of a corpus may be from the middle of the highest and the lowest."""


@dataclass(frozen=True)
class Measured:
    """One process, start to end. `peaks`: resident set of it and of each process it started, in bytes."""

    wall: float
    cpu: float
    peaks: tuple[int, ...]


@dataclass
class Corpus:
    """Log files, what they hold, and what loading them took."""

    name: str
    source: Path
    manifest: dict[str, Any]
    runs: dict[str, list[Measured]] = field(default_factory=dict)

    def wall(self, name: str) -> float:
        """The median of a contender's seconds."""
        return statistics.median(one.wall for one in self.runs[name])

    def peak(self, name: str) -> int:
        """The highest resident set of any of a contender's processes."""
        return max(max(one.peaks) for one in self.runs[name])


def run(command: list[str], env: dict[str, str] | None = None) -> Measured:
    """Run a process to its end; its output is kept back unless it fails."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        peaks: dict[int, int] = {}
        ended = threading.Event()
        watching = threading.Thread(target=_watch, args=(process.pid, peaks, ended), daemon=True)
        watching.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        ended.set()
        watching.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            sys.exit(f"{' '.join(command)[:200]} failed:\n{output.read().decode(errors='replace')}")
    largest = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    own = peaks.pop(process.pid, largest)
    others = tuple(sorted((peak for peak in peaks.values() if peak > SMALL), reverse=True))
    # The system's own figure is of the largest process, to its last moment.
    return Measured(
        wall, usage.ru_utime + usage.ru_stime, (max(own, largest) if largest > max((0, *others)) else own, *others)
    )


def _watch(pid: int, peaks: dict[int, int], ended: threading.Event) -> None:
    """Note the highest resident set of a process and of those below it, where /proc tells."""
    while not ended.wait(0.05):
        for each in _family(pid):
            try:
                said = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{each}/status").read_text())
            except OSError:
                continue
            if said:
                peaks[each] = int(said[1]) * 1024


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
    except OSError:
        return


def load_with(name: str, source: Path, work: Path, processes: int) -> tuple[Measured, Path]:
    """One of the contenders into a new folder."""
    target = work / name.replace(" ", "-")
    shutil.rmtree(target, ignore_errors=True)
    if name == "kyra load":
        kyra = [sys.executable, "-c", "from kyra_etl.cli import main; main()"]
        env = {"KYRA_HOME": str(target), "KYRA_DECODE_PROCESSES": str(processes)}
        return run([*kyra, "load", "--no-detect", "--json", str(source)], env), target / "lake" / "events"
    target.mkdir(parents=True)
    contender = Path(__file__).with_name("contenders.py")
    return run([sys.executable, str(contender), name, str(source), str(target), str(processes)]), target


def verify(lake: Path, manifest: dict[str, Any]) -> None:
    """Insist that kyra's lake holds what the manifest says: rows, ids, unknown fields, and every byte of every cell."""
    import duckdb

    place = f"read_parquet('{lake}/**/*.parquet')"
    counted = duckdb.sql(f"SELECT count(*), count(DISTINCT event_id), count(extra) FROM {place}").fetchall()[0]
    wanted = (manifest["events"], manifest["events"], manifest["unknown_fields"])
    if counted != wanted:
        sys.exit(f"{lake} holds {counted} events, ids and unknown fields, not {wanted}: the times mean nothing.")
    if "part_sums" not in manifest:
        sys.exit("The manifest is of an older benchmarks/generate.py: make the log files again.")
    for part, size in manifest["part_bytes"].items():
        column = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in part)
        query = f"SELECT sum(strlen({column})), sum(md5_number_lower(event_id || ' ' || {column})) FROM {place}"
        if duckdb.sql(query).fetchall() != [(size, manifest["part_sums"][part])]:
            sys.exit(f"{part} is not what was delivered in {lake}: the times mean nothing.")


def line(name: str, corpus: Corpus, lake: Path, base: str) -> str:
    """One row of the table; ratios are of medians, the base's over this one's."""
    runs = corpus.runs[name]
    walls = [one.wall for one in runs]
    wall, cpu = corpus.wall(name), statistics.median(one.cpu for one in runs)
    peaks = " + ".join(f"{peak / 2**20:.0f}" for peak in max(runs, key=lambda one: max(one.peaks)).peaks)
    disk = sum(file.stat().st_size for file in lake.rglob("*.parquet"))
    events = corpus.manifest["events"]
    return (
        f"{LABELS[name]:<11}{wall:>7.2f} s {min(walls):>7.2f}–{max(walls):<7.2f}{cpu:>7.2f} s {events / wall:>9,.0f}"
        f"{disk / events:>7.0f} B {corpus.wall(base) / wall:>6.2f} {corpus.peak(name) / corpus.peak(base):>6.2f}"
        f"   {peaks} MB"
    )


def measure(corpus: Corpus, names: list[str], work: Path, repeat: int, processes: int) -> None:
    """Load a corpus with each of the contenders in turn, see that kyra's lake is right, and print the table."""
    made = corpus.manifest
    packed = sum(file.stat().st_size for file in corpus.source.rglob("*.json.gz"))
    print(
        f"\n{corpus.name}: {made['events']:,} events in {made['files']:,} files, {made['bytes'] / 2**20:,.0f} MB JSON, "
        f"{packed / 2**20:,.0f} MB gzip; {processes} processes on {os.cpu_count()} cores, {repeat} runs each",
        flush=True,
    )
    corpus.runs = {name: [] for name in names}
    lakes: dict[str, Path] = {}
    for _ in range(repeat):
        for name, measured in corpus.runs.items():
            done, lakes[name] = load_with(name, corpus.source, work, processes)
            measured.append(done)
    if "kyra load" in lakes:
        verify(lakes["kyra load"], made)
    base = "duckdb" if "duckdb" in names else names[0]
    print(f"{'':<11}   median  range              CPU    events/s   event  times memory   peak of each process")
    for name in names:
        print(line(name, corpus, lakes[name], base))
    for lake in lakes.values():
        shutil.rmtree(lake, ignore_errors=True)


def targets(corpora: list[Corpus]) -> Iterator[tuple[bool, str]]:
    """What is promised, and whether it was kept."""
    for corpus in corpora:
        for name, least in (("decode", DECODE_FASTER), ("kyra load", LOAD_FASTER)):
            if name in corpus.runs and "duckdb" in corpus.runs:
                times = corpus.wall("duckdb") / corpus.wall(name)
                yield times >= least, f"{corpus.name}: {name} {times:.2f} times as fast as DuckDB, at least {least}"
    peaks = {corpus.name: corpus.peak("kyra load") for corpus in corpora if "kyra load" in corpus.runs}
    for name, peak in peaks.items():
        yield peak <= PEAK, f"{name}: peak {peak / 2**20:.0f} MB a process, at most {PEAK / 2**20:.0f}"
    if len(peaks) > 1:
        low, high = min(peaks.values()), max(peaks.values())
        apart = (high - low) / (high + low)
        yield apart <= ALIKE, f"peaks of the corpora within ± {apart:.0%} of their middle, at most {ALIKE:.0%}"


def corpora_of(chosen: argparse.Namespace, work: Path) -> Iterator[Corpus]:
    """The corpora that were asked for, written one by one."""
    events, documents = chosen.events, chosen.document
    if not (events or documents or chosen.corpus):
        events, documents = [100_000, 2_000_000], [500]
    source = work / "bucket"
    for number in events:
        shutil.rmtree(source, ignore_errors=True)
        write_bucket(source, number)
        yield Corpus(f"{number:,} events", source, json.loads(manifest_of(source).read_text()))
    for megabytes in documents:
        shutil.rmtree(source, ignore_errors=True)
        write_document(source, megabytes)
        yield Corpus(f"one document of {megabytes} MB", source, json.loads(manifest_of(source).read_text()))
    for folder in chosen.corpus:
        yield Corpus(folder.name, folder, json.loads(manifest_of(folder).read_text()))


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--events", type=int, nargs="+", default=[], help="corpora of so many events")
    arguments.add_argument("--document", type=int, nargs="+", default=[], metavar="MB", help="corpora of one log file")
    arguments.add_argument("--corpus", type=Path, nargs="+", default=[], help="folders that generate.py has written")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--processes", type=int, default=2, help="that decode, and threads of DuckDB")
    arguments.add_argument("--only", nargs="+", choices=LABELS, default=list(LABELS), help="some of the contenders")
    arguments.add_argument("--keep", type=Path, help="work in this folder and leave the log files there")
    chosen = arguments.parse_args()
    work = chosen.keep or Path(tempfile.mkdtemp(prefix="kyra-bench-"))
    corpora: list[Corpus] = []
    try:
        for corpus in corpora_of(chosen, work):
            # Polars and the floor read a document whole, which says nothing here.
            names = [one for one in chosen.only if corpus.manifest["files"] > 1 or one not in ("polars", "floor")]
            measure(corpus, names, work, chosen.repeat, chosen.processes)
            corpora.append(corpus)
    finally:
        if not chosen.keep:
            shutil.rmtree(work, ignore_errors=True)
    print("\nevent: bytes on disk. times: as fast as DuckDB. memory: of the largest process, over DuckDB's.\n")
    for kept, what in targets(corpora):
        print(f"{'met   ' if kept else 'MISSED'}  {what}")


if __name__ == "__main__":
    main()
