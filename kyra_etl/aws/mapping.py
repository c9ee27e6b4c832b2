"""An AWS error → a KyraError: what happened, and what to do next, as `kyra_etl.aws.failures` has it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from kyra_etl.aws.failures import LIST, UNKNOWN, match
from kyra_etl.errors import AccessError, CollectError, KyraError, ObjectError, ObjectGone, TransientError

_TELLING_STATUS = ("403", "429", "500", "502", "503", "504")
_CLASSES: dict[str, type[CollectError]] = {
    "access": AccessError,
    "transient": TransientError,
    "collect": CollectError,
}


@contextmanager
def translated(operation: str, subject: str, secrets: Sequence[str] = ()) -> Iterator[None]:
    """Turn what boto3 and its connections raise inside the block into a KyraError.

    `subject` is what the failure is about, in the user's words; `secrets` are never repeated. The cause is dropped
    from tracebacks, because botocore puts parameters into it.
    """
    try:
        yield
    except (ClientError, BotoCoreError, ResponseParserError, HTTPError, OSError) as error:
        raise translate(error, operation, subject, secrets) from None


def reported(code: str, operation: str, subject: str) -> KyraError:
    """The KyraError for a failure that AWS had on its own side, and tells in a status: ("AccessDenied", "Delivery")."""
    return translate(ClientError({"Error": {"Code": code, "Message": code}}, operation), operation, subject)


def translate(error: Exception, operation: str, subject: str, secrets: Sequence[str] = ()) -> KyraError:
    """The KyraError for a failure of `operation` (AWS's name of the call)."""
    response: dict[str, Any] = error.response if isinstance(error, ClientError) else {}
    detail, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code = _shown(str(detail.get("Code") or type(error).__name__), secrets)
    text = _shown(str(detail.get("Message") or error), secrets)
    status = str(meta.get("HTTPStatusCode", ""))
    row = match(code, operation, text)
    if row is UNKNOWN and status in _TELLING_STATUS:
        row = match(status, operation, text)
    if row is UNKNOWN and isinstance(error, (OSError, HTTPError)):
        row = match("OSError", operation, text)
    words = {
        "subject": subject,
        "operation": operation,
        "action": action_of(operation),
        "bucket": subject.removeprefix("s3://").removeprefix("bucket ").split("/")[0],
        "caller": _caller(text),
        "region": f", {region}" if (region := _region(detail, meta)) else "",
        "text": text.rstrip("."),
    }
    request = f", request {meta['RequestId']}" if meta.get("RequestId") else ""
    said = row.says.format(**words)
    message = f"{said if said.startswith(('s3://', 'arn:')) else said[0].upper() + said[1:]} ({code}{request})."
    remedy = row.remedy.format(**words)
    if operation == "GetObject" and row.kind == "gone":
        return ObjectGone(message, remedy)
    if operation == "GetObject" and row.of_object:
        return ObjectError(row.name, message, remedy, permanent=row.permanent)
    return _CLASSES[row.kind](message, remedy)


def action_of(operation: str) -> str:
    """IAM's name of an API call: ("ListObjectsV2") → "s3:ListBucket"."""
    if operation in LIST:
        return "s3:ListBucket"
    if operation in ("AssumeRole", "GetCallerIdentity"):
        return f"sts:{operation}"
    if operation in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes"):
        return f"sqs:{operation}"
    if operation in ("Subscribe", "ConfirmSubscription", "ListSubscriptions"):
        return f"sns:{operation}"
    return f"s3:{operation}" if operation == "GetObject" else f"cloudtrail:{operation}"


def _shown(text: str, secrets: Sequence[str]) -> str:
    """On one line, bounded, without secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:299]}…"


def _caller(text: str) -> str:
    found = re.search(r"User: (\S+) is not authorized", text)
    return found[1] if found else "This machine's identity"


def _region(detail: dict[str, Any], meta: dict[str, Any]) -> str | None:
    region: str | None = detail.get("Region") or meta.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    return region
