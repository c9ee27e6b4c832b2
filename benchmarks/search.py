"""How soon `kyra search` answers, measured against scanning the whole lake.

    python benchmarks/search.py [--events 200000] [--days 30] [--repeat 5] [--home FOLDER]

Log files from a fixed seed are loaded, three events of a rare name on three days among them. Then the same question is
asked in four ways, in the lake as loaded and again after compaction, medians of some runs:

    first rows     `kyra search event_name:…`, up to the first rows it shows
    page           the same until it knows that there are no others
    glob           plain DuckDB over all files by name: SELECT * … WHERE lower(event_name) = … ORDER BY event_time
    full scan      plain DuckDB looking for the word in all text of all events, as with grep

With --home, a folder that an earlier run left is used again. Times are of this machine and moment, in this process with
DuckDB at hand; the last line is a whole `kyra search` as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import duckdb

from benchmarks import generate
from kyra_etl import config, resources, wiring
from kyra_etl.cloudtrail.schema import EVENTS
from kyra_etl.lake import views
from kyra_etl.load import load
from kyra_etl.maintain.compact import compact
from kyra_etl.ports import Silent
from kyra_etl.search import Search

RARE = "PutResourcePolicy"
HITS = 3


def plant(folder: Path, days: int) -> None:
    """Three events of a rare name, early, in the middle and late."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(HITS):
        at = generate.FIRST + timedelta(days=n * (days - 1) // (HITS - 1), hours=3 + n)
        record = {
            "eventVersion": "1.09",
            "eventTime": f"{at.isoformat()}Z",
            "eventID": f"rare-{n}",
            "eventName": RARE,
            "eventSource": "secretsmanager.amazonaws.com",
            "awsRegion": "eu-west-1",
            "sourceIPAddress": "198.51.100.7",
            "userIdentity": {"type": "IAMUser", "userName": "alex"},
            "recipientAccountId": "111122223333",
        }
        (folder / f"rare-{n}.json").write_text(json.dumps({"Records": [record]}))


def median(ask: Callable[[], object], repeat: int) -> float:
    """Seconds, of some runs after one that fills caches."""
    taken = []
    for _ in range(repeat + 1):
        begun = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def measure(parts: wiring.Parts, repeat: int) -> dict[str, float]:
    """Seconds of each way to ask; all must find the same."""

    def found() -> Search:
        return wiring.search_of(parts, f"event_name:{RARE}", limit=100)

    def first() -> None:
        next(iter(found()))

    def page() -> None:
        assert sum(len(rows) for rows in found()) == HITS

    def plainly(where: str) -> Callable[[], None]:
        def ask() -> None:
            files = parts.lake.uri("events/*/*/*.parquet")
            with duckdb.connect() as connection:
                connection.execute(f"CREATE VIEW events AS {views.reading_glob(EVENTS, files)}")
                rows = connection.execute(f"SELECT * FROM events WHERE {where} ORDER BY event_time DESC").fetchall()
                assert len(rows) == HITS

        return ask

    texts = ", ".join(field.name for field in EVENTS if str(field.type) == "string" and field.name != "source_key")
    return {
        "first rows": median(first, repeat),
        "page": median(page, repeat),
        "glob": median(plainly(f"lower(event_name) = '{RARE.lower()}'"), repeat),
        "full scan": median(plainly(f"concat_ws(' ', {texts}) ILIKE '%{RARE}%'"), max(1, repeat // 2)),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--events", type=int, default=200_000)
    arguments.add_argument("--days", type=int, default=30)
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--home", type=Path, help="work in this folder and leave the lake there")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="kyra-bench-") as scratch:
        home = chosen.home or Path(scratch) / "home"
        with wiring.open(config.load({"KYRA_HOME": str(home)})) as parts:
            heads = "".join(f"{name:>12}" for name in ("first rows", "page", "glob", "full scan"))
            print(f"{'':<14}{'files':>8}{heads}  full scan / first rows")
            if not (home / "lake").exists():
                logs = Path(scratch) / "logs"
                generate.write_bucket(logs, chosen.events - HITS, days=chosen.days)
                plant(logs / "rare", chosen.days)
                load([logs], **{**parts.for_run(), "corpus": None})
                show("as loaded", parts, chosen.repeat)
            compact(parts.for_maintenance(Silent()))
            show("compacted", parts, chosen.repeat)
        command = [sys.executable, "-c", "from kyra_etl.cli import main; main()", "search", f"event_name:{RARE}"]
        root = str(resources.root())
        environment = config.child_environment(home, Path(root))
        whole = median(lambda: subprocess.run(command, env=environment, check=True, capture_output=True), 3)
        print(f"\n`kyra search event_name:{RARE}` as a process, start and end included: {whole:.2f} s")


def show(label: str, parts: wiring.Parts, repeat: int) -> None:
    taken = measure(parts, repeat)
    files = len(parts.state.ledger.data_files("events"))
    times = "".join(f"{1000 * seconds:>9,.0f} ms" for seconds in taken.values())
    print(f"{label:<14}{files:>8,}{times}  {taken['full scan'] / taken['first rows']:.1f} ×", flush=True)


if __name__ == "__main__":
    main()
