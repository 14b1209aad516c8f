"""What streams, Web Push and policies need to know of notifications and of whom they tell."""

from alembic import context, op

from migrations.render import Dialect, revision_statements

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FILES = ("notifications", "channels", "policies")


def _dialect() -> Dialect:
    dialect: Dialect = context.config.attributes["dialect"]
    return dialect


def upgrade() -> None:
    """Add the columns and the index, and take the defaults away."""
    for statement in revision_statements(revision, FILES, _dialect()):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """The reverse."""
    for statement in revision_statements(revision, ("down",), _dialect()):
        op.get_bind().exec_driver_sql(statement)
