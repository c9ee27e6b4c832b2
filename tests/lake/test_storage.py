"""The lake's storage where two runs meet in it."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest

from kyra_etl.errors import LakeError
from kyra_etl.lake import Lake
from kyra_etl.lake.storage import LocalStorage, S3Options, S3Storage


def test_files_are_written_moved_put_aside_and_removed_alike_everywhere(lake: Lake) -> None:
    storage, rows = lake.storage, pa.table({"n": [1, 2, 3]})
    staged, path = "_staging/a-1/events/x=1/a.parquet", "events/x=1/a.parquet"

    size = storage.write_parquet(staged, rows)
    assert (storage.size(staged), storage.size(path), storage.exists(path)) == (size, None, False)
    assert storage.folders("_staging") == ["a-1"]

    assert storage.move(staged, path)
    assert not storage.move(staged, path), "done already"
    with pytest.raises(LakeError):
        storage.move("_staging/none", "events/none")
    assert storage.sizes("events") == {path: size}
    now = datetime.now(UTC).replace(tzinfo=None)
    assert storage.older("events", now - timedelta(hours=1)) == storage.older("none", now) == []
    assert storage.older("events", now + timedelta(hours=1)) == [path]
    storage.remove_folder("_staging/a-1")
    storage.remove_folder("_staging/none")
    assert storage.sizes("_staging") == {}

    storage.put_aside([path, "events/x=1/none.parquet"], "_replaced")
    assert (storage.sizes("events"), storage.sizes("_replaced")) == ({}, {f"_replaced/{path}": size})
    for _ in range(2):
        storage.remove(f"_replaced/{path}")
    assert storage.sizes("_replaced") == storage.sizes("none") == {}
    assert (storage.folders("none"), storage.size("none"), storage.exists("none")) == ([], None, False)


def test_a_text_is_written_once_and_then_read_alike_everywhere(lake: Lake) -> None:
    assert lake.storage.create_text("_kyra.json", "first") == "first"
    assert lake.storage.create_text("_kyra.json", "second") == "first"

    with pytest.raises(LakeError, match="belongs to another state"):
        lake.claim("mine")


def test_what_leaves_while_it_is_listed_stops_no_listing(tmp_path: Path) -> None:
    storage, rows, stop = LocalStorage(tmp_path), pa.table({"n": [1]}), threading.Event()
    kept = storage.write_parquet("_staging/kept/a.parquet", rows)

    def churn() -> None:
        while not stop.is_set():
            for n in range(3):
                storage.write_parquet(f"_staging/b-{n}/events/x=1/a.parquet", rows)
                storage.remove_folder(f"_staging/b-{n}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        listed = [storage.sizes("_staging") for _ in range(3_000)]
        old = [storage.older("_staging", datetime(2100, 1, 1)) for _ in range(3_000)]
    finally:
        stop.set()
        thread.join()

    assert {found["_staging/kept/a.parquet"] for found in listed} == {kept}
    assert all("_staging/kept/a.parquet" in found for found in old)
    assert storage.sizes("_staging/kept/a.parquet") == storage.sizes("none") == {}


def test_a_folder_that_may_not_be_listed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)

    with pytest.raises(LakeError, match=r"Could not list .*Permission denied"):
        LocalStorage(tmp_path).sizes("")


class Slow:
    """A file system whose copies take so long that somebody else is done first."""

    def __init__(self, real: Any, meanwhile: Any) -> None:
        self._real, self._meanwhile = real, meanwhile

    def copy_file(self, source: str, target: str) -> None:
        self._real.copy_file(source, target)
        self._meanwhile()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_two_runs_may_publish_the_same_file_to_s3_at_once(s3_server: str) -> None:
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="lake")
    options = S3Options(s3_server, "us-east-1", "testing", "testing")
    one, other = (S3Storage("s3://lake/kyra", options) for _ in range(2))
    one.write_parquet("_staging/a-1/events/a.parquet", pa.table({"n": [1]}))
    one._fs = Slow(one._fs, lambda: other.move("_staging/a-1/events/a.parquet", "events/a.parquet"))

    one.move("_staging/a-1/events/a.parquet", "events/a.parquet")

    assert other.exists("events/a.parquet")
    assert not other.exists("_staging/a-1/events/a.parquet")


def test_the_size_of_a_file_on_s3_is_known_without_asking(s3_server: str) -> None:
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="lake")
    storage = S3Storage("s3://lake/kyra", S3Options(s3_server, "us-east-1", "testing", "testing"))

    size = storage.write_parquet("_staging/a-1/a.parquet", pa.table({"n": list(range(1000))}))

    [found] = boto3.client("s3", endpoint_url=s3_server).list_objects_v2(Bucket="lake", Prefix="kyra/_staging/a-1/a.")[
        "Contents"
    ]
    assert size == found["Size"]
