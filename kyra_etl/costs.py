"""What an integration's CloudTrail costs its owner, and what could be left out, with the selectors that leave it out.

Events are counted over the committed files of a window of days; the ledger knows log files, bytes and second copies.
A month is thirty days of what the window showed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from typing import Any

from kyra_etl.cloudtrail import selectors
from kyra_etl.cloudtrail.selectors import RESOURCE_TYPES, Data, Management
from kyra_etl.errors import UsageError
from kyra_etl.model import Window
from kyra_etl.prices import Prices

MONTH = timedelta(days=30)
SHORTEST = timedelta(hours=1)
"""What a handful of events is taken to span."""

BUSY = 0.1
"""A bucket or function is worth leaving out when it makes this share of its kind's data events."""

FEW = 20
"""Buckets or functions that a selector names one by one."""

TRAIL = "TRAIL"
"""Stands for the trail's name where none is known."""

Ask = Callable[[str, Mapping[str, Any]], Sequence[Mapping[str, Any]]]
"""Rows of one SELECT over the lake's views."""

_KINDS = """
SELECT
  coalesce(event_category, CASE WHEN management_event IS FALSE THEN 'Data' ELSE 'Management' END) AS category,
  event_source AS source,
  event_name AS name,
  coalesce(read_only, NOT is_write) AS reads,
  count(*) AS events,
  count(*) FILTER (WHERE source_key LIKE 'LookupEvents/%') AS fetched,
  min(event_time) AS first_at,
  max(event_time) AS last_at
FROM events
WHERE integration = $name AND date >= $first AND date < $after
GROUP BY ALL
"""

_TARGETS = """
SELECT
  event_source AS source,
  max(CASE WHEN resources->>'$[0].type' LIKE 'AWS::%' THEN resources->>'$[0].type' END) AS type,
  CASE event_source
    WHEN 's3.amazonaws.com' THEN request_parameters->>'$.bucketName'
    ELSE coalesce(resources->>'$[0].ARN', request_parameters->>'$.functionName', request_parameters->>'$.tableName')
  END AS target,
  count(*) AS events,
  count(*) FILTER (WHERE coalesce(read_only, NOT is_write)) AS reads
FROM events
WHERE integration = $name AND date >= $first AND date < $after
  AND coalesce(event_category, CASE WHEN management_event IS FALSE THEN 'Data' ELSE 'Management' END) = 'Data'
GROUP BY source, target
ORDER BY events DESC
LIMIT 1000
"""


@dataclass(frozen=True, slots=True)
class Ours:
    """What we ask of S3 in the window: LIST requests, and whether each log file needs a key to be read."""

    list_requests: int = 0
    encrypted: bool = False


def window_of(last_event_at: datetime | None, days: int) -> Window:
    """So many days up to the newest event's. Raises UsageError where there is none."""
    if last_event_at is None:
        raise UsageError("There are no events to count yet.", "Run kyra sync or kyra load first.")
    end = datetime.combine(last_event_at.date() + timedelta(days=1), time.min)
    return Window(end - timedelta(days=days), end)


def costs(
    name: str,
    window: Window,
    *,
    ask: Ask,
    volume: Mapping[str, int],
    prices: Prices,
    ours: Ours,
    since: datetime | None = None,
    trail: str | None = None,
    watched: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Any]:
    """The bill of a month, what makes it up, and suggestions, the largest saving first.

    `volume` is `Ledger.volume` of the window, `since` the time of the first event ever loaded. `watched` are the event
    names that each detection needs: a suggestion tells which detections it blinds. Sums of money are US dollars.
    """
    given = {"name": name, "first": window.start.date(), "after": window.end.date()}
    kinds = ask(_KINDS, given)
    if not kinds:
        raise UsageError(f"{name} has no events from {window.start:%Y-%m-%d} on.", "Give more --days.")
    targets = [row for row in ask(_TARGETS, given) if row["target"]]
    begun = max(window.start, since or min(row["first_at"] for row in kinds))
    count = _Count(kinds, targets, volume, prices, ours, begun)
    return {
        "integration": name,
        "window": {"first": window.start.date(), "last": window.end.date() - timedelta(days=1)},
        "covered_days": round(count.covered / timedelta(days=1), 3),
        "month_factor": round(count.monthly, 3),
        "prices": {"as_of": prices.as_of, "usd": dict(prices.usd), "own": list(prices.own)},
        "events": count.total,
        "records": volume["records"],
        "read_share": round(count.where(reads=True) / count.total, 4),
        "by_category": count.by("category"),
        "by_source": count.by("source"),
        "by_name": count.by("name"),
        "targets": [dict(row) for row in targets[:20]],
        "second_copies": count.copies,
        "month": count.bill(),
        "total": round(sum(line["usd"] for line in count.bill()), 4),
        "suggestions": _suggestions(count, trail or TRAIL, watched or {}),
    }


