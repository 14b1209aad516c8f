"""The database and Redis as the checks use them: synchronous, one connection each, for one thread at a time."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from fanline import database
from fanline.redis_nodes import RedisNodes, open_redis_nodes
from fanline.settings import Settings
from readmodels.effects import Command, Effects, Query, Redis, Result, drive


class Stores:
    """Runs queries and commands, and the read models' generators over both."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connection: psycopg.Connection[Any] = database.connect(settings, autocommit=True)
        self._redis: RedisNodes = open_redis_nodes(settings)

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """The rows of a query, by column name."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.sql.encode(), query.parameters).fetchall()

    def redis(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to some commands, in order."""
        return self._redis.execute([(command.key, command.data) for command in commands])

    def drive(self, effects: Effects[Result]) -> Result:
        """Runs a generator to its end."""
        return drive(effects, self._run_redis, self.rows)

    def load_functions(self) -> None:
        """Load Fanline's functions into Redis, for those who write."""
        self._redis.load_functions(Path(str(files("readmodels").joinpath("functions"))))

    def close(self) -> None:
        """Close both connections."""
        self._redis.close()
        self.connection.close()

    def _run_redis(self, batch: Redis) -> list[Any]:
        return self.redis(batch.commands)
