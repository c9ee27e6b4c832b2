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
    """A trail's settings; the last three fields are its status, None until it was asked or never happened.

    `prefix` is what stands before AWSLogs/ in its bucket, without slashes around it. The account in `arn` owns the
    trail; bucket and log files may belong to others.
    """

    name: str
    arn: str
    bucket: str | None
    prefix: str
    home_region: str | None
    multi_region: bool
    organization: bool
    kms_key_id: str | None = None
    logging: bool | None = None
    latest_delivery_at: datetime | None = None
    latest_delivery_error: str | None = None


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
    delivered = status.get("LatestDeliveryTime")
    return replace(
        trail,
        logging=bool(status.get("IsLogging")),
        latest_delivery_at=delivered.astimezone(UTC).replace(tzinfo=None) if delivered else None,
        latest_delivery_error=status.get("LatestDeliveryError") or None,
    )


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
    )
