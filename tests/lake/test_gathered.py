"""Gathered activity is the activity of the files that were asked for, whatever lies in the copy."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyra_etl.cloudtrail.schema import ACTIVITY
from kyra_etl.errors import LakeError
from kyra_etl.lake import Lake, S3Options, gathered, open_lake
from kyra_etl.model import DataFile
from tests.wire import WIRE

DAY = date(2026, 3, 1)
ACCOUNT = "012345678901"


def times(name: str, day: date, n: int) -> dict[str, datetime]:
    """Seconds as CloudTrail writes them, or of a file called odd, less than seconds."""
    first = datetime.combine(day, datetime.min.time()) + timedelta(seconds=n, microseconds=n * name.startswith("odd"))
    return {"first_seen": first, "last_seen": first + timedelta(hours=2 * n)}


def write(lake: Lake, day: date, name: str = "a", *, rows: int = 2, account: str = ACCOUNT) -> DataFile:
    """A published file of activity; its rows tell which file they are of."""
    path = f"activity/account={account}/date={day}/{name}.parquet"
    made = [{"principal": f"{path}#{n}", "count": n} | times(name, day, n) for n in range(rows)]
    stored = pa.schema([field for field in ACTIVITY if field.name not in ("account", "date")])
    size = lake.storage.write_parquet(path, pa.Table.from_pylist(made, stored))
    return DataFile("activity", path, path, rows, size, account, day, published=True)


def days(lake: Lake, count: int, first: date = DAY) -> list[DataFile]:
    return [write(lake, first + timedelta(days=n)) for n in range(count)]


def asked(lake: Lake, files: Sequence[DataFile]) -> tuple[list[str], list[DataFile]]:
    """What rows are given, and what is left to read."""
    tables, left = zip(*lake.gathered(files), strict=True)
    rows, others = pa.concat_tables(tables), [file for some in left for file in some]
    assert rows.schema.names == ACTIVITY.names
    for row in rows.to_pylist():
        folder, name = row["principal"].rsplit("/", 1)
        assert folder == f"activity/account={row['account']}/date={row['date']}"
        assert {"first_seen": row["first_seen"], "last_seen": row["last_seen"]} == times(
            name, row["date"], row["count"]
        )
    return sorted(rows["principal"].to_pylist()), others


def expected(files: Sequence[DataFile]) -> list[str]:
    return sorted(f"{file.path}#{n}" for file in files for n in range(file.rows))


def test_a_large_copy_on_s3_is_read_in_one_piece_and_so_of_one_version(s3_server: str) -> None:
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="lake")
    lake = open_lake("s3://lake/kyra", S3Options(s3_server, "us-east-1", "testing", "testing"))
    files = [write(lake, DAY + timedelta(days=n), rows=9_000) for n in range(gathered.LOOSE + 3)]
    assert asked(lake, files)[0] == expected(files[:-1])
    (size,) = lake.storage.sizes("_gathered").values()
    assert size > 2**18, "pyarrow reads a stream in pieces of this many bytes"
    WIRE.calls.clear()

    assert asked(lake, files)[0] == expected(files[:-1])

    reads = [call for call in WIRE.calls if call.resource.endswith(f"{ACCOUNT}.parquet") and not call.head]
    assert len(reads) == 1


def test_past_days_are_read_once_and_the_newest_where_it_lies(lake: Lake) -> None:
    files = days(lake, 12)

    assert asked(lake, files) == (expected(files[:-1]), files[-1:])
    for file in files[:-1]:
        lake.storage.remove(file.path)
    assert asked(lake, files) == (expected(files[:-1]), files[-1:])
    assert asked(lake, files[5:]) == (expected(files[5:-1]), files[-1:])
    assert list(lake.storage.sizes("_gathered")) == [f"_gathered/activity/{ACCOUNT}.parquet"]
    assert not lake.storage.sizes("_staging")


def test_times_of_less_than_seconds_are_kept_too(lake: Lake) -> None:
    files = [*days(lake, 12), write(lake, DAY, "odd", rows=5)]

    for _ in range(2):
        assert asked(lake, files) == (expected([*files[:11], files[12]]), files[11:12])


def test_what_was_replaced_is_no_longer_given(lake: Lake) -> None:
    files = days(lake, 12)
    asked(lake, files)
    compacted = write(lake, files[3].date or DAY, "compact-1", rows=1)
    now = [*files[:3], compacted, *files[4:]]

    rows, others = asked(lake, now)

    assert (rows, others) == (expected([*files[:3], *files[4:-1]]), [compacted, files[-1]])


def test_few_files_are_not_worth_it_and_unpublished_ones_never_taken(lake: Lake) -> None:
    files = days(lake, gathered.LOOSE + 1)
    assert asked(lake, files) == ([], files)

    staged = [
        DataFile("activity", f"x{n}", "_staging/x", 1, 9, ACCOUNT, DAY - timedelta(days=n), published=False)
        for n in range(20)
    ]
    assert asked(lake, [*staged, files[-1]]) == ([], [*staged, files[-1]])


def test_the_newest_day_s_many_files_are_read_once_too_and_other_accounts_stay(lake: Lake) -> None:
    accounts = [f"{number:012}" for number in range(4)]
    files = [write(lake, DAY, f"batch-{n}", account=accounts[n % 4]) for n in range(4 * gathered.LOOSE_NEWEST)]
    mine, others = [[file for file in files if (file.account in accounts[:2]) is own] for own in (True, False)]

    assert asked(lake, mine) == (expected(mine), [])
    assert asked(lake, others) == (expected(others), [])
    for file in files:
        lake.storage.remove(file.path)
    assert asked(lake, files) == (expected(files), [])
    late = write(lake, DAY, "late")
    assert asked(lake, [*files, late]) == (expected(files), [late])
    tomorrow = write(lake, DAY + timedelta(days=1))
    assert asked(lake, [*files[:3], tomorrow]) == ([], [*files[:3], tomorrow])
    assert list(lake.storage.sizes("_gathered")) == ["_gathered/activity/newest.parquet"]


def test_looking_at_the_past_leaves_the_present_gathered(lake: Lake) -> None:
    before, files = days(lake, 12, DAY - timedelta(days=300)), days(lake, 12)
    asked(lake, files)

    rows, others = asked(lake, before)

    assert (rows, others) == ([], before)
    assert asked(lake, files) == (expected(files[:-1]), files[-1:])


def test_what_cannot_be_gathered_is_read_where_it_lies(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    files = days(lake, 12)
    lake.storage.remove(files[4].path)
    assert asked(lake, files)[0] == []

    files = days(lake, 12)

    def full(*_: object, **__: object) -> int:
        raise LakeError("Could not write: No space left.", "Free some.")

    monkeypatch.setattr(lake.storage, "write_parquet", full)
    assert asked(lake, files)[0] == []


def test_a_copy_that_is_broken_is_made_anew(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    files = days(lake, 12)
    asked(lake, files)
    copy = tmp_path / "_gathered" / "activity" / f"{ACCOUNT}.parquet"
    for broken in (b"", b"PAR1 and nothing else", copy.read_bytes()[:-200]):
        copy.write_bytes(broken)

        assert asked(lake, files) == (expected(files[:-1]), files[-1:])


def test_what_retention_takes_away_is_not_left_in_the_copy(lake: Lake) -> None:
    files = days(lake, 12)
    asked(lake, files)

    lake.forget_gathered({ACCOUNT: DAY + timedelta(days=10)})
    for file in files[10:-1]:
        lake.storage.remove(file.path)

    assert asked(lake, files[:10]) == ([], files[:10])
    assert asked(lake, files[10:]) == (expected(files[10:-1]), files[-1:])
    lake.forget_gathered({"999999999999": DAY})


def test_a_copy_of_another_version_is_made_anew(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    files = days(lake, 12)
    asked(lake, files)
    copy = tmp_path / "_gathered" / "activity" / f"{ACCOUNT}.parquet"
    whole = pq.read_table(copy)
    listed = base64.b64encode(zlib.compress(b"[1, 2]"))
    for other in (
        whole.drop_columns(["principal"]),
        whole.append_column("added", pa.nulls(whole.num_rows)),
        whole.replace_schema_metadata({}),
        whole.replace_schema_metadata({b"files": b"not packed"}),
        whole.replace_schema_metadata({b"files": listed}),
    ):
        pq.write_table(other, copy, store_schema=True)

        assert asked(lake, files) == (expected(files[:-1]), files[-1:])


@pytest.mark.parametrize("broken", [b"PAR1 and nothing else", b""])
def test_retention_leaves_no_copy_that_nobody_can_read(tmp_path: Path, broken: bytes) -> None:
    lake = open_lake(str(tmp_path))
    asked(lake, days(lake, 12))
    (copy,) = (tmp_path / path for path in lake.storage.sizes("_gathered"))
    copy.write_bytes(broken)

    lake.forget_gathered({"999999999999": DAY})
    assert copy.exists()
    lake.forget_gathered({ACCOUNT: DAY})
    assert not copy.exists()


def test_retention_of_all_days_leaves_no_copy(lake: Lake) -> None:
    asked(lake, days(lake, 12))

    lake.forget_gathered({ACCOUNT: DAY + timedelta(days=12)})

    assert lake.storage.sizes("_gathered") == {}


STEPS = st.lists(st.tuples(st.integers(0, 15), st.integers(1, 14), st.sampled_from("ab")), min_size=1, max_size=3)


@settings(max_examples=12)
@given(steps=STEPS)
def test_whatever_was_asked_before_the_answer_is_of_these_files(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, str]]
) -> None:
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    for first, count, name in steps:
        files = [write(lake, DAY + timedelta(days=first + n), name, rows=1) for n in range(count)]
        rows, others = asked(lake, files)
        assert sorted([*rows, *expected(others)]) == expected(files)
