"""Alembic executes this file to apply the migrations; the connection comes from `upgrade`."""

from alembic import context

from kerasline.pipeline.metadata import tables
from kerasline.pipeline.metadata.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
