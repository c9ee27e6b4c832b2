"""How long a region's pauses between deliveries usually are, so that a silent one stands out."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("usual_pause", sa.Float()))
