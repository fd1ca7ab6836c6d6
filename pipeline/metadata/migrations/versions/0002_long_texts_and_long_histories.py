"""Texts of any length, and answers that stay fast when a pipeline has run many thousand times."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# In the order in which a writer comes to the tables, so that the two never wait for each other.
LIMITED = {
    "runs": ("id", "pipeline", "state"),
    "executions": ("id", "run_id", "pipeline", "node", "state", "fingerprint"),
    "artifacts": ("id", "type", "digest"),
    "events": ("execution_id", "artifact_id", "direction", "name"),
    "file_digests": ("path", "digest"),
}


def upgrade() -> None:
    # SQLite has one type of text, without a limit, whatever the column says.
    if op.get_bind().dialect.name == "postgresql":
        for table, columns in LIMITED.items():
            for column in columns:
                op.alter_column(table, column, type_=sa.Text())
    op.drop_index("ix_executions_fingerprint", "executions")
    op.create_index("ix_executions_fingerprint_finished", "executions", ["fingerprint", "finished"])
    op.create_index("ix_executions_pipeline_node_finished", "executions", ["pipeline", "node", "finished"])
