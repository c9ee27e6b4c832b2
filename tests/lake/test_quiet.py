"""DuckDB draws a progress bar on standard output where it takes a process for a notebook: ours never does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json
import duckdb
from kyra_etl.lake import compact, engine, open_lake, query

bar = "SELECT current_setting('enable_progress_bar')"
lake = open_lake({lake!r})
seen = [query.Analyst(lambda kind: (), {{}}, seconds=60).query(bar).rows[0][0]]
with compact.working_memory(lake.storage, "x", 2**28) as connection:
    seen.append(connection.execute(bar).fetchone()[0])
seen += [connection.execute(bar).fetchone()[0] for connection in engine._open(lake, 2)]
by_itself = duckdb.connect(":memory:").execute(bar).fetchone()[0]
print(json.dumps([by_itself, *seen]))
"""


def test_no_connection_of_ours_draws_a_progress_bar(tmp_path: Path) -> None:
    program = PROGRAM.format(lake=str(tmp_path / "lake"))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert json.loads(ran.stdout) == [True, False, False, False, False]
