"""Brings a database to the newest schema: roles and database on the local stack, migrations, rights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import psycopg
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import migrations
from fanline import database
from fanline.errors import ConfigurationError
from fanline.settings import Settings
from migrations.publications import PUBLICATIONS
from migrations.render import SQL_DIR, Dialect, render, statements

CDC_ROLE = "fanline_cdc"
# Two `fanline migrate` at once: the second waits, then finds nothing to do.
MIGRATION_LOCK = 0x66616E6C


def migrate(settings: Settings, revision: str = "head") -> str:
    """Migrate to `revision` and return the revision reached; idempotent.

    On the local stack the owner role, the database and the change data capture role are made first. Raises
    `DependencyUnavailable` when the database does not answer and `ConfigurationError` when a right is missing.
    """
    if not settings.database_url.get_secret_value():
        _create_local_database(settings)
    with _alembic(settings) as (config, connection, dialect):
        alembic.command.upgrade(config, revision)
        reached = str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
        connection.commit()
        if dialect == "postgres" and revision == "head":
            _grant(settings)
    return reached


def downgrade(settings: Settings, revision: str) -> None:
    """Undo migrations down to `revision` (`base` for all); their tables' rows are lost."""
    with _alembic(settings) as (config, _, _):
        alembic.command.downgrade(config, revision)


def script_directory() -> ScriptDirectory:
    """Alembic's view of the history, for checks that need no database."""
    return ScriptDirectory.from_config(_config())


def dialect_of(version: str) -> Dialect:
    """The dialect of a server by its `version()`."""
    return "cockroach" if version.startswith("CockroachDB") else "postgres"


def _config() -> Config:
    config = Config()
    # A per cent sign in the folder's name must not be taken for interpolation.
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _alembic(settings: Settings) -> Iterator[tuple[Config, sqlalchemy.Connection, Dialect]]:
    with database.connect(settings, autocommit=True) as probe:
        row: Any = probe.execute("SELECT version()").fetchone()
    dialect = dialect_of(row[0])
    driver = {"postgres": "postgresql+psycopg", "cockroach": "cockroachdb+psycopg"}[dialect]
    # The address goes to psycopg untouched: libpq knows forms of it that SQLAlchemy does not.
    engine = sqlalchemy.create_engine(f"{driver}://", creator=lambda: psycopg.connect(database.database_url(settings)))
    config = _config()
    try:
        with engine.connect() as connection:
            if dialect == "postgres":
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
                connection.commit()
            config.attributes.update(connection=connection, dialect=dialect)
            yield config, connection, dialect
            connection.commit()
    except sqlalchemy.exc.DBAPIError as error:
        cause = error.orig if isinstance(error.orig, Exception) else error
        if isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise ConfigurationError(f"The database role may not migrate: {cause.diag.message_primary}.") from error
        if isinstance(cause, psycopg.OperationalError):
            raise database.unavailable(cause) from error
        raise
    finally:
        # Closing the connection, not just returning it, gives the advisory lock back.
        engine.dispose()


def _create_local_database(settings: Settings) -> None:
    owner = conninfo_to_dict(database.database_url(settings))
    name = sql.Identifier(str(owner["dbname"]))
    admin = make_conninfo(host=settings.host, port=settings.postgres_port, user="postgres", dbname="postgres")
    try:
        with psycopg.connect(admin, autocommit=True, connect_timeout=database.CONNECT_TIMEOUT_SECONDS) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
            for role, options in ((owner["user"], "LOGIN"), (CDC_ROLE, "LOGIN REPLICATION")):
                if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
                    connection.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(str(role)), sql.SQL(options)))
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [owner["dbname"]]).rowcount:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
            connection.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(str(owner["user"])))
            )
    except psycopg.OperationalError as error:
        raise database.unavailable(error) from error


def _grant(settings: Settings) -> None:
    with database.connect(settings) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [CDC_ROLE]).rowcount:
            raise ConfigurationError(
                f"The schema is in place, but the role {CDC_ROLE} that the connectors use is missing: create it with"
                f" CREATE ROLE {CDC_ROLE} LOGIN REPLICATION PASSWORD '...', then run fanline migrate again."
            )
        name = sql.Identifier(connection.info.dbname).as_string(connection)
        text = (SQL_DIR / "grants.sql").read_text("utf-8").replace("${database}", name)
        for statement in statements(render(text, "postgres")):
            connection.execute(statement.encode())
        for publication, (tables, operations) in PUBLICATIONS.items():
            _publish(connection, publication, tables, operations)


def _publish(connection: psycopg.Connection[Any], name: str, tables: tuple[str, ...], operations: str) -> None:
    exists = connection.execute("SELECT FROM pg_publication WHERE pubname = %s", [name]).rowcount
    statement = "ALTER PUBLICATION {} SET TABLE {}" if exists else "CREATE PUBLICATION {} FOR TABLE {}"
    targets = sql.SQL(", ").join(map(sql.Identifier, tables))
    connection.execute(sql.SQL(statement).format(sql.Identifier(name), targets))
    connection.execute(sql.SQL("ALTER PUBLICATION {} SET (publish = {})").format(sql.Identifier(name), operations))
