"""The database and Redis as the checks use them: synchronous, one connection each, for one thread at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from fanline import database
from fanline.redis_nodes import RedisNodes, open_redis_nodes
from fanline.resp import pack
from fanline.settings import Settings
from readmodels import generations
from readmodels.effects import Command, Effects, Query, Redis, Result, drive

MOMENTARY = frozenset(("snapshot", "log_end"))
"""Columns that differ from one moment to the next although no row has changed (readmodels/incremental.py)."""


class Stores:
    """Runs queries and commands, and the read models' generators over both."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._answers = 0
        self.connection: psycopg.Connection[Any] = database.connect(settings, autocommit=True)
        self._redis: RedisNodes = open_redis_nodes(settings)
        self.serve_generations()

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """The rows of a query, by column name."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query.sql.encode(), query.parameters).fetchall()
        for row in rows:
            self._answers += hash(tuple(repr(value) for name, value in row.items() if name not in MOMENTARY))
        return rows

    @contextmanager
    def answers(self) -> Iterator[Callable[[], int]]:
        """A number that stands for all that the database answers within the block, in whatever order.

        Equal numbers mean equal answers, to 2^-64; what tells only of the moment (`MOMENTARY`) is left out.
        """
        self._answers = 0
        yield lambda: self._answers

    def redis(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to some commands, in order."""
        return self._redis.execute([(command.key, command.data) for command in commands])

    def drive(self, effects: Effects[Result]) -> Result:
        """Runs a generator to its end."""
        return drive(effects, self._run_redis, self.rows)

    def serve_generations(self) -> None:
        """Look at the generations that serve now, so that keys are theirs."""
        replies = self.redis([generations.read(model) for model in generations.MODELS])
        found = map(generations.parse, replies)
        generations.serve({model: each.serving for model, each in zip(generations.MODELS, found, strict=True)})

    def scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        """The keys of all nodes that match a glob, some at a time; a key may come twice."""
        for node in range(len(self._redis.addresses)):
            cursor = b"0"
            while True:
                payload = pack(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")
                exchange = self._redis.send(node, payload, 1)
                while not exchange.done:
                    self._redis.collect(1.0)
                cursor, keys = exchange.replies[0]
                if keys:
                    yield keys
                if cursor == b"0":
                    break

    def load_functions(self) -> None:
        """Load Fanline's functions into Redis, for those who write."""
        self._redis.load_functions(Path(str(files("readmodels").joinpath("functions"))))

    def close(self) -> None:
        """Close both connections."""
        self._redis.close()
        self.connection.close()

    def _run_redis(self, batch: Redis) -> list[Any]:
        return self.redis(batch.commands)
