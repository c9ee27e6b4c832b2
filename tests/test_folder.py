"""A directory behaves as a bucket: keys, order, prefixes, etags, times, and what goes wrong."""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyra_etl import resources
from kyra_etl.errors import AccessError, CollectError, KyraError, ObjectError, ObjectGone, UsageError
from kyra_etl.folder import FolderBucket

DAY = "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/03/04/"
LOG = DAY + "111122223333_CloudTrail_eu-west-1_20260304T0805Z_AbCdEfGhIjKlMnOp.json.gz"

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def fill(folder: Path, *keys: str, content: bytes = b"x") -> FolderBucket:
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return FolderBucket(folder)


def keys_of(bucket: FolderBucket, prefix: str = "") -> list[str]:
    return [file.key for file in bucket.files(prefix)]


def test_a_log_file_says_what_its_folders_and_name_say(tmp_path: Path) -> None:
    bucket = fill(tmp_path, LOG, content=b"bytes")
    [file] = bucket.files(DAY)
    assert (file.key, file.size, file.etag) == (LOG, 5, hashlib.sha256(b"bytes").hexdigest())
    assert (file.account, file.region, str(file.day)) == ("111122223333", "eu-west-1", "2026-03-04")
    assert file.last_modified == datetime(2026, 3, 4, 8, 5)
    assert bucket.read(LOG) == b"bytes"


def test_a_file_of_another_name_keeps_its_own_time(tmp_path: Path) -> None:
    bucket = fill(tmp_path, "notes.txt")
    os.utime(tmp_path / "notes.txt", (1_772_000_000, 1_772_000_000))
    [file] = bucket.files("")
    assert file.last_modified == datetime(2026, 2, 25, 6, 13, 20)


def test_files_come_in_the_order_of_s3(tmp_path: Path) -> None:
    keys = ["a/b/1", "a.b", "a/b.1", "a-b/0", "ab", "é", "Z", "a/b!"]
    assert keys_of(fill(tmp_path, *keys)) == sorted(keys, key=str.encode)


def test_names_that_are_no_utf8_are_keys_that_lead_back(tmp_path: Path) -> None:
    odd, day = os.fsdecode(b"caf\xe9"), tmp_path / "bucket" / DAY
    bucket = fill(tmp_path / "bucket", LOG)
    for number, name in enumerate((f"{odd}.json", f"{odd}/deeper.json", r"caf\udcff.json")):
        (day / name).parent.mkdir(exist_ok=True)
        (day / name).write_bytes(str(number).encode())

    keys = keys_of(bucket, DAY)

    assert keys == sorted(keys, key=str.encode)
    assert sorted(bucket.read(key) for key in keys) == [b"0", b"1", b"2", b"x"]
    assert keys_of(bucket, DAY + r"caf\udce9/") == [DAY + r"caf\udce9/deeper.json"]
    assert list(bucket.folders(DAY)) == [DAY + r"caf\udce9/"]
    (tmp_path / "bucket").rename(tmp_path / odd)
    assert keys_of(FolderBucket.at(FolderBucket(tmp_path / odd).name), DAY) == keys


