"""The values that travel: frozen, without behaviour beyond their own arithmetic.

Times are naive datetimes in UTC everywhere: in code, in the state database and in the lake.
Windows are half-open, [start, end).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

LogFileState = Literal["pending", "planned", "loaded", "quarantined", "gone"]
"""Where a log file stands in the ledger. Ignored keys are counted, not kept."""

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")

UNKNOWN_ACCOUNT = "000000000000"


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span of time, [start, end), naive UTC."""

    start: datetime
    end: datetime

    def days(self) -> list[date]:
        """Every UTC date the window touches, in order."""
        last = (self.end - timedelta(microseconds=1)).date()
        first = self.start.date()
        return [first + timedelta(days=n) for n in range((last - first).days + 1)]


@dataclass(frozen=True, slots=True)
class Integration:
    """A customer's configured connection to one bucket of CloudTrail log files.

    `external_id` is a secret shared with the customer: stored, sent to STS, shown by `kyra integration policy` alone.
    `additions` are the optional permissions its role has (`kyra_etl.aws.policies.ADDITIONS`).
    """

    name: str
    bucket: str
    account_id: str | None = None
    role_arn: str | None = None
    external_id: str | None = field(default=None, repr=False)
    region: str | None = None
    prefix: str = ""
    sns_topic_arn: str | None = None
    queue_url: str | None = field(default=None, repr=False)
    paused: bool = False
    created_at: datetime | None = None
    organization_id: str | None = None
    additions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogFile:
    """One S3 object of CloudTrail, or one local file (then `etag` is its SHA-256)."""

    key: str
    etag: str
    size: int
    last_modified: datetime | None = None
    account: str | None = None
    region: str | None = None
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a queue hands it over. `receipt` is what deletes it."""

    id: str
    body: str
    receipt: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A log file as the ledger knows it."""

    id: int
    integration: str
    bucket: str
    file: LogFile
    state: LogFileState
    attempts: int = 0
    reason: str | None = None
    detail: str | None = None
    next_retry_at: datetime | None = None


ACCOUNT, LOGS = "account", "CloudTrail"
"""Kinds of folders: an account's own, and those of log files."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a bucket, and how far it was listed.

    Of `kind` ACCOUNT it is an account's own, which is searched for others; LOGS holds log files of a region; any other
    kind (CloudTrail-Digest …) lies beside those. Times are the bucket server's, None for never.
    """

    folder: str
    account: str
    region: str = ""
    kind: str = ACCOUNT
    found_at: datetime | None = None
    listed_at: datetime | None = None
    """Also the time when an account's folder was last searched."""
    rechecked_at: datetime | None = None
    """When it was last looked through for files that came some days late."""
    swept_at: datetime | None = None
    """When it was last looked through for files that came weeks late."""
    day: date | None = None
    """The newest day folder seen."""
    last_key: str | None = None
    last_delivered_at: datetime | None = None
    day_folders: int = 0
    """The most day folders seen at a time."""
    usual_pause: float | None = None
    """Seconds of the longest pause between deliveries that its last thorough look through saw: its habit."""
    refused_at: datetime | None = None
    """When it last could not be listed."""

    @property
    def is_logs(self) -> bool:
        return self.kind == LOGS


@dataclass(frozen=True, slots=True)
class Batch:
    """Log files planned to be loaded and committed together, under one attempt's lease."""

    batch_id: str
    integration: str
    bucket: str
    attempt: int
    entries: tuple[LedgerEntry, ...]
    run_id: str
    historical: bool = False
    """Came by backfill, initial sync or load: its alerts are not news."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of the lake. Paths are relative to the lake, with forward slashes."""

    kind: Literal["events", "activity", "malformed"]
    path: str
    staged_path: str
    rows: int
    size: int
    account: str | None = None
    date: date | None = None
    min_time: datetime | None = None
    max_time: datetime | None = None
    published: bool = False


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one log file of a batch.

    Loaded: `records == events + duplicates + malformed + expired`, `sha256` is of the uncompressed bytes.
    Otherwise `state` is quarantined or gone, with the reason.
    """

    id: int
    state: LogFileState
    records: int = 0
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    malformed: int = 0
    expired: int = 0
    uncompressed: int = 0
    sha256: str | None = None
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None
    reason: str | None = None
    detail: str | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one transaction makes true.

    `versions` are the partition versions deduplication read, by (account, date); each moves on by one.
    `event_names` of the committed events let the queue skip detections that cannot fire.
    """

    batch: Batch
    outcomes: tuple[FileOutcome, ...]
    data_files: tuple[DataFile, ...]
    versions: Mapping[tuple[str, date], int]
    detections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A row a detection returned, keyed (detection, account, event_id)."""

    detection: str
    account: str
    event_id: str
    event_time: datetime
    severity: Severity
    event_ids: tuple[str, ...]
    region: str | None = None
    actor: str | None = None
    source_ip: str | None = None
    target: str | None = None
    summary: str | None = None
    alert_id: str = ""
    """The alert it belongs to: `kyra_etl.detection.alerts.alert_id`."""
    historical_ids: frozenset[str] = frozenset()
    """Those of `event_ids` that came by backfill, initial sync or load."""
    event_times: Mapping[str, datetime] = field(default_factory=dict)
    """Times of `event_ids`, as far as the detection's relation held them."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What an analyst triages: the findings of one detection, group and group window."""

    alert_id: str
    detection: str
    title: str
    severity: Severity
    account: str
    first_seen: datetime
    last_seen: datetime
    event_count: int
    event_ids: tuple[str, ...]
    status: Literal["open", "acknowledged", "closed"] = "open"
    historical: bool = False
    attack: tuple[str, ...] = ()
    attack_legacy: tuple[str, ...] = ()
    region: str | None = None
    actor: str | None = None
    source_ip: str | None = None
    target: str | None = None
    summary: str | None = None
    closed_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """One question of `check`, its answer (None: not asked), and the IAM action it needs."""

    name: str
    passed: bool | None
    detail: str
    remedy: str = ""
    permission: str = ""

    @property
    def warning(self) -> bool:
        """It passed, and something should be changed all the same."""
        return bool(self.passed and self.remedy)


