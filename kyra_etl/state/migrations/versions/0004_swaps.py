"""Swaps: data files that compaction, retention or a rebuild puts in the place of others."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "swaps",
        sa.Column("swap_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("planned_at", sa.DateTime(), nullable=False),
        sa.Column("settled_at", sa.DateTime()),
        sa.CheckConstraint("kind IN ('compact', 'retain', 'rebuild')", name=op.f("ck_swaps_kind")),
        sa.CheckConstraint("state IN ('planned', 'committed', 'abandoned')", name=op.f("ck_swaps_state")),
        sa.PrimaryKeyConstraint("swap_id", name=op.f("pk_swaps")),
    )
    op.create_index(op.f("ix_swaps_state"), "swaps", ["state"])
    with op.batch_alter_table("data_files") as data_files:
        data_files.alter_column("batch_id", existing_type=sa.Text(), nullable=True)
        data_files.add_column(sa.Column("swap_id", sa.Text()))
        data_files.add_column(sa.Column("replaced_by", sa.Text()))
        data_files.add_column(sa.Column("replaced_at", sa.DateTime()))
        data_files.create_foreign_key(op.f("fk_data_files_swap_id"), "swaps", ["swap_id"], ["swap_id"])
        data_files.create_foreign_key(op.f("fk_data_files_replaced_by"), "swaps", ["replaced_by"], ["swap_id"])
        data_files.create_check_constraint(op.f("ck_data_files_origin"), "(batch_id IS NULL) != (swap_id IS NULL)")
        data_files.create_index(op.f("ix_data_files_live"), ["live"])
        data_files.create_index(op.f("ix_data_files_replaced_by"), ["replaced_by"])
    op.create_table(
        "horizons",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("set_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_horizons")),
    )