NAMES = st.text(alphabet="ab.-!0é", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
KEYS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@given(keys=st.sets(KEYS, max_size=6), prefix=st.one_of(st.just(""), KEYS, KEYS.map(lambda key: key + "/")))
def test_any_prefix_lists_what_s3_would(tmp_path_factory: pytest.TempPathFactory, keys: set[str], prefix: str) -> None:
    kept = {key for key in keys if not any(other.startswith(key + "/") for other in keys)}
    bucket = fill(tmp_path_factory.mktemp("bucket"), *kept)
    below = sorted((key for key in kept if key.startswith(prefix)), key=str.encode)
    assert keys_of(bucket, prefix) == below
    cut = len(prefix)
    commons = {prefix + key[cut:].split("/")[0] + "/" for key in below if "/" in key[cut:]}
    assert list(bucket.folders(prefix)) == sorted(commons, key=str.encode)


def test_every_listing_sees_the_folder_as_it_is(tmp_path: Path) -> None:
    bucket = fill(tmp_path, LOG)
    [before] = bucket.files("")
    (tmp_path / LOG).write_bytes(b"overwritten")
    [after] = bucket.files("")
    assert before.etag != after.etag
    (tmp_path / LOG).unlink()
    assert keys_of(bucket) == []
    with pytest.raises(ObjectGone, match="no longer"):
        bucket.read(LOG)


def test_links_are_passed_over_and_nothing_outside_is_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    bucket = fill(tmp_path / "bucket", "AWSLogs/log.json")
    (bucket.path / "link").symlink_to(outside)
    (bucket.path / "file").symlink_to(outside / "secret")
    (bucket.path / "loop").symlink_to(bucket.path)
    assert keys_of(bucket) == ["AWSLogs/log.json"]
    assert list(bucket.folders("")) == ["AWSLogs/"]
    assert keys_of(bucket, "link/") == keys_of(bucket, "../outside/") == []
    for key in ("link/secret", "file", "../outside/secret", str(outside / "secret")):
        with pytest.raises(ObjectGone):
            bucket.read(key)


def test_a_folder_reached_by_a_link_is_a_bucket(tmp_path: Path) -> None:
    fill(tmp_path / "bucket", LOG)
    (tmp_path / "link").symlink_to(tmp_path / "bucket")
    assert keys_of(FolderBucket(tmp_path / "link")) == [LOG]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path / "nothing")
    for listing in (bucket.files, bucket.folders):
        with pytest.raises(CollectError, match=r"nothing does not exist\. Name the folder"):
            list(listing("AWSLogs/"))


def test_a_file_is_not_a_bucket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CollectError, match="is a file, not a folder"):
        list(FolderBucket(tmp_path / "file").files(""))


def test_a_prefix_without_keys_lists_nothing(tmp_path: Path) -> None:
    bucket = fill(tmp_path, LOG)
    assert keys_of(bucket, "AWSLogs/999999999999/") == keys_of(bucket, LOG + "/") == keys_of(bucket, "AWSLogs//") == []
    assert list(bucket.folders("AWSLogs/o-none/")) == []


@needs_permissions
def test_an_unreadable_file_is_listed_and_says_why_when_read(tmp_path: Path) -> None:
    bucket = fill(tmp_path, LOG, DAY + "other.json.gz")
    (tmp_path / LOG).chmod(0)
    assert len(keys_of(bucket)) == 2
    with pytest.raises(ObjectError, match="may not be read") as refused:
        bucket.read(LOG)
    assert refused.value.reason == "access_denied"


@needs_permissions
def test_an_unlistable_folder_is_named(tmp_path: Path) -> None:
    bucket = fill(tmp_path, LOG)
    (tmp_path / "AWSLogs").chmod(0)
    with pytest.raises(AccessError, match="may not be listed"):
        keys_of(bucket)
    (tmp_path / "AWSLogs").chmod(0o700)


def test_a_directory_is_not_an_object(tmp_path: Path) -> None:
    with pytest.raises(ObjectError, match="cannot be read"):
        fill(tmp_path, LOG).read("AWSLogs")


def test_a_bucket_is_found_again_by_its_name(tmp_path: Path) -> None:
    bucket = fill(tmp_path / "with a space", LOG)
    assert keys_of(FolderBucket.at(bucket.name)) == [LOG]
    assert bucket.name.startswith("file:///")
    for wrong in ("s3://bucket", "file://elsewhere/folder", "folder"):
        with pytest.raises(UsageError, match="not the address of a folder"):
            FolderBucket.at(wrong)


def test_the_clock_is_the_callers(tmp_path: Path) -> None:
    then = datetime(2026, 3, 11, 12, 0)
    assert FolderBucket(tmp_path, clock=lambda: then).now() == then
    assert FolderBucket(tmp_path).now().tzinfo is None


def test_resources_are_found_beside_the_package() -> None:
    for folder in (resources.detections_dir(), resources.views_dir(), resources.demo_bucket()):
        assert folder.is_dir()
    assert (resources.flows_root() / "flows").is_dir()


def test_an_installed_package_looks_into_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kyra_etl" / "_bundle" / "sql" / "detections").mkdir(parents=True)
    (tmp_path / "sql" / "views").mkdir(parents=True)  # somebody else's, in site-packages
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "kyra_etl")
    assert resources.detections_dir() == tmp_path / "kyra_etl" / "_bundle" / "sql" / "detections"
    with pytest.raises(KyraError, match=r"not complete: .*views is missing"):
        resources.views_dir()
