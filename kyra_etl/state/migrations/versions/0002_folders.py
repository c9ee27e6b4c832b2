"""A checkpoint for each folder that is listed, and a count of LIST requests by day.

Checkpoints are made anew: without them the next run lists every folder from its beginning, and finds nothing new.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_table("checkpoints")
    op.create_table(
        "checkpoints",
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("found_at", sa.DateTime()),
        sa.Column("listed_at", sa.DateTime()),
        sa.Column("rechecked_at", sa.DateTime()),
        sa.Column("swept_at", sa.DateTime()),
        sa.Column("day", sa.Date()),
        sa.Column("last_key", sa.Text()),
        sa.Column("last_delivered_at", sa.DateTime()),
        sa.Column("day_folders", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("integration", "folder", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "list_requests",
        sa.Column("integration", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("integration", "day", name=op.f("pk_list_requests")),
    )
