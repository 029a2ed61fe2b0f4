"""Runs migrations on the connection that `database` hands over."""

from alembic import context

from rollout.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
