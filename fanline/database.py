"""Connections to Postgres or CockroachDB: addresses, pools, and transactions that retry what may be retried."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import Params
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from fanline import metrics
from fanline.errors import DependencyUnavailable
from fanline.settings import Settings

T = TypeVar("T")

# Serialisation failure (CockroachDB's ordinary answer to contention) and deadlock: the same transaction may pass now.
RETRYABLE = (errors.SerializationFailure, errors.DeadlockDetected)
MAX_ATTEMPTS = 8
# The first pause is about one short transaction; it doubles, with full jitter, so that rivals spread out.
FIRST_PAUSE_SECONDS = 0.01
CONNECT_TIMEOUT_SECONDS = 5
# Statements are prepared at their second use, and planned once: Postgres would go on planning those with arrays anew
# each time, as it takes an array of unknown length for ten elements, and their planning costs more than they do.
PREPARE_THRESHOLD = 1
GENERIC_PLANS = "SET plan_cache_mode = force_generic_plan"
READ_ONLY = "The database takes no writes at the moment, as it is being moved; try again in a minute."


class CountingCursor(psycopg.Cursor[Any]):
    """A cursor that counts its statements in `fanline_sql_statements_total`."""

    def execute(self, query: Any, params: Params | None = None, **options: Any) -> "CountingCursor":
        """Count, then execute."""
        metrics.SQL_STATEMENTS.inc()
        super().execute(query, params, **options)
        return self

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        """Count a statement a row of parameters, then execute."""
        rows = list(params_seq)
        metrics.SQL_STATEMENTS.inc(len(rows))
        super().executemany(query, rows, **options)


class AsyncCountingCursor(psycopg.AsyncCursor[Any]):
    """An asynchronous cursor that counts its statements in `fanline_sql_statements_total`."""

    async def execute(self, query: Any, params: Params | None = None, **options: Any) -> "AsyncCountingCursor":
        """Count, then execute."""
        metrics.SQL_STATEMENTS.inc()
        await super().execute(query, params, **options)
        return self

    async def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        """Count a statement a row of parameters, then execute."""
        rows = list(params_seq)
        metrics.SQL_STATEMENTS.inc(len(rows))
        await super().executemany(query, rows, **options)


def database_url(settings: Settings) -> str:
    """The connection URL: the setting, or the local stack's database; contains the password."""
    return settings.database_url.get_secret_value() or (
        f"postgresql://fanline@{settings.host}:{settings.postgres_port}/fanline"
    )


def connect(settings: Settings, *, autocommit: bool = False, repeating: bool = False) -> psycopg.Connection[Any]:
    """One synchronous connection of its own; raises `DependencyUnavailable` when nothing answers.

    `repeating` is for one that runs the same few statements again and again: they are planned once.
    """
    try:
        connection = psycopg.connect(
            database_url(settings),
            autocommit=autocommit,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            cursor_factory=CountingCursor,
        )
        if repeating:
            _plan_once(connection)
        return connection
    except psycopg.OperationalError as error:
        raise unavailable(error) from error


def _plan_once(connection: psycopg.Connection[Any]) -> None:
    """Not counted as a statement: it belongs to the connection."""
    connection.prepare_threshold = PREPARE_THRESHOLD
    psycopg.Cursor(connection).execute(GENERIC_PLANS)
    if not connection.autocommit:
        connection.commit()


async def _plan_once_async(connection: psycopg.AsyncConnection[Any]) -> None:
    connection.prepare_threshold = PREPARE_THRESHOLD
    await psycopg.AsyncCursor(connection).execute(GENERIC_PLANS)
    await connection.commit()


