"""`kyra maintain`: what a person sees, and the JSON."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import ACCOUNT, Kyra, put, record


def _load(kyra: Kyra, folder: Path, *days: str) -> None:
    for n, day in enumerate(days):
        at = f"{day.replace('/', '-')}T10:00:00Z"
        path = put(folder / str(n), "log", record(f"e{n}", eventTime=at), day=day)
        assert kyra("load", path, "--no-detect").code == 0


def test_compact_tells_what_became_of_the_files(kyra: Kyra, tmp_path: Path) -> None:
    _load(kyra, tmp_path, "2026/01/10", "2026/01/10", "2026/01/11")

    ran = kyra("maintain", "compact", "--to", "2026-01-10")

    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "1 partition compacted: 4 files became 2 files."
    assert lines[1].startswith("before  6 files, ")
    assert lines[2].startswith("after   4 files, ")
    assert lines[2].endswith("bytes an event")

    assert kyra("maintain", "compact").out.startswith("1 partition compacted")
    done = kyra("maintain", "compact", "--json").json
    assert (done["partitions"], done["skipped"], done["failed"]) == (0, None, [])
    assert done["before"] == done["after"]
    assert done["after"].keys() >= {"files", "bytes", "events", "bytes_per_event"}
    assert len(kyra("sql", "SELECT * FROM events", "--json").json) == 3


def test_compact_is_for_the_accounts_and_days_asked_for(kyra: Kyra, tmp_path: Path) -> None:
    _load(kyra, tmp_path, "2026/01/10", "2026/01/11")

    def partitions(*options: str) -> int:
        return int(kyra("maintain", "compact", "--json", *options).json["partitions"])

    assert partitions("--account", "999999999999") == 0
    assert partitions("--from", "2026-01-12") == 0
    assert partitions("--from", "2026-01-11", "--to", "2026-01-11", "--account", ACCOUNT) == 1
    assert partitions("--from", "2026-01-01") == 1
    assert kyra("maintain", "compact", "--from", "2026-01-03", "--to", "2026-01-02").code == 2


def test_a_partition_that_cannot_be_compacted_is_told_in_a_line(kyra: Kyra, tmp_path: Path, kyra_home: Path) -> None:
    _load(kyra, tmp_path, "2026/01/10", "2026/01/11")
    broken = next((kyra_home / "lake/events").rglob("date=2026-01-10/*.parquet"))
    broken.write_bytes(b"something else")

    ran = kyra("maintain", "compact")

    assert ran.code == 1
    assert ran.out.startswith("1 partition compacted")
    [line] = ran.err.splitlines()
    assert broken.name in line
    assert "kyra maintain check" in line


def test_check_tells_faults_with_a_remedy_and_rebuild_mends(kyra: Kyra, tmp_path: Path, kyra_home: Path) -> None:
    _load(kyra, tmp_path, "2026/01/10", "2026/01/11")
    ran = kyra("maintain", "check")
    assert (ran.code, ran.out) == (0, "4 files of 2 events looked at: all is well.\n")

    lost = next((kyra_home / "lake/activity").rglob("date=2026-01-10/*.parquet"))
    lost.unlink()
    ran = kyra("maintain", "check")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0] == "Files that are missing: 1"
    assert lost.name in lines[1]
    assert "kyra maintain restore" in lines[2]
    asked = kyra("maintain", "check", "--json")
    assert (asked.code, asked.json["sound"]) == (1, False)
    [fault] = [one for one in asked.json["checks"] if one["count"]]
    assert fault["id"] == "missing_files"
    assert fault["rows"][0]["path"].endswith(lost.name)

    assert kyra("maintain", "rebuild", "--to", "2026-01-10").out == "Activity of 1 partition rebuilt.\n"
    assert kyra("maintain", "check").code == 0
    assert kyra("maintain", "rebuild", "--json").json == {"skipped": None, "partitions": 2, "failed": []}


def test_retain_says_first_what_would_go(kyra: Kyra, tmp_path: Path, kyra_home: Path) -> None:
    _load(kyra, tmp_path, "2026/01/10", "2026/01/11")
    assert kyra("maintain", "retain").out.startswith("Events are kept for ever")

    with (kyra_home / "kyra.toml").open("a") as file:
        file.write(f"[retain]\n{ACCOUNT} = 1\n")
    would = kyra("maintain", "retain", "--dry-run")
    assert would.code == 0
    assert would.out.splitlines()[-2:] == ["2 events in 2 days would go.", "2 log files would leave the ledger."]
    assert len(kyra("sql", "SELECT * FROM events", "--json").json) == 2

    told = kyra("maintain", "retain").out.splitlines()
    assert told[-2:] == ["2 events in 2 days removed.", "2 log files left the ledger; they stay known as loaded."]
    assert kyra("sql", "SELECT * FROM events", "--json").json == []
    left = kyra("maintain", "retain", "--json").json
    assert (left["partitions"], left["dry_run"], left["accounts"]) == (0, False, [])
