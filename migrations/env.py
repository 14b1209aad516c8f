"""Alembic's environment: runs on the connection that `fanline.migrations_runner` has opened."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    # CockroachDB wants schema changes outside explicit transactions.
    transactional_ddl=context.config.attributes["dialect"] == "postgres",
)
with context.begin_transaction():
    context.run_migrations()
