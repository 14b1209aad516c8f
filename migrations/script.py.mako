"""${message}."""

from alembic import context, op

from migrations.render import Dialect, revision_statements

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def _dialect() -> Dialect:
    dialect: Dialect = context.config.attributes["dialect"]
    return dialect


def upgrade() -> None:
    """Apply."""
    for statement in revision_statements(revision, ("up",), _dialect()):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Undo."""
    for statement in revision_statements(revision, ("down",), _dialect()):
        op.get_bind().exec_driver_sql(statement)
