"""LogBucket over S3: list, read, and the server's clock. Uses s3:ListBucket and s3:GetObject, nothing else.

Pages and objects come through `kyra_etl.aws.quick`. What fails there is asked again through boto3, whose answer says
precisely what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError
from obstore.store import S3Store

from kyra_etl.aws import quick
from kyra_etl.aws.mapping import translated
from kyra_etl.aws.session import Session
from kyra_etl.errors import CollectError, ObjectError
from kyra_etl.model import Integration, LogFile

_REGION_HEADER = "x-amz-bucket-region"
_READ_ATTEMPTS = 3
"""botocore repeats a failed request by itself, but not a body that breaks off."""

_PATIENCE = 20
"""Failures in a row that boto3 mended, after which it is asked at once (a proxy only it can pass, for example)."""


def open_bucket(
    integration: Integration, *, endpoint_url: str | None = None, connections: int = 8, attempts: int = 5
) -> S3Bucket:
    """The integration's bucket; talks to nobody until it is used."""
    return S3Bucket(Session(integration, endpoint_url=endpoint_url, connections=connections, attempts=attempts))


class S3Bucket:
    """The bucket of a session's integration. Safe to share between threads.

    Listing and the clock raise AccessError, TransientError or CollectError. `read` raises ObjectError for what concerns
    the one object, and the former when no object could be read (credentials gone, network down, bucket deleted).
    """

    def __init__(self, session: Session) -> None:
        self.name = session.integration.bucket
        self.session = session
        self._lock = threading.Lock()
        self._region: str | None = None
        self._store: S3Store | None = None
        self._failures = 0

    def __repr__(self) -> str:
        return f"S3Bucket({self.name!r})"

    @property
    def region(self) -> str:
        """The region the bucket lives in: asked once, whatever region the integration was given."""
        with self._lock:
            if self._region is None:
                self._region = self._found_region(self._head())
            return self._region

    def folders(self, prefix: str) -> Iterator[str]:
        """The common prefixes one level below `prefix`, complete and paginated."""
        store = self._quick() if quick.takes_folder(prefix) else None
        if store is not None:
            try:
                found = quick.folders(store, prefix)
            except Exception:  # whatever it was: asked again below
                pass
            else:
                self._worked()
                yield from found
                return
        for page in self._pages(prefix, Delimiter="/"):
            for folder in page.get("CommonPrefixes", ()):
                yield folder["Prefix"]
        self._mended(store)

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        """Every object below `prefix` in key order, from the first whose key comes after `start_after`."""
        store = self._quick() if quick.takes_folder(prefix) else None
        last = start_after
        if store is not None:
            try:
                for file in quick.files(store, prefix, start_after):
                    yield file
                    last = file.key
            except Exception:  # whatever it was: the rest is asked again below
                pass
            else:
                self._worked()
                return
        for page in self._pages(prefix, **({"StartAfter": last} if last else {})):
            for item in page.get("Contents", ()):
                yield LogFile(item["Key"], item["ETag"].strip('"'), item["Size"], _naive(item["LastModified"]))
        self._mended(store)

    def read(self, key: str) -> bytes:
        """The object's bytes as stored, whatever its Content-Encoding."""
        store = self._quick() if quick.takes(key) else None
        if store is not None:
            try:
                body = quick.read(store, key)
            except Exception:  # whatever it was: asked again below
                pass
            else:
                self._worked()
                return body
        body = self._read_patiently(key)
        self._mended(store)
        return body

    def key_arn(self, key: str) -> str | None:
        """The KMS key that encrypts an object; None for S3's own. Needs s3:GetObject, and nothing of KMS."""
        client = self._client()
        with translated("GetObject", f"s3://{self.name}/{key}", self.session.secrets):
            answer = client.head_object(Bucket=self.name, Key=key)
        kms = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
        return answer.get("SSEKMSKeyId") or "aws/s3" if kms else None

    def now(self) -> datetime:
        """The server's clock, from the Date header; one-second resolution."""
        date = self._head().get("date")
        if date is None:
            raise CollectError(f"Bucket {self.name} answered without a Date header.", "Ask the S3 endpoint's operator.")
        return _naive(parsedate_to_datetime(date))

    def _quick(self) -> S3Store | None:
        """The quick client, unless it has shown that it does not work here."""
        if self._failures >= _PATIENCE:
            return None
        region = self.region
        self.session.client("s3", region)  # what is wrong with the credentials is said here, in our words
        with self._lock:
            if self._store is None:
                try:
                    self._store = quick.open_store(self.session, self.name, region)
                except Exception:  # an option that only boto3 understands
                    self._failures = _PATIENCE
            return self._store

    def _worked(self) -> None:
        self._failures = 0

    def _mended(self, store: S3Store | None) -> None:
        """boto3 did what the quick client, if it was tried, could not."""
        self._failures += store is not None

    def _read_patiently(self, key: str) -> bytes:
        for _ in range(_READ_ATTEMPTS - 1):
            try:
                return self._read(key)
            except ObjectError as error:
                if error.reason != "interrupted":
                    raise
        return self._read(key)

    def _read(self, key: str) -> bytes:
        client = self._client()
        with translated("GetObject", f"s3://{self.name}/{key}", self.session.secrets):
            body: bytes = client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def _pages(self, prefix: str, **more: str) -> Iterator[Mapping[str, Any]]:
        client = self._client()
        with translated("ListObjectsV2", f"s3://{self.name}/{prefix}", self.session.secrets):
            yield from client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix, **more)

    def _client(self) -> Any:
        return self.session.client("s3", self.region)

    def _head(self) -> Mapping[str, str]:
        """Headers of HeadBucket's answer, a refusal's too: it carries the region and the date."""
        with translated("HeadBucket", f"bucket {self.name}", self.session.secrets):
            client = self.session.client("s3", self._region)
            try:
                answer = client.head_bucket(Bucket=self.name)
            except ClientError as error:
                headers = _headers(error.response)
                # A policy that limits s3:prefix, as ours does, refuses HeadBucket, which has none.
                code = error.response["Error"]["Code"]
                if code == "403" or (code != "404" and _REGION_HEADER in headers):
                    return headers
                raise
            return _headers(answer) | ({_REGION_HEADER: answer["BucketRegion"]} if "BucketRegion" in answer else {})

    def _found_region(self, headers: Mapping[str, str]) -> str:
        return headers.get(_REGION_HEADER) or self.session.region


def _headers(answer: Mapping[str, Any]) -> dict[str, str]:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return {name.lower(): value for name, value in headers.items()}


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
