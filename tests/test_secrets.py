"""The search for planted secrets finds what it should: it guards every other test (tests/planted.py)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from kyra_etl.integrations import new_external_id
from kyra_etl.model import Integration
from kyra_etl.state import State
from tests import planted
from tests.planted import EXTERNAL_ID, QUEUE_URL, TOKEN, leaks


@pytest.mark.parametrize(
    "text",
    [
        EXTERNAL_ID,
        f"at {QUEUE_URL}?",
        TOKEN,
        f'{{"sts:ExternalId": "{EXTERNAL_ID}"}}',
        "kyra-Ab3_-Ab3_-Ab3_-Ab3_-Ab3_-Ab3_-12",
    ],
)
def test_a_planted_secret_is_seen_in_any_text(text: str) -> None:
    assert leaks(f"… {text} …")
    assert leaks(f"… {text} …".encode())


@pytest.mark.parametrize(
    "text",
    [
        "kyra-etl-production",
        "****",
        "arn:aws:sqs:eu-west-1:1:pl4nted-queue",
        "kyra-detections-are-all-in-lower-case",
        "",
    ],
)
def test_what_is_no_secret_is_not_taken_for_one(text: str) -> None:
    assert leaks(text) == []


def test_external_ids_that_kyra_makes_are_seen() -> None:
    seen = [bool(leaks(f"id {new_external_id()}.")) for _ in range(200)]
    assert sum(seen) > 190, "all but those without a capital letter or a digit"


def test_what_a_test_prints_is_searched_wherever_it_reads_it(
    watched: planted.Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    print(EXTERNAL_ID)
    capsys.readouterr()
    subprocess.run([sys.executable, "-c", f"print({QUEUE_URL!r})"], capture_output=True, check=True)
    assert len(watched.seen) == 2
    watched.seen.clear()
    subprocess.run(
        [sys.executable, "-c", f"print({TOKEN!r})", "integration", "policy"], capture_output=True, check=True
    )
    assert watched.seen == [], "the one command that may show them"


def test_files_are_searched_and_the_state_by_its_columns(tmp_path: Path) -> None:
    with State.open(f"sqlite:///{tmp_path / 'state.db'}") as state:
        secret = Integration("acme", "logs", external_id=EXTERNAL_ID, queue_url=QUEUE_URL)
        state.integrations.add(secret, datetime(2026, 1, 1))
    assert list(planted.in_folder(tmp_path)) == [], "in their own two columns they are at home"

    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "serve.log").write_text(f"INFO role assumed with {EXTERNAL_ID}\n")
    with closing(sqlite3.connect(tmp_path / "state.db")) as database, database:
        database.execute("UPDATE integrations SET region = ?", (f"of {QUEUE_URL}",))
    found = list(planted.in_folder(tmp_path))
    assert [line.rpartition("/")[2] for line in found] == ["serve.log", "state.db"]
    assert "integrations.region" in found[1]

    (tmp_path / "logs" / "serve.log").unlink()
    with closing(sqlite3.connect(tmp_path / "state.db")) as database, database:
        database.execute("UPDATE integrations SET region = NULL")
