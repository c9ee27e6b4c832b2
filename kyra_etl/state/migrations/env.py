"""Alembic's entry: runs the steps on the connection, and in the transaction, that `kyra_etl.state.schema` opened."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    render_as_batch=True,
)
context.run_migrations()
