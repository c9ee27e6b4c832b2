"""What a bucket tells anybody, a caller without credentials too: its region, and the server's clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from kyra_etl.aws.mapping import translated

REGION_HEADER = "x-amz-bucket-region"


def head(bucket: str, region: str, *, endpoint_url: str | None = None) -> Mapping[str, str]:
    """Headers of HeadBucket's answer, with names in lower case; a refusal has them as well as a welcome.

    Asked once and briefly. Raises CollectError when there is no answer.
    """
    config = Config(
        signature_version=UNSIGNED,
        connect_timeout=5,
        read_timeout=10,
        retries={"total_max_attempts": 2, "mode": "standard"},
        s3={"addressing_style": "path"} if endpoint_url else None,
    )
    with translated("HeadBucket", f"bucket {bucket}"):
        client = boto3.Session(botocore_session=botocore.session.Session()).client(
            "s3", region_name=region, endpoint_url=endpoint_url, config=config
        )
        try:
            answer = client.head_bucket(Bucket=bucket)
        except ClientError as error:
            answer = error.response
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return {name.lower(): value for name, value in headers.items()}


def clock(headers: Mapping[str, str]) -> datetime | None:
    """The server's clock, naive UTC, to the second; None when it does not say."""
    try:
        return parsedate_to_datetime(headers["date"]).astimezone(UTC).replace(tzinfo=None)
    except (KeyError, ValueError):
        return None
