"""Integrations know their organization and the optional permissions of their role; probes, what they need."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("integrations", sa.Column("organization_id", sa.Text()))
    op.add_column("integrations", sa.Column("additions", sa.JSON()))
    op.add_column("probes", sa.Column("permission", sa.Text()))
