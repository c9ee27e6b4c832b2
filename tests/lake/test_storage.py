"""The lake's storage where two runs meet in it."""

from __future__ import annotations

from typing import Any

import boto3
import pyarrow as pa

from kyra_etl.lake.storage import S3Options, S3Storage


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
