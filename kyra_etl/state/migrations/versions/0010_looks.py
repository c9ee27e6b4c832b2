"""Findings know which look at the lake they came of, so that a late one does not replace what a later look found."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("findings", sa.Column("look", sa.BigInteger(), server_default="0", nullable=False))
    op.execute("INSERT INTO meta (name, value) VALUES ('looks', '0')")
