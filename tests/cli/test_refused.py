"""What the machine refuses: rights, a lock, room on the disk, an older schema: one line, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from kyra_etl.state import database, schema
from tests import postgres as installed
from tests.cli.conftest import Kyra, Ran
from tests.refused import held_to_permissions, on_a_small_disk

WRITING = (
    ("sync", "prod"),
    ("load", "{bucket}"),
    ("backfill", "prod", "--from", "2026-01-10", "--to", "2026-01-10"),
    ("integration", "add", "new", "--bucket", "new-logs"),
    ("serve",),
)
READING = (("status",), ("alerts", "list"), ("sql", "SELECT count(*) FROM events"))

PROCESS = """
import contextlib, io, json, os, sys
from kyra_etl import cli

def fill(path):
    with open(path, "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))

told = []
for command in json.loads(sys.argv[1]):
    if command[0] in ("fill", "empty"):
        fill(command[1]) if command[0] == "fill" else os.remove(command[1])
        continue
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(command)
    out.flush()
    told.append((code, out.buffer.getvalue().decode(), err.getvalue()))
print(json.dumps(told))
"""


def process(commands: Sequence[Sequence[str]], before: Sequence[str] = (), **settings: str) -> list[Ran]:
    """Commands one after the other, in a process of their own."""
    env = {**os.environ, **{f"KYRA_{name}": value for name, value in settings.items()}}
    program = [*before, sys.executable, "-c", PROCESS, json.dumps(commands)]
    ran = subprocess.run(program, env=env, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    return [Ran(*each) for each in json.loads(ran.stdout)]


def of(commands: Sequence[Sequence[str]], bucket: Path) -> list[list[str]]:
    return [[part.format(bucket=bucket) for part in command] for command in commands]


@pytest.fixture
def prod(kyra: Kyra, bucket: Path) -> Kyra:
    """An integration over a folder with two log files of three events, nothing loaded yet."""
    assert kyra("integration", "add", "prod", "--bucket", bucket.as_uri()).code == 0
    return kyra


def finishes(kyra: Kyra) -> None:
    ran = kyra("sync", "prod", "--json")
    assert (ran.code, ran.json["events"], ran.json["loaded"]) == (0, 3, 2)
    assert kyra("sql", "SELECT count(*) AS n FROM events", "--json").json == [{"n": 3}]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_state_that_may_only_be_read_is_read_and_every_write_says_so(
    prod: Kyra, bucket: Path, kyra_home: Path, what: str
) -> None:
    before = held_to_permissions()
    refused = kyra_home if what == "folder" else kyra_home / "state.db"
    refused.chmod(0o555 if what == "folder" else 0o444)
    told = process([*of(WRITING, bucket), *READING], before)
    refused.chmod(0o755 if what == "folder" else 0o644)

    for command, ran in zip(WRITING, told, strict=False):
        assert ran.code == 1, (command, ran)
        assert "state.db is read-only. Make the file and its folder writable" in ran.error, command
    for ran in told[len(WRITING) :]:  # SQLite's shared memory is a file of that folder, and has to be made to read
        assert ran.code == 0 or (what == "folder" and "state.db is read-only." in ran.error), ran
    finishes(prod)


def test_home_that_belongs_to_somebody_else_is_named_before_anything_is_served(prod: Kyra, kyra_home: Path) -> None:
    before = held_to_permissions()
    for folder in ("prefect", "logs"):
        (kyra_home / folder).mkdir()
        (kyra_home / folder).chmod(0o555)
        ran = subprocess.run([*before, sys.executable, "-m", "kyra_etl", "serve"], capture_output=True, text=True)
        (kyra_home / folder).chmod(0o755)
        assert ran.returncode == 2, ran.stderr
        assert ran.stderr.startswith(f"{kyra_home / folder}/serve.l")
        assert "cannot be written: Permission denied. Make room, or set KYRA_HOME to a folder" in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_lake_that_cannot_be_written_is_named(prod: Kyra, kyra_home: Path, bucket: Path) -> None:
    before = held_to_permissions()
    (kyra_home / "lake").mkdir()
    (kyra_home / "lake").chmod(0o555)
    commands = [command for command in WRITING if command[0] != "integration"]
    told = process(of(commands, bucket), before)
    (kyra_home / "lake").chmod(0o755)

    for command, ran in zip(commands, told, strict=True):
        assert ran.code == 1, (command, ran)
        assert "Permission denied" in ran.error
        assert str(kyra_home / "lake") in ran.error
    finishes(prod)


@pytest.mark.parametrize("rights", ["none", "reading"])
def test_role_without_rights_is_told_what_it_lacks(
    bucket: Path, kyra: Kyra, postgres: installed.Server, monkeypatch: pytest.MonkeyPatch, rights: str
) -> None:
    url = postgres.create()
    name = url.rsplit("/", 1)[1]
    role, theirs = f"reader_{name}", url.replace("//postgres:", f"//reader_{name}:")
    postgres.execute(f"CREATE ROLE {role} LOGIN")
    reading = READING if rights == "reading" else ()
    if reading:
        monkeypatch.setenv("KYRA_STATE_URL", url)
        assert kyra("integration", "add", "prod", "--bucket", bucket.as_uri()).code == 0
        postgres.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", name)
    monkeypatch.setenv("KYRA_STATE_URL", theirs)
    for command in of(WRITING, bucket):
        ran = kyra(*command)
        assert ran.code == 1, (command, ran)
        assert "refuses this user. Grant the user the right to create and change tables in it." in ran.error
        assert "a-secret-word" not in ran.error
    for command in of(reading, bucket):
        assert kyra(*command).code == 0, command
    for what in ("SCHEMA public", "ALL TABLES IN SCHEMA public", "ALL SEQUENCES IN SCHEMA public"):
        postgres.execute(f"GRANT ALL ON {what} TO {role}", name)
    if not reading:
        assert kyra("integration", "add", "prod", "--bucket", bucket.as_uri()).code == 0
    finishes(kyra)


def test_lock_that_is_not_let_go_is_waited_for_then_named(
    prod: Kyra, kyra_home: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    somebody = sqlite3.connect(kyra_home / "state.db", isolation_level=None)
    somebody.execute("BEGIN IMMEDIATE")
    for command in of(WRITING, bucket):
        ran = prod(*command)
        assert ran.code == 1, (command, ran)
        assert "state.db is locked by another process. Wait until the other run has ended" in ran.error
    for command in READING:
        assert prod(*command).code == 0, command
    somebody.execute("ROLLBACK")
    somebody.close()
    finishes(prod)


def test_state_that_a_newer_host_has_brought_forward_is_left_alone(prod: Kyra, kyra_home: Path, bucket: Path) -> None:
    connection = sqlite3.connect(kyra_home / "state.db", isolation_level=None)
    connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    before = list(connection.iterdump())
    for command in of((*WRITING, *READING), bucket):
        ran = prod(*command)
        assert ran.code == 1, (command, ran)
        assert "was made by a newer kyra-etl (schema 9999" in ran.error
        assert "Bring this machine to the version of the others" in ran.error
    assert list(connection.iterdump()) == before
    connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{schema.REVISIONS[-1]}'")
    connection.close()
    finishes(prod)


def test_full_disk_is_named_and_the_next_run_finishes(kyra_home: Path, bucket: Path, kyra: Kyra) -> None:
    disk, filler = kyra_home / "disk", str(kyra_home / "disk" / "filler")
    disk.mkdir()
    before = on_a_small_disk(disk, "6m")
    refused = of((("sync", "prod"), ("load", "{bucket}"), ("serve",)), bucket)
    commands = [["integration", "add", "prod", "--bucket", bucket.as_uri()], ["fill", filler], *refused]
    commands += [["empty", filler], ["sync", "prod", "--json"], ["sql", "SELECT count(*) AS n FROM events", "--json"]]
    added, *told, synced, counted = process(commands, before, STATE_URL=str(disk / "state.db"), LAKE=str(disk / "lake"))

    assert added.code == 0
    for command, ran in zip(refused, told, strict=True):
        assert ran.code == 1, (command, ran)
        assert re.search("has room|has no room|No space left", ran.error), (command, ran)
    assert (synced.code, synced.json["events"]) == (0, 3), synced.err
    assert counted.json == [{"n": 3}]
