"""How runs ended is kept as a sum, so that old runs may leave; and runs are found by their time."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "run_totals",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("integration", "verb", "state")),
        sa.Column("runs", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_finished_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("integration", "verb", "state", name=op.f("pk_run_totals")),
    )
    op.create_index(op.f("ix_runs_started_at_run_id"), "runs", ["started_at", "run_id"])
    op.execute(
        """
        INSERT INTO run_totals (integration, verb, state, runs, last_finished_at)
        SELECT integration, verb, state, count(*), max(finished_at)
        FROM runs WHERE finished_at IS NOT NULL GROUP BY integration, verb, state
        """
    )
