"""Every table of the state database. Migrations make them; a test holds the two together.

Times are naive UTC. The ledger keeps no foreign key to `integrations`: removing one leaves the truth about
what is in the lake, and local loads have none.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
)

from kyra_etl.state.columns import Id, Str, Time, count, flag, metadata

meta = Table(
    "meta",
    metadata,
    Column("name", Str, primary_key=True),
    Column("value", Str, nullable=False),
)

integrations = Table(
    "integrations",
    metadata,
    Column("name", Str, primary_key=True),
    Column("bucket", Str, nullable=False),
    Column("account_id", Str),
    Column("role_arn", Str),
    Column("external_id", Str),
    Column("region", Str),
    Column("prefix", Str, nullable=False),
    Column("sns_topic_arn", Str),
    Column("queue_url", Str),
    flag("paused"),
    Column("created_at", Time, nullable=False),
    Column("checked_at", Time),
    Column("organization_id", Str),
    Column("additions", JSON),
    # the state that was told last, and when
    Column("told_state", Str),
    Column("told_at", Time),
)

probes = Table(
    "probes",
    metadata,
    Column("integration", Str, ForeignKey("integrations.name", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Str, nullable=False),
    Column("passed", Boolean),
    Column("detail", Str, nullable=False),
    Column("remedy", Str, nullable=False),
    Column("permission", Str),
)

trails = Table(
    "trails",
    metadata,
    Column("integration", Str, ForeignKey("integrations.name", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Str),
    Column("arn", Str),
    Column("bucket", Str),
    Column("prefix", Str),
    Column("home_region", Str),
    Column("multi_region", Boolean),
    Column("organization", Boolean),
    Column("logging", Boolean),
    Column("latest_delivery_at", Time),
    Column("latest_delivery_error", Str),
    Column("kms_key_id", Str),
    Column("checked_at", Time, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Str, primary_key=True),
    Column("verb", Str, nullable=False),
    Column("integration", Str, nullable=False),
    Column("state", Str, nullable=False),
    Column("started_at", Time, nullable=False),
    Column("finished_at", Time),
    Column("error", Str),
    Column("report", JSON(none_as_null=True)),
    flag("published"),
    Index(None, "integration", "started_at"),
    Index(None, "published", "started_at"),
    # the last run of a kind that failed may lie a year back
    Index(None, "integration", "verb", "state", "started_at"),
    Index(None, "started_at", "run_id"),
)

run_totals = Table(
    "run_totals",
    metadata,
    # how runs ended, kept by whoever ends one: metrics must not read all that ever ran, and old runs leave
    *(Column(name, Str, primary_key=True) for name in ("integration", "verb", "state")),
    count("runs"),
    Column("last_finished_at", Time, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Str, primary_key=True),
    Column("owner", Str, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("expires_at", Time, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("integration", Str, primary_key=True),
    Column("folder", Str, primary_key=True),
    Column("account", Str, nullable=False),
    Column("region", Str, nullable=False),
    Column("kind", Str, nullable=False),
    Column("found_at", Time),
    Column("listed_at", Time),
    Column("rechecked_at", Time),
    Column("swept_at", Time),
    Column("day", Date),
    Column("last_key", Str),
    Column("last_delivered_at", Time),
    Column("day_folders", Integer, nullable=False, server_default="0"),
    Column("usual_pause", Float),
    Column("refused_at", Time),
)

list_requests = Table(
    "list_requests",
    metadata,
    Column("integration", Str, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("requests", BigInteger, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", Str, primary_key=True),
    Column("integration", Str, nullable=False),
    Column("bucket", Str, nullable=False),
    Column("run_id", Str, nullable=False),
    Column("state", Str, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner", Str, nullable=False),
    Column("lease_expires_at", Time, nullable=False),
    flag("historical"),
    Column("planned_at", Time, nullable=False),
    Column("settled_at", Time),
    Column("reason", Str),
    # what its loaded files add up to
    *map(count, ("files", "bytes", "records", "events", "duplicates", "conflicts", "malformed", "expired")),
    Column("first_event_at", Time),
    Column("last_event_at", Time),
    CheckConstraint("state IN ('planned', 'committed', 'abandoned')", name="state"),
    Index(None, "integration", "state"),
    Index(None, "run_id"),
    # what is planned, among all that ever was
    Index(None, "state", "run_id"),
)

totals = Table(
    "totals",
    metadata,
    # what committed batches add up to, kept by the commit: status must not read all that was ever loaded
    Column("integration", Str, primary_key=True),
    Column("bucket", Str, primary_key=True),
    count("batches"),
    *map(count, ("files", "bytes", "records", "events", "duplicates", "conflicts", "malformed", "expired")),
    Column("first_event_at", Time),
    Column("last_event_at", Time),
    Column("last_loaded_at", Time),
)

log_files = Table(
    "log_files",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("integration", Str, nullable=False),
    Column("bucket", Str, nullable=False),
    Column("key", Str, nullable=False),
    Column("etag", Str, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("last_modified", Time),
    Column("account", Str),
    Column("region", Str),
    Column("day", Date),
    Column("state", Str, nullable=False),
    Column("observed_at", Time, nullable=False),
    Column("changed_at", Time, nullable=False),
    Column("plans", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("reason", Str),
    Column("detail", Str),
    Column("next_retry_at", Time),
    Column("batch_id", Str),
    Column("run_id", Str),
    Column("loaded_at", Time),
    *map(count, ("records", "events", "duplicates", "conflicts", "malformed", "expired", "uncompressed")),
    Column("sha256", Str),
    Column("first_event_at", Time),
    Column("last_event_at", Time),
    UniqueConstraint("integration", "bucket", "key", "etag"),
    CheckConstraint("state IN ('pending', 'planned', 'loaded', 'quarantined', 'gone')", name="state"),
    CheckConstraint("records = events + duplicates + malformed + expired", name="records"),
    Index(None, "integration", "state"),
    Index(None, "batch_id"),
    Index(None, "changed_at"),
)

pruned = Table(
    "pruned",
    metadata,
    # of log files that were loaded and are on the ledger no more: sixteen bytes each, in order
    *(Column(name, Str, primary_key=True) for name in ("integration", "bucket", "account")),
    Column("day", Date, primary_key=True),
    Column("fingerprints", LargeBinary, nullable=False),
)

run_files = Table(
    "run_files",
    metadata,
    Column("run_id", Str, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("log_file_id", Id, ForeignKey("log_files.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("how", Str, nullable=False),
    CheckConstraint("how IN ('listed', 'hinted', 'carried')", name="how"),
    Index(None, "log_file_id"),
)

partitions = Table(
    "partitions",
    metadata,
    Column("account", Str, primary_key=True),
    Column("date", Date, primary_key=True),
    Column("version", BigInteger, nullable=False),
)

swaps = Table(
    "swaps",
    metadata,
    Column("swap_id", Str, primary_key=True),
    Column("kind", Str, nullable=False),
    Column("account", Str, nullable=False),
    Column("date", Date, nullable=False),
    Column("state", Str, nullable=False),
    Column("planned_at", Time, nullable=False),
    Column("settled_at", Time),
    CheckConstraint("kind IN ('compact', 'retain', 'rebuild')", name="kind"),
    CheckConstraint("state IN ('planned', 'committed', 'abandoned')", name="state"),
    Index(None, "state"),
)

data_files = Table(
    "data_files",
    metadata,
    Column("path", Str, primary_key=True),
    Column("staged_path", Str, nullable=False),
    Column("kind", Str, nullable=False),
    # a file comes from a batch, or from a swap that put it in the place of others
    Column("batch_id", Str, ForeignKey("batches.batch_id")),
    Column("account", Str),
    Column("date", Date),
    Column("rows", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("min_time", Time),
    Column("max_time", Time),
    flag("published"),
    flag("live"),
    Column("swap_id", Str, ForeignKey("swaps.swap_id")),
    Column("replaced_by", Str, ForeignKey("swaps.swap_id")),
    Column("replaced_at", Time),
    CheckConstraint("(batch_id IS NULL) != (swap_id IS NULL)", name="origin"),
    Index(None, "live", "account", "date", "kind"),
    Index(None, "live", "published"),
    Index(None, "batch_id"),
    Index(None, "replaced_by"),
)

horizons = Table(
    "horizons",
    metadata,
    Column("account", Str, primary_key=True),
    Column("day", Date, nullable=False),
    Column("set_at", Time, nullable=False),
)

detection_queue = Table(
    "detection_queue",
    metadata,
    Column("batch_id", Str, ForeignKey("batches.batch_id"), primary_key=True),
    Column("detection", Str, primary_key=True),
    Column("queued_at", Time, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Str),
    Column("failed_at", Time),
)

findings = Table(
    "findings",
    metadata,
    Column("detection", Str, primary_key=True),
    Column("account", Str, primary_key=True),
    Column("event_id", Str, primary_key=True),
    Column("alert_id", Str, nullable=False),
    Column("event_time", Time, nullable=False),
    Column("severity", Str, nullable=False),
    *(Column(name, Str) for name in ("region", "actor", "source_ip", "target", "summary")),
    Column("event_ids", JSON, nullable=False),
    count("look"),
    Index(None, "alert_id"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", Str, primary_key=True),
    Column("detection", Str, nullable=False),
    Column("title", Str, nullable=False),
    Column("severity", Str, nullable=False),
    Column("attack", JSON, nullable=False),
    Column("attack_legacy", JSON, nullable=False),
    Column("account", Str, nullable=False),
    *(Column(name, Str) for name in ("region", "actor", "source_ip", "target", "summary")),
    Column("first_seen", Time, nullable=False),
    Column("last_seen", Time, nullable=False),
    Column("event_count", Integer, nullable=False),
    flag("historical"),
    Column("status", Str, nullable=False),
    Column("closed_reason", Str),
    Column("closed_severity", Str),
    Column("created_at", Time, nullable=False),
    Column("changed_at", Time, nullable=False),
    CheckConstraint("status IN ('open', 'acknowledged', 'closed')", name="status"),
    Index(None, "first_seen"),
    Index(None, "last_seen"),
    Index(None, "changed_at"),
)

alert_events = Table(
    "alert_events",
    metadata,
    Column("alert_id", Str, primary_key=True),
    Column("event_id", Str, primary_key=True),
    Column("event_time", Time),
    flag("historical"),
)

alert_moves = Table(
    "alert_moves",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("alert_id", Str, nullable=False),
    Column("at", Time, nullable=False),
    Column("what", Str, nullable=False),
    Column("before", Str, nullable=False),
    Column("after", Str, nullable=False),
    Column("note", Str),
    Index(None, "alert_id"),
)

untold = Table(
    "untold",
    metadata,
    # an alert that was made or changed since it was last told, with the time of the change
    Column("alert_id", Str, primary_key=True),
    flag("opened"),
    Column("at", Time, nullable=False),
)

absences = Table(
    "absences",
    metadata,
    Column("alert_id", Str, primary_key=True),
    Column("integration", Str, nullable=False),
    Column("kind", Str, nullable=False),
    Column("account", Str, nullable=False),
    Column("target", Str, nullable=False),
    Column("since", Time, nullable=False),
    Column("ended_at", Time),
    Index(None, "integration"),
)
