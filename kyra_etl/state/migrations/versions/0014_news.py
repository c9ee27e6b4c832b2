"""What was not told yet: of alerts from now on, and the state of each integration that was told last."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "untold",
        sa.Column("alert_id", sa.Text(), nullable=False),
        sa.Column("opened", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_untold")),
    )
    op.add_column("integrations", sa.Column("told_state", sa.Text()))
    op.add_column("integrations", sa.Column("told_at", sa.DateTime()))
