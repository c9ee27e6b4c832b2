"""Listing and reading through obstore, which costs a small fraction of boto3's CPU time per request.

It says little about failures, and takes no key that is not a plain path. So nothing is decided here: whatever it cannot
do, `kyra_etl.aws.bucket` asks again through boto3, and that answer counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

import kyra_etl
from kyra_etl.aws.session import Session
from kyra_etl.model import LogFile

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential

PAGE = 1_000

_LASTING = timedelta(minutes=1)
"""obstore asks anew for credentials that end soon: so always, and botocore decides whether to renew them."""


def open_store(session: Session, bucket: str, region: str) -> S3Store:
    """An S3Store on the address that boto3 would use, with the session's credentials, which renew themselves."""
    address, in_host = _address(session.client("s3", region).meta.endpoint_url, bucket)
    options: ClientConfig = {
        "user_agent": f"kyra-etl/{kyra_etl.__version__}",
        "allow_http": address.startswith("http://"),
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=60),
        "timeout": timedelta(hours=1),  # of a whole body: a log file may be large and the line thin
        "pool_max_idle_per_host": str(max(session.connections, 1)),
    }
    if session.ca_bundle is not None:
        options["root_certificate"] = Path(session.ca_bundle).read_bytes()
    return S3Store(
        bucket,
        aws_endpoint_url_s3=address,  # under this name no variable of the environment goes before it
        skip_signature=False,
        region=region,
        virtual_hosted_style_request=in_host,
        credential_provider=_Credentials(session),
        client_options=options,
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=60)},
    )


def takes(key: str) -> bool:
    """Whether a key reaches S3 as it is written: as a path whose parts all say something."""
    return not any(part in ("", ".", "..") for part in key.split("/"))


def takes_folder(prefix: str) -> bool:
    """Whether a prefix reaches S3 as it is written."""
    return prefix.endswith("/") and takes(prefix[:-1])


def read(store: S3Store, key: str) -> bytes:
    """The object's bytes as stored."""
    return obstore.get(store, key).bytes().to_bytes()


def files(store: S3Store, prefix: str, start_after: str) -> Iterator[LogFile]:
    """Every object below `prefix` whose key comes after `start_after`, in key order."""
    for page in obstore.list(store, prefix, offset=start_after or None, chunk_size=PAGE):
        for item in page:
            key = item["path"]
            if len(key) < len(prefix):
                key = prefix  # the folder's own marker, which obstore hands over without its slash
            etag = (item["e_tag"] or "").strip('"')
            yield LogFile(key, etag, item["size"], item["last_modified"].astimezone(UTC).replace(tzinfo=None))


def folders(store: S3Store, prefix: str) -> list[str]:
    """The common prefixes one level below `prefix`, in key order."""
    return [f"{folder}/" for folder in obstore.list_with_delimiter(store, prefix)["common_prefixes"]]


class _Credentials:
    """obstore's credential provider over the session: the assumed role's credentials, or our own."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.config: Any = {}

    def __call__(self) -> S3Credential:
        frozen = self._session.credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _LASTING,
        }


def _address(endpoint: str, bucket: str) -> tuple[str, bool]:
    """Where requests go, and whether the host names the bucket: at AWS it does, unless dots would break TLS."""
    parts = urlsplit(endpoint)
    if (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")) and "." not in bucket:
        return f"{parts.scheme}://{bucket}.{parts.netloc}", True
    return endpoint, False
