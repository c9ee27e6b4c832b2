"""The truth about records, by plain `json` and text alone: nothing here calls the decoder."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

TYPED_FIELDS = frozenset(
    re.findall(
        r"\w+",
        """
    eventTime eventID eventName eventSource eventType eventCategory eventVersion apiVersion awsRegion
    sourceIPAddress
    userAgent errorCode errorMessage readOnly managementEvent recipientAccountId requestID sharedEventID vpcEndpointId
    vpcEndpointAccountId sessionCredentialFromConsole""",
    )
)
"""Fields whose explicit null may come back as absent."""


def exact(text: str | bytes) -> Any:
    """JSON with numbers kept as their text: 1.0 differs from 1, and no digit of a long integer is lost."""
    return _tag(json.loads(text, parse_int=_Number, parse_float=_Number))


class _Number(str):
    pass


def _tag(value: Any) -> Any:
    if isinstance(value, _Number):
        return ("number", str(value))
    if isinstance(value, dict):
        return {name: _tag(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_tag(inner) for inner in value]
    return value


def expected(text: str | bytes) -> Any:
    """What a record must be rebuilt to."""
    return {name: value for name, value in exact(text).items() if value is not None or name not in TYPED_FIELDS}


def lines(path: Path) -> list[bytes]:
    """The lines of a gzipped NDJSON file."""
    return [line for line in gzip.decompress(path.read_bytes()).split(b"\n") if line.strip()]