class _Count:
    """What the window showed, and the prices of it."""

    def __init__(
        self,
        kinds: Sequence[Mapping[str, Any]],
        targets: Sequence[Mapping[str, Any]],
        volume: Mapping[str, int],
        prices: Prices,
        ours: Ours,
        begun: datetime,
    ) -> None:
        self.kinds, self.targets, self.volume, self.prices, self.ours = kinds, targets, volume, prices, ours
        self.covered = max(max(row["last_at"] for row in kinds) - begun, SHORTEST)
        self.monthly: float = MONTH / self.covered
        self.total: int = sum(row["events"] for row in kinds)
        fetched = sum(row["fetched"] for row in kinds)
        # Log files of events that LookupEvents told first are duplicates to us, and no second copy to pay for.
        self.copies = max(volume["duplicates"] - fetched, 0)

    def where(self, **fixed: Any) -> int:
        return sum(row["events"] for row in self.kinds if all(row[key] == value for key, value in fixed.items()))

    def by(self, column: str) -> list[dict[str, Any]]:
        """Events, their share and the share of reads by a column, most first."""
        events: Counter[Any] = Counter()
        reads: Counter[Any] = Counter()
        for row in self.kinds:
            events[row[column]] += row["events"]
            reads[row[column]] += row["events"] if row["reads"] else 0
        return [
            {
                column: value,
                "events": number,
                "share": round(number / self.total, 4),
                "read_share": round(reads[value] / number, 4),
            }
            for value, number in sorted(events.items(), key=lambda item: (-item[1], str(item[0])))
        ]

    def bill(self) -> list[dict[str, Any]]:
        """The lines of a month's bill: what, how many, dollars."""
        management, data = self.where(category="Management"), self.where(category="Data")
        twice = self.copies / self.total
        files, size = self.volume["files"], self.volume["bytes"]
        lines = [
            ("management events, first copy", management, None),
            ("management events, further copies", management * twice, "management_copy"),
            ("data events", data * (1 + twice), "data_event"),
            ("network activity events", self.where(category="NetworkActivity") * (1 + twice), "network_event"),
            ("log files written to S3", files, "s3_put"),
            ("gigabytes of log files, for each month they are kept", size / 1e9, "s3_gb_month"),
            ("log files read by kyra", files, "s3_get"),
            ("LIST requests by kyra", self.ours.list_requests, "s3_list"),
            ("uses of the log files' KMS key", 2 * files if self.ours.encrypted else 0, "kms_request"),
        ]
        return [
            {
                "what": what,
                "number": round(number * self.monthly, 3),
                "usd": round(self.prices.of(price, number * self.monthly), 4) if price else 0.0,
            }
            for what, number, price in lines
            if number
        ]

    def saved(self, management: int = 0, data: int = 0, copies: int = 0) -> float:
        """Dollars a month less, when so many events of the window had not been recorded (or not again)."""
        twice: float = self.copies / self.total
        records = max(self.volume["records"], 1)
        size = self.volume["bytes"] / records * ((management + data) * (1 + twice) + copies)
        kept_off = self.prices.of("management_copy", management * twice) + self.prices.of(
            "data_event", data * (1 + twice)
        )
        share = self.where(category="Management") / self.total
        again = self.prices.of("management_copy", copies * share) + self.prices.of("data_event", copies * (1 - share))
        return round((kept_off + again + self.prices.of("s3_gb_month", size / 1e9)) * self.monthly, 4)


