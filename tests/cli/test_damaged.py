"""A lake that somebody else wrote into: what is wrong is named, and the rest can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kyra_etl.errors import LakeError
from kyra_etl.lake import layout
from tests.cli.conftest import ACCOUNT, Kyra, put, record

DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut off": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "emptied": lambda file: file.write_bytes(b""),
    "a text": lambda file: file.write_text("hello"),
    "gone": lambda file: file.unlink(),
    "another table": lambda file: pq.write_table(pa.table({"event_id": [7]}), file),
}


@pytest.fixture
def damaged(kyra: Kyra, bucket: Path, kyra_home: Path) -> Path:
    """One of two data files, the newer one, which a test will damage."""
    put(bucket, "later", record("e9", eventTime="2026-01-12T00:00:00Z"))
    assert kyra("load", bucket, "--no-detect").code == 0
    (file,) = kyra_home.glob("lake/events/*/date=2026-01-12/*.parquet")
    return file


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_file_is_named_and_can_be_read_around(kyra: Kyra, damaged: Path, how: str) -> None:
    DAMAGE[how](damaged)
    query = "SELECT count(event_id) AS n, max(request_parameters) FROM events"
    ran = kyra("sql", query)
    if how == "another table":
        assert ran.code in (0, 1)  # it can be read, and no query can know that it is a stranger's
    else:
        assert ran.code == 1
        assert damaged.name in ran.error
        assert "--skip-damaged" in ran.error
        assert damaged.name in kyra("search", "name:*").err

    around = kyra("sql", query, "--skip-damaged", "--json")
    assert (around.code, around.json[0]["n"]) == (0, 3)
    assert around.err.splitlines()[0].startswith(f"Left out events/account={ACCOUNT}/date=2026-01-12/{damaged.name}: ")
    assert {row["event_id"] for row in kyra("search", "name:*", "--skip-damaged", "--json").json} == {"e1", "e2", "e3"}


def test_sound_files_are_not_left_out(kyra: Kyra, damaged: Path) -> None:
    ran = kyra("sql", "SELECT count(*) AS n FROM events", "--skip-damaged", "--json")

    assert (ran.json, ran.err) == ([{"n": 4}], "1 row.\n")


def test_damage_on_another_day_disturbs_no_search(kyra: Kyra, damaged: Path) -> None:
    damaged.write_bytes(b"")

    assert len(kyra("search", "to:2026-01-11", "--json").json) == 3


WEIRD = (
    "../../../escaped",
    "012345678901/../..",
    "/etc",
    "..",
    "01234567890",
    "0123456789012",
    "abcdefghijkl",
    "٠١٢٣٤٥٦٧٨٩٠١",
)


def test_no_account_id_or_key_leads_out_of_the_lake(kyra: Kyra, tmp_path: Path, kyra_home: Path) -> None:
    folder = tmp_path / "logs"
    for n, weird in enumerate(WEIRD):
        odd = record(f"e{n}", recipientAccountId=weird, userIdentity={"type": "IAMUser", "accountId": weird})
        put(folder, f"weird-{n}", odd)
    (tmp_path / "logs/..%2f..%2fescaped.json").write_bytes(b'{"Records": []}')
    assert kyra("load", folder, "--no-detect").code == 0

    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(kyra_home)]
    assert {path.parts[len(tmp_path.parts)] for path in outside} == {"logs"}
    for path in kyra_home.glob("lake/events/*/*/*.parquet"):
        assert path.parent.parent.name in (f"account={ACCOUNT}", "account=000000000000")
    assert kyra("sql", "SELECT count(*) AS n FROM events", "--json").json == [{"n": len(WEIRD)}]


@pytest.mark.parametrize("account", [*WEIRD, "", "012345678901\n"])
def test_layout_makes_no_folder_of_what_is_no_account_id(account: str) -> None:
    from datetime import date

    with pytest.raises(LakeError):
        layout.partitioned(layout.EVENTS_DIR, account, date(2026, 1, 1), "x")
