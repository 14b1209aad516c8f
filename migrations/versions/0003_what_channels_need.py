"""What streams and Web Push need to know of notifications and of whom they tell."""

from alembic import context, op

from migrations.render import Dialect, revision_statements

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FILES = ("notifications", "channels")


def _dialect() -> Dialect:
    dialect: Dialect = context.config.attributes["dialect"]
    return dialect


def upgrade() -> None:
    """Add the columns."""
    for statement in revision_statements(revision, FILES, _dialect()):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Drop the columns."""
    for statement in revision_statements(revision, ("down",), _dialect()):
        op.get_bind().exec_driver_sql(statement)
