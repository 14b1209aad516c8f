"""Migrations on a real Postgres, in a database of their own."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from fanline import database
from fanline.errors import ConfigurationError, DependencyUnavailable
from fanline.migrations_runner import downgrade, migrate, script_directory
from fanline.settings import Settings
from migrations.publications import CAPTURED

HEAD = script_directory().get_current_head()


def admin(settings: Settings, dbname: str = "postgres") -> psycopg.Connection:
    return psycopg.connect(
        host=settings.host, port=settings.postgres_port, user="postgres", dbname=dbname, autocommit=True
    )


@pytest.fixture(scope="module")
def migrated(stack):
    """The stack with its own database migrated, so that the roles exist."""
    stack.fanline("migrate")
    return stack


@pytest.fixture
def empty(migrated) -> Iterator[Settings]:
    """Settings that name an empty database which belongs to `fanline`."""
    stack = migrated
    name = f"scratch_{uuid.uuid4().hex[:8]}"
    with admin(stack.settings) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER fanline").format(sql.Identifier(name)))
    url = f"postgresql://fanline@{stack.settings.host}:{stack.settings.postgres_port}/{name}"
    yield stack.settings.model_copy(update={"database_url": type(stack.settings.database_url)(url)})
    with admin(stack.settings) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def relations(settings: Settings) -> set[str]:
    with database.connect(settings) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
            " AND relname <> 'alembic_version_pkc'"
        )
        return {row[0] for row in rows}


def test_all_the_way_up_then_down_then_up_again(empty):
    assert migrate(empty) == HEAD
    up = relations(empty)
    assert {"users", "posts", "outbox", "push_subscriptions"} <= up
    downgrade(empty, "base")
    assert relations(empty) == set()
    assert migrate(empty) == HEAD
    assert relations(empty) == up


def test_migrating_twice_changes_nothing(empty):
    migrate(empty)
    before = relations(empty)
    assert migrate(empty) == HEAD
    assert relations(empty) == before


def test_two_migrations_at_once_both_succeed(stack, empty):
    url = {"FANLINE_DATABASE_URL": database.database_url(empty)}
    rival = replace(stack, environment=stack.environment | url)
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda _: rival.fanline("migrate").stdout, range(3)))
    assert done == [f"The database is at revision {HEAD}.\n"] * 3


def test_every_foreign_key_has_an_index_that_its_cascade_can_use(empty):
    migrate(empty)
    with database.connect(empty) as connection:
        rows = connection.execute(
            """
            SELECT conrelid::regclass::text, conname FROM pg_constraint c
            WHERE contype = 'f' AND NOT EXISTS (
                SELECT FROM pg_index i
                WHERE i.indrelid = c.conrelid AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
            )
            """
        ).fetchall()
    assert rows == []


def test_the_capture_role_reads_what_is_captured_and_nothing_else(empty):
    migrate(empty)
    dbname = str(psycopg.conninfo.conninfo_to_dict(database.database_url(empty))["dbname"])
    with psycopg.connect(
        host=empty.host, port=empty.postgres_port, user="fanline_cdc", dbname=dbname, autocommit=True
    ) as connection:
        for table in (*CAPTURED, "outbox"):
            connection.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(table)))
        connection.execute("INSERT INTO heartbeat VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET ts = excluded.ts")
        for forbidden in (
            "SELECT FROM identities",
            "SELECT FROM sessions",
            "SELECT FROM signing_keys",
            "DELETE FROM posts",
            "UPDATE users SET note = ''",
            "DELETE FROM heartbeat",
            "INSERT INTO outbox VALUES (gen_random_uuid(), '', '', '', '')",
            "CREATE TABLE mine (id int)",
            "ALTER PUBLICATION fanline_cdc SET TABLE users",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden)
        role = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert role == (False, False, False, True)


def test_a_deleted_account_takes_its_own_with_it_and_leaves_other_peoples_replies(empty):
    migrate(empty)
    ada, bob = uuid.uuid4(), uuid.uuid4()
    with database.connect(empty) as connection:
        for user, name in ((ada, "ada"), (bob, "bob")):
            connection.execute("INSERT INTO users (id, username) VALUES (%s, %s)", [user, name])
        connection.execute("INSERT INTO follows (follower_id, followee_id) VALUES (%s, %s)", [bob, ada])
        connection.execute("INSERT INTO posts (id, author_id, text) VALUES (1, %s, 'hello')", [ada])
        connection.execute(
            "INSERT INTO posts (id, author_id, text, in_reply_to_id, in_reply_to_account_id)"
            " VALUES (2, %s, 'reply', 1, %s)",
            [bob, ada],
        )
        connection.execute("INSERT INTO posts (id, author_id, repost_of_id) VALUES (3, %s, 1)", [bob])
        connection.execute("DELETE FROM users WHERE id = %s", [ada])
        left = connection.execute("SELECT id, in_reply_to_id, in_reply_to_account_id FROM posts").fetchall()
        assert left == [(2, None, ada)]
        assert connection.execute("SELECT count(*) FROM follows").fetchone() == (0,)


def test_the_same_person_cannot_repost_twice(empty):
    migrate(empty)
    ada = uuid.uuid4()
    with database.connect(empty) as connection:
        connection.execute("INSERT INTO users (id, username) VALUES (%s, 'ada')", [ada])
        connection.execute("INSERT INTO posts (id, author_id, text) VALUES (1, %s, 'x')", [ada])
        connection.execute("INSERT INTO posts (id, author_id, repost_of_id) VALUES (2, %s, 1)", [ada])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO posts (id, author_id, repost_of_id) VALUES (3, %s, 1)", [ada])


def test_a_role_without_rights_is_told_so_in_one_sentence(stack, empty):
    dbname = str(psycopg.conninfo.conninfo_to_dict(database.database_url(empty))["dbname"])
    url = f"postgresql://fanline_cdc@{stack.settings.host}:{stack.settings.postgres_port}/{dbname}"
    powerless = empty.model_copy(update={"database_url": type(empty.database_url)(url)})
    with pytest.raises(ConfigurationError, match="may not migrate: permission denied for schema public"):
        migrate(powerless)


def test_a_database_that_is_not_there_is_named_in_one_sentence():
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(DependencyUnavailable, match="The database does not answer"):
        migrate(settings)
