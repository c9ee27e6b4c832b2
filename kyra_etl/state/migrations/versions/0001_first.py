"""The first schema: everything from the ledger to the alerts."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alert_events",
        sa.Column("alert_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_time", sa.DateTime()),
        sa.Column("historical", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", "event_id", name=op.f("pk_alert_events")),
    )
    op.create_table(
        "alert_moves",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("alert_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("note", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_moves")),
    )
    op.create_index(op.f("ix_alert_moves_alert_id"), "alert_moves", ["alert_id"])
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.Text(), nullable=False),
        sa.Column("detection", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("attack", sa.JSON(), nullable=False),
        sa.Column("attack_legacy", sa.JSON(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("region", sa.Text()),
        sa.Column("actor", sa.Text()),
        sa.Column("source_ip", sa.Text()),
        sa.Column("target", sa.Text()),
        sa.Column("summary", sa.Text()),
        sa.Column("first_seen", sa.DateTime(), nullable=False),
        sa.Column("last_seen", sa.DateTime(), nullable=False),
        sa.Column("event_count", sa.Integer(), nullable=False),
        sa.Column("historical", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("closed_reason", sa.Text()),
        sa.Column("closed_severity", sa.Text()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint("status IN ('open', 'acknowledged', 'closed')", name=op.f("ck_alerts_status")),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alerts")),
    )
    op.create_index(op.f("ix_alerts_changed_at"), "alerts", ["changed_at"])
    op.create_index(op.f("ix_alerts_last_seen"), "alerts", ["last_seen"])
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(), nullable=False),
        sa.Column("historical", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("planned_at", sa.DateTime(), nullable=False),
        sa.Column("settled_at", sa.DateTime()),
        sa.Column("reason", sa.Text()),
        sa.Column("files", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("records", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("events", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("duplicates", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("conflicts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("malformed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("expired", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("first_event_at", sa.DateTime()),
        sa.Column("last_event_at", sa.DateTime()),
        sa.CheckConstraint("state IN ('planned', 'committed', 'abandoned')", name=op.f("ck_batches_state")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_batches")),
    )
    op.create_index(op.f("ix_batches_integration_state"), "batches", ["integration", "state"])
    op.create_index(op.f("ix_batches_run_id"), "batches", ["run_id"])
    op.create_table(
        "checkpoints",
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("day", sa.Date()),
        sa.Column("last_key", sa.Text()),
        sa.Column("last_delivered_at", sa.DateTime()),
        sa.Column("listed_at", sa.DateTime()),
        sa.Column("day_folders", sa.Integer()),
        sa.Column("swept_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("integration", "account", "region", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "findings",
        sa.Column("detection", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("alert_id", sa.Text(), nullable=False),
        sa.Column("event_time", sa.DateTime(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("region", sa.Text()),
        sa.Column("actor", sa.Text()),
        sa.Column("source_ip", sa.Text()),
        sa.Column("target", sa.Text()),
        sa.Column("summary", sa.Text()),
        sa.Column("event_ids", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("detection", "account", "event_id", name=op.f("pk_findings")),
    )
    op.create_index(op.f("ix_findings_alert_id"), "findings", ["alert_id"])
    op.create_table(
        "integrations",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text()),
        sa.Column("role_arn", sa.Text()),
        sa.Column("external_id", sa.Text()),
        sa.Column("region", sa.Text()),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("sns_topic_arn", sa.Text()),
        sa.Column("queue_url", sa.Text()),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("checked_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_integrations")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "log_files",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("last_modified", sa.DateTime()),
        sa.Column("account", sa.Text()),
        sa.Column("region", sa.Text()),
        sa.Column("day", sa.Date()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("observed_at", sa.DateTime(), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.Column("plans", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.Column("next_retry_at", sa.DateTime()),
        sa.Column("batch_id", sa.Text()),
        sa.Column("run_id", sa.Text()),
        sa.Column("loaded_at", sa.DateTime()),
        sa.Column("records", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("events", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("duplicates", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("conflicts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("malformed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("expired", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("uncompressed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sha256", sa.Text()),
        sa.Column("first_event_at", sa.DateTime()),
        sa.Column("last_event_at", sa.DateTime()),
        sa.CheckConstraint(
            "state IN ('pending', 'planned', 'loaded', 'quarantined', 'gone')", name=op.f("ck_log_files_state")
        ),
        sa.CheckConstraint("records = events + duplicates + malformed + expired", name=op.f("ck_log_files_records")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_files")),
        sa.UniqueConstraint(
            "integration", "bucket", "key", "etag", name=op.f("uq_log_files_integration_bucket_key_etag")
        ),
    )
    op.create_index(op.f("ix_log_files_batch_id"), "log_files", ["batch_id"])
    op.create_index(op.f("ix_log_files_changed_at"), "log_files", ["changed_at"])
    op.create_index(op.f("ix_log_files_integration_state"), "log_files", ["integration", "state"])
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
    )
    op.create_table(
        "partitions",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "date", name=op.f("pk_partitions")),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime()),
        sa.Column("error", sa.Text()),
        sa.Column("report", sa.JSON()),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_integration_started_at"), "runs", ["integration", "started_at"])
    op.create_table(
        "data_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("staged_path", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text()),
        sa.Column("date", sa.Date()),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("min_time", sa.DateTime()),
        sa.Column("max_time", sa.DateTime()),
        sa.Column("published", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("live", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.batch_id"], name=op.f("fk_data_files_batch_id")),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_data_files")),
    )
    op.create_index(op.f("ix_data_files_batch_id"), "data_files", ["batch_id"])
    op.create_index(op.f("ix_data_files_kind_account_date"), "data_files", ["kind", "account", "date"])
    op.create_index(op.f("ix_data_files_published"), "data_files", ["published"])
    op.create_table(
        "detection_queue",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("detection", sa.Text(), nullable=False),
        sa.Column("queued_at", sa.DateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("failed_at", sa.DateTime()),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.batch_id"], name=op.f("fk_detection_queue_batch_id")),
        sa.PrimaryKeyConstraint("batch_id", "detection", name=op.f("pk_detection_queue")),
    )
    op.create_table(
        "probes",
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("passed", sa.Boolean()),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["integration"], ["integrations.name"], name=op.f("fk_probes_integration"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("integration", "position", name=op.f("pk_probes")),
    )
    op.create_table(
        "run_files",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("log_file_id", _ID, autoincrement=False, nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.CheckConstraint("how IN ('listed', 'hinted', 'carried')", name=op.f("ck_run_files_how")),
        sa.ForeignKeyConstraint(
            ["log_file_id"], ["log_files.id"], name=op.f("fk_run_files_log_file_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_files_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "log_file_id", name=op.f("pk_run_files")),
    )
    op.create_index(op.f("ix_run_files_log_file_id"), "run_files", ["log_file_id"])
    op.create_table(
        "trails",
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("arn", sa.Text()),
        sa.Column("bucket", sa.Text()),
        sa.Column("prefix", sa.Text()),
        sa.Column("home_region", sa.Text()),
        sa.Column("multi_region", sa.Boolean()),
        sa.Column("organization", sa.Boolean()),
        sa.Column("logging", sa.Boolean()),
        sa.Column("latest_delivery_at", sa.DateTime()),
        sa.Column("latest_delivery_error", sa.Text()),
        sa.Column("kms_key_id", sa.Text()),
        sa.Column("checked_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["integration"], ["integrations.name"], name=op.f("fk_trails_integration"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("integration", "position", name=op.f("pk_trails")),
    )
    meta = sa.table("meta", sa.column("name", sa.Text()), sa.column("value", sa.Text()))
    op.bulk_insert(meta, [{"name": "id", "value": str(uuid.uuid4())}])