@dataclass(frozen=True, slots=True)
class DetectReport:
    """What a run of detections did."""

    batches: int = 0
    events: int = 0
    findings: int = 0
    alerts_new: int = 0
    alerts_updated: int = 0
    failed: tuple[str, ...] = ()
    """Ids of detections whose SQL failed; their queue entries wait for the next run."""
    alert_ids: tuple[str, ...] = ()
    """Alerts created or changed by this run."""
    alert_days: tuple[date, ...] = ()
    """Days on which alerts were first seen until this run removed them, or found earlier or later evidence."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    days: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """Of a back-test: {day: {detection: {"findings": …, "alerts": …}}}."""
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of a back-test, by detection: alerts, alerts_a_day, rows looked at, and seconds."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a sync, backfill or load did; every number counted by its own query.

    `listed + hinted + carried == loaded + already_loaded + ignored + quarantined + gone + pending`, and over the
    files loaded by the run `records == events + duplicates + malformed + expired`.
    """

    run_id: str
    verb: Literal["sync", "backfill", "load"]
    integration: str
    started_at: datetime
    finished_at: datetime | None = None
    skipped: str | None = None
    """Why nothing was done (another run holds the lease, the integration is paused)."""
    listed: int = 0
    hinted: int = 0
    carried: int = 0
    loaded: int = 0
    already_loaded: int = 0
    ignored: int = 0
    quarantined: int = 0
    gone: int = 0
    pending: int = 0
    records: int = 0
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    malformed: int = 0
    expired: int = 0
    alerts: int = 0
    """Alerts created by the run."""
    batches: int = 0
    list_requests: int = 0
    folders_listed: int = 0
    folders_waiting: int = 0
    """Folders that were due to be listed, and are left to the next run by a budget (see Limits)."""
    initial: bool = False
    """Whether the initial sync goes on in the next run: folders are left that were never listed."""
    notices: Mapping[str, int] = field(default_factory=dict)
    """Messages taken from the queue, by what they were."""
    ignored_by_kind: Mapping[str, int] = field(default_factory=dict)
    quarantined_by_reason: Mapping[str, int] = field(default_factory=dict)
    lag_p50: float | None = None
    lag_p95: float | None = None
    lag_max: float | None = None
    """Seconds from an event to its log file's delivery, over the files loaded by the run."""
    detect: DetectReport = field(default_factory=DetectReport)

    def imbalance(self) -> str | None:
        """The first identity that does not hold, or None when the numbers reconcile."""
        left = self.listed + self.hinted + self.carried
        right = self.loaded + self.already_loaded + self.ignored + self.quarantined + self.gone + self.pending
        if left != right:
            return f"listed + hinted + carried = {left}, but the files' states add up to {right}"
        rows = self.events + self.duplicates + self.malformed + self.expired
        if self.records != rows:
            return f"records = {self.records}, but events + duplicates + malformed + expired = {rows}"
        return None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run; see kyra_etl/config.py for the settings behind them."""

    batch_bytes: int = 16 * 2**20
    """Compressed bytes of log files in a batch."""
    batch_files: int = 2_000
    batch_memory: int = 32 * 2**20
    """Bytes of decoded rows a batch keeps in memory; more wait in temporary files."""
    max_object_bytes: int = 2 * 2**30
    """Uncompressed size beyond which a log file is quarantined (gzip bombs)."""
    fetch_threads: int = 8
    decode_processes: int = 0
    """Processes that decode a large load; 0 means one a core, 1 none besides this one."""
    lookback_days: int = 1
    """Date folders before today that every sync lists."""
    list_threads: int = 16
    """Folders listed at the same time."""
    list_seconds: int = 900
    """How long a run lists; what is due and not listed by then comes first in the next."""
    list_budget_run: int = 100_000
    """LIST requests of a run."""
    list_budget_day: int = 2_000_000
    """LIST requests of a UTC day and integration, spread over the day; see kyra_etl/cadence.py for the price."""
    backfill_files: int = 20_000
    """Log files that a backfill lists before it loads them: what another run would find half done, if it died."""
    lease_seconds: int = 240
    retain_days: int | None = None
    retain: Mapping[str, int] = field(default_factory=dict)
    """Days for some accounts instead; see kyra_etl/retention.py."""
    compact_after_days: int = 1
    """Days after which a day counts as finished."""
    compact_memory: int = 2**30
    """Bytes that sorting may take before it goes to disk."""
    replaced_hours: int = 24
    """How long files stay that others took the place of."""
