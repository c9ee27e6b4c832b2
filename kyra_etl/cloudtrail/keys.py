"""S3 keys of CloudTrail: what kind of object a key names, and for which account, region and day.

    [prefix/]AWSLogs/[o-…/]<account>/<kind>/<region>/YYYY/MM/DD/[folders/]<file>

Account, region and day come from the folders, never from the file's name: names are not always well-formed, and a late
file's name tells when it was written, not what it holds.
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/get-and-view-cloudtrail-log-files.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

Kind = Literal["log", "digest", "insight", "network_activity", "aggregated", "marker", "other"]

_FOLDERS: dict[str, Kind] = {
    "CloudTrail": "log",
    "CloudTrail-Digest": "digest",
    "CloudTrail-Insight": "insight",
    "CloudTrail-NetworkActivity": "network_activity",
    "CloudTrail-Aggregated": "aggregated",
}
_KEY = re.compile(
    r"(?:^|/)AWSLogs/(?:(?P<organization>o-[a-z0-9]+)/)?(?P<account>\d{12})/(?P<folder>CloudTrail[A-Za-z-]*)/"
    r"(?P<region>[a-z0-9-]+)/(?P<day>\d{4}/\d{2}/\d{2})/(?P<file>.+)$"
)
_MINUTE = re.compile(r"_(\d{8}T\d{4})Z")
_ACCOUNT_FOLDER = re.compile(r"(?:^|/)(\d{12})/$")
_ORGANIZATION_FOLDER = re.compile(r"(?:^|/)(o-[a-z0-9]+)/$")


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a key says. `account`, `region`, `day` are None where its folders do not say."""

    kind: Kind
    account: str | None = None
    region: str | None = None
    day: date | None = None
    organization: str | None = None


def parse_key(key: str, size: int | None = None) -> KeyInfo:
    """Classify a key by its folders; an empty object (`size` 0) is a marker wherever it lies."""
    if size == 0 or key.endswith("/"):
        return KeyInfo("marker")
    match = _KEY.search(key)
    if match is None:
        return KeyInfo("other")
    kind = _FOLDERS.get(match["folder"], "other")
    try:
        day = datetime.strptime(match["day"], "%Y/%m/%d").date()
    except ValueError:
        return KeyInfo("other")
    if kind == "log" and not match["file"].endswith((".json", ".json.gz")):
        kind = "other"
    return KeyInfo(kind, match["account"], match["region"], day, match["organization"])


def named_minute(key: str) -> datetime | None:
    """The minute in a log file's name, naive UTC: roughly when it was delivered. None for other names."""
    match = _MINUTE.search(key.rpartition("/")[2])
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H%M")
    except ValueError:
        return None


def logs_root(prefix: str) -> str:
    """The folder that holds every account's logs: "trail/" or "trail" → "trail/AWSLogs/"."""
    bare = prefix.strip("/")
    return f"{bare}/AWSLogs/" if bare else "AWSLogs/"


def account_of_folder(folder: str) -> str | None:
    """The account a folder like "AWSLogs/111122223333/" is for, or None."""
    match = _ACCOUNT_FOLDER.search(folder)
    return match[1] if match else None


def is_organization_folder(folder: str) -> bool:
    """Whether a folder like "AWSLogs/o-abc123/" holds an organization's accounts."""
    return _ORGANIZATION_FOLDER.search(folder) is not None


def day_folder(region_folder: str, day: date) -> str:
    """The folder of one UTC day: ("…/eu-west-1/", 2026-03-04) → "…/eu-west-1/2026/03/04/"."""
    return f"{region_folder}{day:%Y/%m/%d}/"
