"""Test Connection: one probe for each thing that has to work, each with its remedy.

A probe that fails stops only those that could not work without it; these are then not asked (`passed` is None).
A probe that passed and still has a remedy is a warning: log files come in, but something should be changed.

| probe        | asks                                                        | call on the customer's side       |
|--------------|-------------------------------------------------------------|-----------------------------------|
| identity     | has this machine AWS credentials                            |                                   |
| assume_role  | may it assume the role with the external id                 | sts:AssumeRole                    |
| external_id  | does the role refuse callers without it                     | sts:AssumeRole                    |
| bucket       | is there such a bucket, in which region, whose clock        | s3:ListBucket (HeadBucket)        |
| list         | may the log folder be listed                                | s3:ListBucket                     |
| layout       | accounts, regions, newest log file and its age              | s3:ListBucket                     |
| read         | may the newest log file be read (and decrypted)             | s3:GetObject, kms:Decrypt         |
| decode       | is it a CloudTrail log file                                 |                                   |
| trail        | does a trail deliver to the bucket, under the prefix        | cloudtrail:DescribeTrails         |
| logging      | is it logging, without delivery errors                      | cloudtrail:GetTrailStatus         |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kyra_etl.aws.bucket import S3Bucket
from kyra_etl.aws.session import Session
from kyra_etl.aws.trails import Trail, describe_trails, with_status
from kyra_etl.cloudtrail import keys
from kyra_etl.cloudtrail.decode import Source, decode
from kyra_etl.errors import AccessError, CollectError, KyraError
from kyra_etl.model import Integration, Limits, LogFile, Probe
from kyra_etl.ports import LogBucket

NAMES = (*("identity", "assume_role", "external_id", "bucket", "list", "layout", "read", "decode", "trail", "logging"),)
"""The probes, in the order they are asked and answered."""

STALE = timedelta(hours=24)
"""Age of the newest log file beyond which a trail is suspect; quiet regions are hours behind."""

CLOCK_SKEW = timedelta(minutes=5)
"""AWS refuses requests that are 15 minutes off."""

_ACCOUNTS, _REGIONS = 12, 12
"""How many accounts, and regions of accounts, the search for the newest log file goes into."""

_MAX_BYTES = Limits().max_object_bytes

SaveTrails = Callable[[Sequence[Mapping[str, Any]]], None]


def check(
    integration: Integration,
    *,
    bucket: LogBucket,
    now: datetime,
    max_bytes: int = _MAX_BYTES,
    save_trails: SaveTrails | None = None,
) -> list[Probe]:
    """Every probe of `NAMES`, in that order; never raises a KyraError.

    `bucket` is the integration's, as syncs use it: over AWS the same session answers the questions about role and
    trails, over a folder those are not asked. `save_trails` gets the trails that deliver to the bucket, as rows of the
    relation `trails`, when they could be seen.
    """
    session = bucket.session if isinstance(bucket, S3Bucket) else None
    return _Check(integration, bucket, session, now, max_bytes, save_trails).all()


@dataclass
class _Layout:
    """What the log folder holds, as far as it was looked into."""

    accounts: set[str] = field(default_factory=set)
    regions: set[str] = field(default_factory=set)
    newest: LogFile | None = None


class _NotAsked(Exception):
    """A probe that makes no sense here; its text says why."""


@dataclass
class _Warned:
    """An answer that passes, with something to change."""

    detail: str
    remedy: str


@dataclass
class _Check:
    integration: Integration
    bucket: LogBucket
    session: Session | None
    now: datetime
    max_bytes: int
    save_trails: SaveTrails | None
    layout: _Layout = field(default_factory=_Layout)
    content: bytes | None = None
    delivering: list[Trail] = field(default_factory=list)
    failed: dict[str, KyraError | None] = field(default_factory=dict)

    def all(self) -> list[Probe]:
        return [self._ask(name, getattr(self, f"_{name}")) for name in NAMES]

    def _ask(self, name: str, question: Callable[[], str | _Warned]) -> Probe:
        try:
            answer = question()
        except _NotAsked as reason:
            return Probe(name, None, str(reason))
        except KyraError as error:
            self.failed[name] = error
            return Probe(name, False, error.message, error.remedy)
        if isinstance(answer, _Warned):
            return Probe(name, True, answer.detail, answer.remedy)
        return Probe(name, True, answer)

    def _needs(self, *names: str) -> None:
        """Leave the probe out when one of these failed."""
        for name in names:
            if name in self.failed:
                raise _NotAsked(f"Not asked: it needs {name}.")

    def _aws(self) -> Session:
        if self.session is None:
            raise _NotAsked("Not asked: a folder needs no AWS.")
        return self.session

    def _identity(self) -> str:
        who = self._aws().identity()
        return f"This machine is {who.arn}."

    def _assume_role(self) -> str:
        session = self._aws()
        if self.integration.role_arn is None:
            raise _NotAsked("Not asked: there is no role; this machine's own credentials read the bucket.")
        if isinstance(self.failed.get("identity"), AccessError):
            self._needs("identity")
        return f"Reading as {session.role_identity().arn}."

    def _external_id(self) -> str | _Warned:
        session = self._aws()
        if self.integration.role_arn is None:
            raise _NotAsked("Not asked: there is no role.")
        if isinstance(self.failed.get("identity"), AccessError):
            self._needs("identity")
        self._needs("assume_role")
        try:
            demanded = session.demands_external_id()
        except CollectError as error:
            raise _NotAsked(f"Not known: {error.message}") from None
        if demanded:
            return "The role refuses callers that leave the external id out."
        return _Warned(
            "The role can be assumed without the external id, by anybody its trust policy names.",
            "Add the condition StringEquals sts:ExternalId to its trust policy; `kyra integration policy "
            f"{self.integration.name}` prints it.",
        )

    def _bucket(self) -> str | _Warned:
        self._reachable()
        if not isinstance(self.bucket, S3Bucket):
            next(self.bucket.folders(""), None)  # says so when the folder is not there
            return f"{self.bucket.name} is there."
        detail = f"{self.bucket.name} is in {self.bucket.region}."
        skew = self.now - self.bucket.now()
        if abs(skew) <= CLOCK_SKEW:
            return detail
        off = f"{_span(abs(skew))} {'ahead' if skew > timedelta() else 'behind'}"
        return _Warned(f"{detail} This machine's clock is {off}.", "Set this machine's clock (NTP).")

    def _list(self) -> str:
        self._reachable()
        self._needs("bucket")
        next(self.bucket.folders(keys.logs_root(self.integration.prefix)), None)
        return f"{keys.logs_root(self.integration.prefix)} may be listed."

    def _layout(self) -> str | _Warned:
        self._reachable()
        self._needs("bucket", "list")
        self.layout = _look(self.bucket, self.integration)
        root = keys.logs_root(self.integration.prefix)
        if not self.layout.accounts:
            raise CollectError(
                f"There is no account's folder under {root} in {self.bucket.name}.",
                "Compare --prefix with S3KeyPrefix of `aws cloudtrail describe-trails`; a new trail delivers its first"
                " file within 15 minutes.",
            )
        if self.layout.newest is None:
            raise CollectError(
                f"There is no log file yet under {root} in {self.bucket.name} ({_count(self.layout)}).",
                "A new trail delivers its first file within 15 minutes; if it is older, is it logging?",
            )
        newest = self.layout.newest
        detail = f"{_count(self.layout)}; newest log file {newest.key}"
        if newest.last_modified is None:
            return f"{detail}."
        age = max(self.now - newest.last_modified, timedelta())
        detail = f"{detail}, {_span(age)} old."
        if self.session is None or age <= STALE:
            return detail
        return _Warned(detail, "A trail delivers about every 5 minutes: is it still logging, and to this bucket?")

    def _read(self) -> str:
        self._reachable()
        self._needs("bucket", "list", "layout")
        newest = self._newest()
        self.content = self.bucket.read(newest.key)
        return f"{newest.key} may be read ({len(self.content):,} bytes)."

    def _decode(self) -> str | _Warned:
        self._reachable()
        self._needs("bucket", "list", "layout", "read")
        newest = self._newest()
        source = Source(integration=self.integration.name, source_key=newest.key, batch_id="check")
        decoded, _ = decode(self.content or b"", source, now=self.now, max_bytes=self.max_bytes)
        detail = f"{decoded.records:,} records."
        if not decoded.malformed:
            return detail
        return _Warned(
            f"{detail} {len(decoded.malformed):,} of them are malformed: {decoded.malformed[0].reason}.",
            "They are kept in the lake's malformed/ folder; nothing is lost.",
        )

    def _trail(self) -> str | _Warned:
        session = self._aws()
        self._reachable()
        trails = self._visible(session)
        self.delivering = [trail for trail in trails if trail.bucket == self.integration.bucket]
        if not self.delivering:
            return self._no_trail(trails)
        wanted = self.integration.prefix.strip("/")
        right = [trail for trail in self.delivering if trail.prefix == wanted]
        if not right:
            prefix = self.delivering[0].prefix
            raise CollectError(
                f"Trail {self.delivering[0].name} delivers to the bucket under "
                f"{keys.logs_root(prefix)}, not under {keys.logs_root(wanted)}.",
                f"Give the integration --prefix {prefix}." if prefix else "Give the integration no --prefix.",
            )
        self.delivering = right
        names = ", ".join(_about(trail) for trail in right)
        if any(trail.multi_region for trail in right):
            return f"{names} delivers here."
        return _Warned(
            f"{names} delivers here, from one region only: what happens in others is not seen.",
            f"`aws cloudtrail update-trail --name {right[0].arn} --is-multi-region-trail`.",
        )

    def _logging(self) -> str:
        session = self._aws()
        self._reachable()
        self._needs("trail")
        if not self.delivering:
            raise _NotAsked("Not asked: no trail that delivers here can be seen from this account.")
        try:
            self.delivering = [with_status(session, trail) for trail in self.delivering]
        finally:
            if self.save_trails is not None:
                self.save_trails([asdict(trail) for trail in self.delivering])
        for trail in self.delivering:
            if trail.latest_delivery_error:
                raise CollectError(
                    f"Trail {trail.name} cannot deliver: {trail.latest_delivery_error}.",
                    "Let cloudtrail.amazonaws.com write to the bucket and use the trail's KMS key (bucket policy, key"
                    " policy); log files are held for 30 days.",
                )
        silent = [trail for trail in self.delivering if not trail.logging]
        if len(silent) == len(self.delivering):
            raise CollectError(
                f"Trail {silent[0].name} is not logging.", f"`aws cloudtrail start-logging --name {silent[0].arn}`."
            )
        working = next(trail for trail in self.delivering if trail.logging)
        last = f", last delivery {working.latest_delivery_at:%Y-%m-%d %H:%M} UTC" if working.latest_delivery_at else ""
        return f"Trail {working.name} is logging{last}."

    def _visible(self, session: Session) -> list[Trail]:
        """Trails seen from the bucket's region; where none delivers here, from all regions that have log files."""
        near = session.region
        if "bucket" not in self.failed and isinstance(self.bucket, S3Bucket):
            near = self.bucket.region
        trails = describe_trails(session, [near])
        if any(trail.bucket == self.integration.bucket for trail in trails):
            return trails
        return describe_trails(session, [near, *sorted(self.layout.regions)])

    def _no_trail(self, trails: Sequence[Trail]) -> str:
        newest = self.layout.newest
        if newest is not None and newest.last_modified is not None and self.now - newest.last_modified <= STALE:
            raise _NotAsked("Not known: log files arrive from a trail that cannot be seen from this account.")
        others = sorted({trail.bucket for trail in trails if trail.bucket})
        elsewhere = f" (trails deliver to {', '.join(others[:3])})" if others else ""
        raise CollectError(
            f"No trail that can be seen from this account delivers to {self.bucket.name}{elsewhere}.",
            "Correct --bucket, or make a multi-region trail that delivers to it.",
        )

    def _newest(self) -> LogFile:
        if self.layout.newest is None:
            raise _NotAsked("Not asked: there is no log file yet.")
        return self.layout.newest

    def _reachable(self) -> None:
        """Without usable credentials no question on the customer's side makes sense."""
        if self.session is not None:
            self._needs("assume_role")
            if isinstance(self.failed.get("identity"), AccessError):
                self._needs("identity")


