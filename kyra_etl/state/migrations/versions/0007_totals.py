"""What an integration ever loaded, kept as a sum; and indexes for questions of every run."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_SUMS = ("files", "bytes", "records", "events", "duplicates", "conflicts", "malformed", "expired")


def upgrade() -> None:
    op.create_table(
        "totals",
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in ("batches", *_SUMS)),
        sa.Column("first_event_at", sa.DateTime()),
        sa.Column("last_event_at", sa.DateTime()),
        sa.Column("last_loaded_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("integration", "bucket", name=op.f("pk_totals")),
    )
    op.create_index(
        op.f("ix_runs_integration_verb_state_started_at"), "runs", ["integration", "verb", "state", "started_at"]
    )
    op.create_index(op.f("ix_batches_state_run_id"), "batches", ["state", "run_id"])
    op.create_index(op.f("ix_alerts_first_seen"), "alerts", ["first_seen"])
    # Log files are counted themselves: batches of the first release had no sums.
    op.execute(
        """
        INSERT INTO totals (integration, bucket, batches, files, bytes, records, events, duplicates, conflicts,
          malformed, expired, first_event_at, last_event_at, last_loaded_at)
        SELECT integration, bucket, count(DISTINCT batch_id), count(*), sum(size), sum(records), sum(events),
          sum(duplicates), sum(conflicts), sum(malformed), sum(expired), min(first_event_at), max(last_event_at),
          max(loaded_at)
        FROM log_files WHERE state = 'loaded' GROUP BY integration, bucket
        """
    )
