"""Writes to the database: generators of queries (readmodels/effects.py), each in one transaction that commits once.

A serialisation failure, a deadlock and a row that another transaction has removed meanwhile begin the transaction
again; a database that is away is waited for. After a lost connection the commit may have happened: what a generator
writes must be harmless when repeated.

`SqlSink` reads for a batch while those before it are written: the database works on both at once.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg.rows import dict_row

from connectors.flows import flow_of
from connectors.lifecycle import on_pulse
from connectors.messages import Progress
from connectors.progress import ProgressGate, Segment, commit_progress
from connectors.waiting import TRANSIENT, Waiting
from fanline.database import MAX_ATTEMPTS, RETRYABLE, connect, pause_seconds
from fanline.metrics import BATCH_SIZE, SINK_SECONDS, SQL_RETRIES
from fanline.settings import Settings
from readmodels.effects import Effects, Query, Redis, drive
from sinks.single_part import SinglePartSink, SinglePartWriter

Result = TypeVar("Result")

# Batches that wait for the writer while the next one is read: more would only make a snapshot wait longer.
AHEAD = 2

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
            began = time.monotonic()
            try:
                result = self._once(effects())
            except AGAIN:
                attempt += 1
                if attempt == MAX_ATTEMPTS:
                    raise
                SQL_RETRIES.inc()
                time.sleep(pause_seconds(attempt))
            except TRANSIENT as error:
                time.sleep(self._waiting.failed(error, since=began))
            else:
                self._waiting.passed()
                return result

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()

    def _once(self, effects: Effects[Result]) -> Result:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._settings, repeating=True)
        with self._connection.transaction(), self._connection.cursor(row_factory=dict_row) as cursor:
            return drive(effects, _no_redis, lambda query: _rows(cursor, query))


class SqlSink(SinglePartSink[Any, None]):
    """Calls `read` with the data items of each batch, and `write` with what it gives: in order, on a thread of its own.

    Both wait for a database that is away, by themselves. What is written must be harmless when repeated. The offsets of
    progress items are committed to `group` when all before them is written.
    """

    def __init__(
        self, read: Callable[[Sequence[Any]], Any], write: Callable[[Any], None], group: str, *, name: str = "sql"
    ) -> None:
        self._read, self._write, self._group, self._name = read, write, group, name

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "SqlWriter":
        """The sink's part."""
        return SqlWriter(self._read, self._write, self._group, self._name)


class SqlWriter(SinglePartWriter[Any, None]):
    """The sink's part."""

    def __init__(
        self, read: Callable[[Sequence[Any]], Any], write: Callable[[Any], None], group: str, name: str
    ) -> None:
        self._read, self._write = read, write
        self._gate = ProgressGate(partial(commit_progress, group))
        labels = (flow_of(group), name)
        self._sizes, self._seconds = BATCH_SIZE.labels(*labels), SINK_SECONDS.labels(*labels)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._written: deque[tuple[Future[None], Segment, float]] = deque()
        on_pulse(self._take)

    def write_batch(self, values: list[Any]) -> None:
        """Read for the items and hand them to the writer; waits while it is `AHEAD` batches behind."""
        items = [value for value in values if type(value) is not Progress]
        if items:
            started = time.perf_counter()
            work = self._read(items)
            self._sizes.observe(len(items))
            self._written.append((self._thread.submit(self._write, work), self._gate.sent(), started))
        for value in values:
            if type(value) is Progress:
                self._gate.progress(value)
        while len(self._written) > AHEAD:
            self._written[0][0].exception()
            self._take()
        self._take()

    def snapshot(self) -> None:
        """Wait until everything is written."""
        while self._written:
            self._written[0][0].exception()
            self._take()

    def release(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _take(self) -> None:
        """Take in what has been written; raises what writing has raised."""
        while self._written and self._written[0][0].done():
            future, segment, started = self._written.popleft()
            future.result()
            self._seconds.observe(time.perf_counter() - started)
            self._gate.acknowledged(segment)


def _rows(cursor: psycopg.Cursor[Any], query: Query) -> list[Any]:
    cursor.execute(query.sql, query.parameters)
    return cursor.fetchall() if cursor.description is not None else []


def _no_redis(batch: Redis) -> NoReturn:
    raise TypeError("What runs in a transaction has no other effect than queries.")
