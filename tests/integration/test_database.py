"""Transactions that meet their rivals on a real Postgres."""

import threading
import uuid

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from fanline import database, metrics
from fanline.errors import DependencyUnavailable
from fanline.migrations_runner import migrate
from fanline.settings import Settings


def statements() -> float:
    value: float = metrics.SQL_STATEMENTS._value.get()
    return value


@pytest.fixture
def counter(stack):
    """A table with one number, and a pool."""
    migrate(stack.settings)
    table = f"scratch_{uuid.uuid4().hex[:8]}"
    with database.connect(stack.settings, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE TABLE {} (n int)").format(sql.Identifier(table)))
        connection.execute(sql.SQL("INSERT INTO {} VALUES (0)").format(sql.Identifier(table)))
        with database.open_pool(stack.settings, max_size=4) as pool:
            yield table, pool
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))


def increment(table: str):
    def body(connection):
        connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        (n,) = connection.execute(sql.SQL("SELECT n FROM {}").format(sql.Identifier(table))).fetchone()
        connection.execute(sql.SQL("UPDATE {} SET n = %s").format(sql.Identifier(table)), [n + 1])
        return n + 1

    return body


@pytest.mark.parametrize("way", ["pool", "alone", "on"])
def test_serialisation_failures_are_retried_until_every_transaction_has_happened(counter, stack, way):
    table, pool = counter
    retries = metrics.SQL_RETRIES._value.get()
    results: list[int] = []

    def run():
        with database.connect(stack.settings, autocommit=True) as own:
            for _ in range(5):
                if way == "pool":
                    results.append(database.run_transaction(pool, increment(table)))
                elif way == "alone":
                    results.append(database.run_transaction_alone(stack.settings, increment(table)))
                else:
                    results.append(database.run_transaction_on(own, increment(table)))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == list(range(1, 16))
    assert metrics.SQL_RETRIES._value.get() > retries


def test_a_failing_body_is_rolled_back_and_not_run_again(counter):
    table, pool = counter
    runs = []

    def body(connection):
        runs.append(1)
        increment(table)(connection)
        raise LookupError("no")

    with pytest.raises(LookupError):
        database.run_transaction(pool, body)
    with pool.connection() as connection:
        assert connection.execute(sql.SQL("SELECT n FROM {}").format(sql.Identifier(table))).fetchone() == (0,)
    assert runs == [1]


async def test_the_asynchronous_pool_retries_too(counter, stack):
    table, _ = counter
    attempts = []

    async def body(connection):
        attempts.append(1)
        if len(attempts) < 3:
            raise psycopg.errors.SerializationFailure("rival")
        await connection.execute(sql.SQL("UPDATE {} SET n = 7").format(sql.Identifier(table)))
        return "done"

    pool = await database.open_async_pool(stack.settings)
    async with pool:
        assert await database.run_transaction_async(pool, body) == "done"
    assert len(attempts) == 3


def test_every_statement_is_counted(counter):
    table, pool = counter
    with pool.connection() as connection:
        before = statements()
        connection.execute(sql.SQL("SELECT n FROM {}").format(sql.Identifier(table)))
        with connection.cursor() as cursor:
            cursor.executemany(sql.SQL("INSERT INTO {} VALUES (%s)").format(sql.Identifier(table)), [[1], [2], [3]])
        assert statements() - before == 4


def test_a_connection_that_the_server_cuts_is_a_dependency_that_is_unavailable(counter):
    _, pool = counter

    def body(connection):
        with psycopg.connect(connection.info.dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.execute("SELECT 1")

    with pytest.raises(DependencyUnavailable, match="The database does not answer"):
        database.run_transaction(pool, body)
    assert database.run_transaction(pool, lambda connection: connection.execute("SELECT 5").fetchone()) == (5,)


def test_a_pool_without_a_server_says_so(caplog):
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    pool = ConnectionPool(database.database_url(settings), timeout=0.2, min_size=1, max_size=1, open=True)
    try:
        with pytest.raises(DependencyUnavailable, match="The database does not answer"):
            database.run_transaction(pool, lambda connection: None)
    finally:
        pool.close()
