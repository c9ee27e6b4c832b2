"""Files of the lake are found by account and day, however many days there are."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.drop_index(op.f("ix_data_files_kind_account_date"), "data_files")
    op.drop_index(op.f("ix_data_files_live"), "data_files")
    op.drop_index(op.f("ix_data_files_published"), "data_files")
    columns = ["live", "account", "date", "kind"]
    op.create_index(op.f("ix_data_files_live_account_date_kind"), "data_files", columns)
    op.create_index(op.f("ix_data_files_live_published"), "data_files", ["live", "published"])
