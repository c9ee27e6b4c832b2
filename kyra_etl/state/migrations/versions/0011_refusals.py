"""When a folder last refused to be listed, so that it does not come before others that wait."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("refused_at", sa.DateTime()))