def _suggestions(count: _Count, trail: str, watched: Mapping[str, Collection[str]]) -> list[dict[str, Any]]:
    recorded = _recorded(count)
    manages = Management() if count.where(category="Management") else None
    found: list[dict[str, Any]] = []

    def suggest(
        title: str, loses: str, events: float, usd: float, document: dict[str, Any] | None, gone: Collection[str] = ()
    ) -> None:
        if events <= 0:
            return
        found.append(
            {
                "title": title,
                "loses": loses,
                "events": round(events * count.monthly),
                "share": round(events / count.total, 4),
                "usd": usd,
                "blinds": sorted(id for id, names in watched.items() if names and set(names) <= set(gone)),
                "selectors": document,
                "command": selectors.command(document)
                if document
                else "aws cloudtrail stop-logging --name SECOND_TRAIL",
            }
        )

    suggest(
        "Record each event once: end the second trail, or let it record what the first does not",
        "nothing: both trails deliver the same events",
        count.copies,
        count.saved(copies=count.copies),
        None,
    )
    noisy = {source: count.where(category="Management", source=source) for source in selectors.NOISY}
    noisy = {source: number for source, number in noisy.items() if number}
    if noisy and manages:
        suggest(
            f"Leave out management events of {' and '.join(noisy)}",
            "who used which key, and statements sent by the RDS Data API"
            if len(noisy) > 1
            else _LOSES[next(iter(noisy))],
            sum(noisy.values()),
            count.saved(management=sum(noisy.values())),
            selectors.document(trail, Management(without=tuple(noisy)), recorded),
            {row["name"] for row in count.kinds if row["source"] in noisy},
        )
    reads = count.where(category="Management", reads=True)
    if manages:
        gone = {name for names in watched.values() for name in names if name.startswith(_READING)}
        gone |= {row["name"] for row in count.kinds if row["reads"]}
        gone -= {*_OF_OBJECTS, *(row["name"] for row in count.kinds if row["category"] == "Data")}
        suggest(
            "Leave out reading management events (Get, List, Describe)",
            "reconnaissance: what somebody looked at before they changed anything",
            reads,
            count.saved(management=reads),
            selectors.document(trail, Management(writes_only=True), recorded),
            gone,
        )
    data = count.where(category="Data")
    if data:
        read_data = count.where(category="Data", reads=True)
        suggest(
            "Leave out reading data events (GetObject, ListObjects)",
            "who read which object: data taken leaves no record",
            read_data,
            count.saved(data=read_data),
            selectors.document(trail, manages, [replace(one, writes_only=True) for one in recorded]),
        )
        busy = _busy(count.targets, data)
        suggest(
            f"Leave out data events of {', '.join(row['target'] for row in busy[:3])}{' …' if len(busy) > 3 else ''}",
            "what happens to the objects (or calls) of these alone",
            sum(row["events"] for row in busy),
            count.saved(data=sum(row["events"] for row in busy)),
            selectors.document(trail, manages, list(_without(recorded, busy))),
        )
        if manages:
            suggest(
                "Record management events alone",
                "everything about single objects, functions and items",
                data,
                count.saved(data=data),
                selectors.document(trail, manages, []),
                {row["name"] for row in count.kinds if row["category"] == "Data"},
            )
    return sorted(found, key=lambda one: (-one["usd"], -one["events"]))


_READING = ("Get", "List", "Describe", "Lookup", "Head", "Search", "BatchGet", "Select")
_OF_OBJECTS = ("GetObject", "HeadObject", "ListObjects", "SelectObjectContent", "GetItem", "BatchGetItem")
"""Data events whose names look like those of management events."""

_LOSES = {
    "kms.amazonaws.com": "who used which key (Decrypt, GenerateDataKey); also who disabled or deleted one",
    "rdsdata.amazonaws.com": "statements sent by the RDS Data API",
}


def _recorded(count: _Count) -> list[Data]:
    """The data events that are recorded now, as far as the window shows.

    Of the buckets and functions seen, where they are few: all of a type would record, and cost, more than today.
    """
    arns: dict[str, list[str | None]] = {}
    for row in count.targets:
        if kind := _type(row):
            arns.setdefault(kind, []).append(_arn(row))
    for row in count.by("source"):
        if row["source"] in RESOURCE_TYPES and count.where(category="Data", source=row["source"]):
            arns.setdefault(RESOURCE_TYPES[row["source"]], [])
    return [
        Data(kind, only=tuple(filter(None, seen)) if all(seen) and len(seen) <= FEW else ())
        for kind, seen in arns.items()
    ]


def _type(row: Mapping[str, Any]) -> str | None:
    return RESOURCE_TYPES.get(row["source"]) or row["type"]


def _busy(targets: Sequence[Mapping[str, Any]], data: int) -> list[Mapping[str, Any]]:
    """The buckets and functions with most of the data events, at most five, never all there are."""
    busy = [row for row in targets if row["events"] >= BUSY * data and _arn(row)]
    return busy[: min(5, len(targets) - 1)]


def _arn(row: Mapping[str, Any]) -> str | None:
    """How the target's ARNs begin, as far as it can be told."""
    if row["source"] == "s3.amazonaws.com":
        return f"arn:aws:s3:::{row['target']}/"
    return row["target"] if str(row["target"]).startswith("arn:") else None


def _without(recorded: Sequence[Data], busy: Sequence[Mapping[str, Any]]) -> Iterator[Data]:
    """What is recorded but for the busy ones; a type of which nothing is left is not recorded at all."""
    for one in recorded:
        out = [arn for row in busy if _type(row) == one.type and (arn := _arn(row))]
        left = tuple(arn for arn in one.only if arn not in out)
        if not one.only:
            yield replace(one, without=tuple(out))
        elif left:
            yield replace(one, only=left)
