"""What notifications, their channels and trends keep besides the posts themselves."""

from alembic import context, op

from migrations.render import Dialect, revision_statements

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FILES = ("posts", "notifications", "channels", "trends", "aggregates")


def _dialect() -> Dialect:
    dialect: Dialect = context.config.attributes["dialect"]
    return dialect


def upgrade() -> None:
    """Create the tables."""
    for statement in revision_statements(revision, FILES, _dialect()):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Drop the tables."""
    for statement in revision_statements(revision, ("down",), _dialect()):
        op.get_bind().exec_driver_sql(statement)
