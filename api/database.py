"""The database as handlers use it: rows as dicts, and one transaction a write."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from fanline.database import AsyncCountingCursor, run_transaction_async, unavailable

T = TypeVar("T")
Row = dict[str, Any]
Parameters = Mapping[str, Any]


class Transaction:
    """Statements inside one transaction, or inside one read."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    async def execute(self, query: str, parameters: Parameters | None = None) -> int:
        """Run a statement; the number of rows that it changed."""
        async with AsyncCountingCursor(self.connection) as cursor:
            await cursor.execute(query.encode(), parameters)
            return cursor.rowcount

    async def rows(self, query: str, parameters: Parameters | None = None) -> list[Row]:
        """The rows of a query."""
        async with AsyncCountingCursor(self.connection, row_factory=dict_row) as cursor:
            await cursor.execute(query.encode(), parameters)
            return list(await cursor.fetchall())

    async def row(self, query: str, parameters: Parameters | None = None) -> Row | None:
        """The first row of a query, if there is one."""
        async with AsyncCountingCursor(self.connection, row_factory=dict_row) as cursor:
            await cursor.execute(query.encode(), parameters)
            row: Row | None = await cursor.fetchone()
            return row


class Database:
    """A pool; every method raises `DependencyUnavailable` when the database does not answer."""

    def __init__(self, pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]]) -> None:
        self.pool = pool

    async def transaction(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `body` in one transaction, again from its start on a serialisation failure or deadlock."""

        async def run(connection: psycopg.AsyncConnection[Any]) -> T:
            return await body(Transaction(connection))

        return await run_transaction_async(self.pool, run)

    async def read(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run several queries on one connection; a connection that turns out to be dead is replaced, once."""
        try:
            return await self._read(body)
        except PoolTimeout as error:
            raise unavailable(error) from error
        except psycopg.OperationalError:
            await self.pool.check()
        try:
            return await self._read(body)
        except psycopg.OperationalError as error:
            raise unavailable(error) from error

    async def _read(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        async with self.pool.connection() as connection:
            # Each statement sees the newest commits either way; this saves the BEGIN and the COMMIT.
            await connection.set_autocommit(True)
            try:
                return await body(Transaction(connection))
            finally:
                if not connection.closed:
                    await connection.set_autocommit(False)

    async def execute(self, query: str, parameters: Parameters | None = None) -> int:
        """Run one statement in a transaction of its own."""
        return await self.transaction(lambda transaction: transaction.execute(query, parameters))

    async def rows(self, query: str, parameters: Parameters | None = None) -> list[Row]:
        """The rows of one query."""
        return await self.read(lambda transaction: transaction.rows(query, parameters))

    async def row(self, query: str, parameters: Parameters | None = None) -> Row | None:
        """The first row of one query, if there is one."""
        return await self.read(lambda transaction: transaction.row(query, parameters))
