"""What the lake must hold, computed from the delivered bytes with plain `json` alone, and what it does hold."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from kyra_etl.cloudtrail.records import rebuild

Event = tuple[str, str, str]
"""Account, date, and the whole record as canonical JSON."""

_ACCOUNT_OF_KEY = re.compile(r"AWSLogs/(?:o-[a-z0-9]+/)?(\d{12})/")
_TIME = re.compile(r"(\d{4})-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def records_of(body: bytes) -> list[Any] | None:
    """The elements of `Records`; None when the bytes are no log file."""
    try:
        text = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        document = json.loads(text.decode("utf-8-sig"), parse_int=_number, parse_float=_number)
    except (OSError, EOFError, ValueError):
        return None
    except Exception as error:  # zlib.error has no public home
        if type(error).__name__ != "error":
            raise
        return None
    records = document.get("Records") if isinstance(document, dict) else None
    return records if isinstance(records, list) else None


def is_event(record: Any) -> bool:
    match = _TIME.fullmatch(record.get("eventTime", "")) if isinstance(record, dict) else None
    return match is not None and int(match[1]) >= 1990


def event_of(record: dict[str, Any], key: str) -> Event:
    of_key = _ACCOUNT_OF_KEY.search(key)
    account = record.get("recipientAccountId") or (of_key and of_key[1]) or record["userIdentity"].get("accountId")
    return account or "000000000000", record["eventTime"][:10], canonical(record)


def canonical(record: Any) -> str:
    return json.dumps(record, sort_keys=True)


def events_of(bodies: Iterable[tuple[str, bytes]]) -> set[Event]:
    """Every distinct event of these (key, body), each once however often it was delivered."""
    return {event_of(record, key) for key, body in bodies for record in records_of(body) or () if is_event(record)}


def malformed_of(bodies: Iterable[tuple[str, bytes]]) -> Counter[tuple[str, int]]:
    """(key, position) of every record that is no event, as often as its file was loaded."""
    return Counter(
        (key, position)
        for key, body in bodies
        for position, record in enumerate(records_of(body) or ())
        if not is_event(record)
    )


def events_in(lake: Path) -> Counter[Event]:
    """What a plain glob over `events/` holds."""
    found: Counter[Event] = Counter()
    for row in _rows(lake / "events"):
        record = json.loads(rebuild(row), parse_int=_number, parse_float=_number)
        found[row["account"], row["date"].isoformat(), canonical(record)] += 1
    return found


def malformed_in(lake: Path) -> Counter[tuple[str, int]]:
    return Counter((row["source_key"], row["position"]) for row in _rows(lake / "malformed"))


def counted_in_activity(lake: Path) -> int:
    """How many events the roll-ups speak of."""
    return sum(row["count"] for row in _rows(lake / "activity"))


def _rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted(str(file) for file in folder.rglob("*.parquet"))
    if not files:
        return []
    hive = ds.partitioning(pa.schema([("account", pa.string()), ("date", pa.date32())]), flavor="hive")
    rows: list[dict[str, Any]] = (
        ds.dataset(files, partitioning=hive, partition_base_dir=str(folder)).to_table().to_pylist()
    )
    return rows


def _number(text: str) -> dict[str, str]:
    return {"number": text}
