"""The trails an account can see, and whether they deliver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kyra_etl.aws.mapping import translated
from kyra_etl.aws.session import Session


@dataclass(frozen=True, slots=True)
class Trail:
    """A trail's settings; from `logging` on its status, None until it was asked or never happened.

    `prefix` is what stands before AWSLogs/ in its bucket, without slashes around it. The account in `arn` owns the
    trail; bucket and log files may belong to others. `selective` trails have event selectors of their own.
    """

    name: str
    arn: str
    bucket: str | None
    prefix: str
    home_region: str | None
    multi_region: bool
    organization: bool
    kms_key_id: str | None = None
    validation: bool = False
    topic_arn: str | None = None
    selective: bool = False
    logging: bool | None = None
    latest_delivery_at: datetime | None = None
    latest_delivery_error: str | None = None
    latest_notification_error: str | None = None
    started_at: datetime | None = None

    @property
    def account(self) -> str:
        """The account that owns the trail."""
        return self.arn.split(":")[4]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which management events a trail records."""

    writes: bool
    reads: bool
    without: tuple[str, ...] = ()
    """Services whose events are left out, or what else narrows them."""


def describe_trails(session: Session, regions: Iterable[str]) -> list[Trail]:
    """Every trail visible in these regions, once each: a multi-region trail shows in all of them.

    Raises AccessError, TransientError or CollectError.
    """
    trails: dict[str, Trail] = {}
    for region in dict.fromkeys(regions):
        with translated("DescribeTrails", f"trails in {region}", session.secrets):
            found = session.client("cloudtrail", region).describe_trails(includeShadowTrails=True)["trailList"]
        for item in found:
            trail = _trail(item)
            trails.setdefault(trail.arn, trail)
    return list(trails.values())


def with_status(session: Session, trail: Trail) -> Trail:
    """The trail with its status, as its home region tells. Raises AccessError, TransientError or CollectError."""
    with translated("GetTrailStatus", f"trail {trail.name}", session.secrets):
        # By ARN: a member account cannot name its organization's trail otherwise.
        status = session.client("cloudtrail", trail.home_region).get_trail_status(Name=trail.arn)
    return replace(
        trail,
        logging=bool(status.get("IsLogging")),
        latest_delivery_at=_naive(status.get("LatestDeliveryTime")),
        latest_delivery_error=status.get("LatestDeliveryError") or None,
        latest_notification_error=status.get("LatestNotificationError") or None,
        started_at=_naive(status.get("StartLoggingTime")),
    )


def selection(session: Session, trail: Trail) -> Selection:
    """Which management events a trail records, by its event selectors. Needs cloudtrail:GetEventSelectors.

    Raises AccessError, TransientError or CollectError.
    """
    with translated("GetEventSelectors", f"trail {trail.name}", session.secrets):
        answer = session.client("cloudtrail", trail.home_region).get_event_selectors(TrailName=trail.arn)
    basic, advanced = answer.get("EventSelectors") or [], answer.get("AdvancedEventSelectors") or []
    if not basic and not advanced:
        return Selection(writes=True, reads=True)  # the selector that every trail begins with
    parts = [_basic(one) for one in basic] + [_advanced(one) for one in advanced]
    found = [part for part in parts if part is not None]
    writes, reads = any(one.writes for one in found), any(one.reads for one in found)
    return Selection(writes, reads, tuple(sorted({name for one in found for name in one.without})))


def look_up(session: Session, region: str) -> str | None:
    """The name of the latest management event in a region, if there is one. Needs cloudtrail:LookupEvents.

    Raises AccessError, TransientError or CollectError.
    """
    with translated("LookupEvents", f"the event history of {region}", session.secrets):
        events = session.client("cloudtrail", region).lookup_events(MaxResults=1)["Events"]
    return events[0]["EventName"] if events else None


def _basic(selector: Mapping[str, Any]) -> Selection | None:
    if not selector.get("IncludeManagementEvents", True):
        return None
    kind = selector.get("ReadWriteType") or "All"
    without = tuple(selector.get("ExcludeManagementEventSources") or ())
    return Selection(kind in ("All", "WriteOnly"), kind in ("All", "ReadOnly"), without)


def _advanced(selector: Mapping[str, Any]) -> Selection | None:
    fields = {one["Field"]: one for one in selector.get("FieldSelectors", ())}
    if fields.get("eventCategory", {}).get("Equals") != ["Management"]:
        return None
    kinds = [value.lower() for value in fields.get("readOnly", {}).get("Equals", ("true", "false"))]
    without = [*fields.get("eventSource", {}).get("NotEquals", ())]
    without += [f"by {name}" for name in fields if name not in ("eventCategory", "readOnly", "eventSource")]
    if "eventSource" in fields and "NotEquals" not in fields["eventSource"]:
        without.append("by eventSource")
    return Selection("false" in kinds, "true" in kinds, tuple(without))


def _naive(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment else None


def _trail(item: Mapping[str, Any]) -> Trail:
    arn = item["TrailARN"]
    return Trail(
        name=item.get("Name") or arn.rpartition("/")[2],
        arn=arn,
        bucket=item.get("S3BucketName"),
        prefix=(item.get("S3KeyPrefix") or "").strip("/"),
        home_region=item.get("HomeRegion") or arn.split(":")[3],
        multi_region=bool(item.get("IsMultiRegionTrail")),
        organization=bool(item.get("IsOrganizationTrail")),  # absent in some regions
        kms_key_id=item.get("KmsKeyId"),
        validation=bool(item.get("LogFileValidationEnabled")),
        topic_arn=item.get("SnsTopicARN"),
        selective=bool(item.get("HasCustomEventSelectors")),
    )
