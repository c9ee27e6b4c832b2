"""Benchmarks that make a state by hand fit the state of today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--days", "2", "3", "--accounts", "1", "--per-day", "40", "--events", "120", "--runs", "1")


@pytest.mark.skipif(sys.platform != "linux", reason="it counts opened files by Linux's inotify")
def test_five_minute_runs_can_be_measured_on_a_lake_that_was_made_by_hand() -> None:
    command = [sys.executable, "benchmarks/flat.py", *SMALL, "--kind", "ordinary"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)

    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines() if " MB" in line] == ["2", "3"]
    assert "ratio" in done.stdout
