"""Writes to the database: generators of queries (readmodels/effects.py), each in one transaction that commits once.

A serialisation failure, a deadlock and a row that another transaction has removed meanwhile begin the transaction
again; a database that is away is waited for. After a lost connection the commit may have happened: what a generator
writes must be harmless when repeated.
"""

import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg.rows import dict_row

from fanline.database import MAX_ATTEMPTS, RETRYABLE, connect, pause_seconds
from fanline.metrics import SQL_RETRIES
from fanline.settings import Settings
from readmodels.effects import Effects, Query, Redis, drive
from sinks.batch import TRANSIENT
from sinks.waiting import Waiting

Result = TypeVar("Result")

# What a concurrent transaction may cause: the next try sees what it has done.
AGAIN = (*RETRYABLE, psycopg.errors.ForeignKeyViolation)


class SqlTransactions:
    """One connection, made when it is first needed. One thread only."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._waiting = Waiting(name)
        self._connection: psycopg.Connection[Any] | None = None

    def run(self, effects: Callable[[], Effects[Result]]) -> Result:
        """Runs the generator that `effects` makes to its end and commits; `effects` is called for every try.

        Raises the last failure of `AGAIN` after `MAX_ATTEMPTS` of them in a row, and `DependencyUnavailable` only when
        the process has been asked to stop while the database was away.
        """
        attempt = 0
        while True:
            try:
                result = self._once(effects())
            except AGAIN:
                attempt += 1
                if attempt == MAX_ATTEMPTS:
                    raise
                SQL_RETRIES.inc()
                time.sleep(pause_seconds(attempt))
            except TRANSIENT as error:
                time.sleep(self._waiting.failed(str(error) or type(error).__name__))
            else:
                self._waiting.passed()
                return result

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()

    def _once(self, effects: Effects[Result]) -> Result:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._settings)
        with self._connection.transaction(), self._connection.cursor(row_factory=dict_row) as cursor:
            return drive(effects, _no_redis, lambda query: _rows(cursor, query))


def _rows(cursor: psycopg.Cursor[Any], query: Query) -> list[Any]:
    cursor.execute(query.sql, query.parameters)
    return cursor.fetchall() if cursor.description is not None else []


def _no_redis(batch: Redis) -> NoReturn:
    raise TypeError("What runs in a transaction has no other effect than queries.")