def open_pool(settings: Settings, *, max_size: int = 4) -> ConnectionPool[psycopg.Connection[Any]]:
    """An open synchronous pool; its connections are made in the background and checked before use."""
    return ConnectionPool(
        database_url(settings),
        kwargs={"cursor_factory": CountingCursor, "connect_timeout": CONNECT_TIMEOUT_SECONDS},
        min_size=1,
        max_size=max_size,
        timeout=CONNECT_TIMEOUT_SECONDS,
        configure=_plan_once,
        check=ConnectionPool.check_connection,
        open=True,
    )


async def open_async_pool(
    settings: Settings, *, min_size: int = 1, max_size: int = 10
) -> AsyncConnectionPool[psycopg.AsyncConnection[Any]]:
    """An open asynchronous pool; a dead connection costs its user one failed statement.

    Its neighbours were probably lost with it: who meets one has the pool checked, so that nobody meets the others.
    """
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
        database_url(settings),
        kwargs={"cursor_factory": AsyncCountingCursor, "connect_timeout": CONNECT_TIMEOUT_SECONDS},
        min_size=min_size,
        max_size=max_size,
        timeout=CONNECT_TIMEOUT_SECONDS,
        configure=_plan_once_async,
        open=False,
    )
    await pool.open()
    return pool


def unavailable(error: Exception) -> DependencyUnavailable:
    """The typed error for a connection that failed or was lost."""
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return DependencyUnavailable(f"The database does not answer: {reason}.", "database")


def pause_seconds(attempt: int) -> float:
    """How long to wait after the given failed attempt (from 0)."""
    return random.uniform(0, FIRST_PAUSE_SECONDS * 2**attempt)


def run_transaction(pool: ConnectionPool[psycopg.Connection[Any]], body: Callable[[psycopg.Connection[Any]], T]) -> T:
    """Run `body` in one transaction, again from its start on a serialisation failure or deadlock.

    `body` must have no effect outside the database. Raises the last such failure after `MAX_ATTEMPTS`, and
    `DependencyUnavailable` when the connection cannot be had or is lost (the commit may then have happened).
    """
    return _run(pool.connection, body)


def run_transaction_alone(settings: Settings, body: Callable[[psycopg.Connection[Any]], T]) -> T:
    """`run_transaction` for who writes seldom: every try has a connection of its own."""
    return _run(partial(connect, settings), body)


def run_transaction_on(connection: psycopg.Connection[Any], body: Callable[[psycopg.Connection[Any]], T]) -> T:
    """`run_transaction` on a connection that one has, in autocommit mode and outside of any transaction."""
    return _run(partial(_transaction, connection), body)


@contextmanager
def _transaction(connection: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    with connection.transaction():
        yield connection


def _run(
    connection_of: Callable[[], AbstractContextManager[psycopg.Connection[Any]]],
    body: Callable[[psycopg.Connection[Any]], T],
) -> T:
    for attempt in range(MAX_ATTEMPTS):
        try:
            with connection_of() as connection:
                return body(connection)
        except RETRYABLE:
            if attempt == MAX_ATTEMPTS - 1:
                raise
            metrics.SQL_RETRIES.inc()
            time.sleep(pause_seconds(attempt))
        except errors.ReadOnlySqlTransaction as error:
            raise DependencyUnavailable(READ_ONLY, "database") from error
        except psycopg.OperationalError as error:
            raise unavailable(error) from error
    raise AssertionError("unreachable")


async def run_transaction_async(
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]],
    body: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]],
) -> T:
    """`run_transaction` for the asynchronous pool, which is checked when a connection was lost."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            async with pool.connection() as connection:
                return await body(connection)
        except RETRYABLE:
            if attempt == MAX_ATTEMPTS - 1:
                raise
            metrics.SQL_RETRIES.inc()
            await asyncio.sleep(pause_seconds(attempt))
        except errors.ReadOnlySqlTransaction as error:
            raise DependencyUnavailable(READ_ONLY, "database") from error
        except PoolTimeout as error:
            raise unavailable(error) from error
        except psycopg.OperationalError as error:
            await pool.check()
            raise unavailable(error) from error
    raise AssertionError("unreachable")
