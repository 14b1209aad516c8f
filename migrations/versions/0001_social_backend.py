"""The whole social backend, and what the way to the log needs."""

from alembic import context, op

from migrations.render import Dialect, revision_statements

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FILES = ("accounts", "graph", "posts", "engagement", "notifications", "moderation", "pipeline")


def _dialect() -> Dialect:
    dialect: Dialect = context.config.attributes["dialect"]
    return dialect


def upgrade() -> None:
    """Create every table."""
    for statement in revision_statements(revision, FILES, _dialect()):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Drop every table."""
    for statement in revision_statements(revision, ("down",), _dialect()):
        op.get_bind().exec_driver_sql(statement)
