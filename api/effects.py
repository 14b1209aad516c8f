"""Runs the read models' generators (`readmodels/effects.py`) with the API's Redis client and database."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from api.redis_client import RedisClient
from readmodels.effects import Effects, Redis

T = TypeVar("T")
Rows = Callable[[str, Mapping[str, Any]], Awaitable[list[dict[str, Any]]]]
"""Answers a query: `Database.rows`, or `Transaction.rows` to stay on one connection."""


async def run(effects: Effects[T], redis: RedisClient | None, rows: Rows) -> T:
    """The generator's result; raises `RedisUnavailable`, `RedisReplyError` or `DependencyUnavailable`.

    `redis` may be None for a generator that only queries.
    """
    answer: Any = None
    while True:
        try:
            wanted = effects.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if isinstance(wanted, Redis):
            assert redis is not None
            answer = await redis.execute(wanted.commands) if wanted.commands else []
        else:
            answer = await rows(wanted.sql, wanted.parameters)
