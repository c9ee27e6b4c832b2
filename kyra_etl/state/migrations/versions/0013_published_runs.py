"""Which runs have their records in the lake: whoever ends a run makes up for those that could not."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("runs", sa.Column("published", sa.Boolean(), server_default=sa.false(), nullable=False))
    # Those before were published as they ended, or not at all.
    op.execute(sa.text("UPDATE runs SET published = :yes").bindparams(yes=True))
    op.create_index(op.f("ix_runs_published_started_at"), "runs", ["published", "started_at"])