def _look(bucket: LogBucket, integration: Integration) -> _Layout:
    """Accounts, their regions, and the newest log file; regions and files of the first few accounts only."""
    layout = _Layout()
    account_folders = []
    for folder in bucket.folders(keys.logs_root(integration.prefix)):
        inner = bucket.folders(folder) if keys.is_organization_folder(folder) else [folder]
        account_folders += [name for name in inner if keys.account_of_folder(name)]
    layout.accounts = {account for name in account_folders if (account := keys.account_of_folder(name))}
    region_folders = [folder for name in account_folders[:_ACCOUNTS] for folder in bucket.folders(f"{name}CloudTrail/")]
    layout.regions = {_last(folder) for folder in region_folders}
    # us-east-1 has the global services' events: hardly ever quiet.
    region_folders.sort(key=lambda folder: _last(folder) not in ("us-east-1", integration.region))
    for folder in region_folders[:_REGIONS]:
        for file in _newest_day(bucket, folder):
            if layout.newest is None or _delivered(file) > _delivered(layout.newest):
                layout.newest = file
    return layout


def _newest_day(bucket: LogBucket, region_folder: str) -> list[LogFile]:
    """Log files of the region's latest day folder."""
    folder = region_folder
    for _ in ("year", "month", "day"):
        latest = max((name for name in bucket.folders(folder) if _last(name).isdigit()), default=None)
        if latest is None:
            return []
        folder = latest
    return [file for file in bucket.files(folder) if keys.parse_key(file.key, file.size).kind == "log"]


def _delivered(file: LogFile) -> tuple[datetime, str]:
    return (file.last_modified or datetime.min, file.key)


def _last(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]


def _about(trail: Trail) -> str:
    kind = "organization trail" if trail.organization else "trail"
    return f"{kind.capitalize()} {trail.name} ({trail.home_region})"


def _count(layout: _Layout) -> str:
    accounts, regions = len(layout.accounts), len(layout.regions)
    more = "+" if accounts > _ACCOUNTS else ""
    return f"{accounts} account{'s' * (accounts != 1)}, {regions}{more} region{'s' * (regions != 1)}"


def _span(span: timedelta) -> str:
    """A span of time in the unit a person would choose."""
    minutes = int(span.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
