"""What every home read needs and what hardly ever changes: the generation of the timelines, and the celebrities."""

from collections.abc import Hashable
from dataclasses import dataclass

from api.document_cache import DocumentCache
from api.documents import TrackedDocuments
from api.redis_client import RedisClient
from readmodels import readiness
from readmodels.effects import command
from readmodels.followers import celebrities_key

READY_PREFIX = b"ready:"
CELEBRITIES_PREFIX = b"celebrities:"
_KEY = b"shared facts"
PREFIXES = (READY_PREFIX, CELEBRITIES_PREFIX)
"""The key prefixes whose changes make the facts stale."""


@dataclass(frozen=True, slots=True)
class SharedFacts:
    """`generation` is None while timelines cannot be kept; see `readmodels/readiness.py`."""

    generation: bytes | None
    celebrities: frozenset[bytes]


class SharedFactsReader:
    """Reads the facts, and keeps them in the cache as one value that any of their keys drops."""

    def __init__(self, redis: RedisClient, cache: DocumentCache) -> None:
        self._redis = redis
        self._cache = cache

    async def read(self) -> SharedFacts:
        """The facts; raises `RedisUnavailable` or `RedisReplyError`."""
        kept: SharedFacts | None = self._cache.get(_KEY)
        if kept is not None:
            return kept
        announced = self._cache.announce([_KEY])
        try:
            commands = [*map(readiness.read, readiness.mark_keys()), command(celebrities_key(), b"SMEMBERS")]
            *found, celebrities = await self._redis.execute(commands)
            facts = SharedFacts(readiness.generation_of(found), frozenset(celebrities))
            self._cache.keep(announced, _KEY, facts, 16 * len(celebrities))
            return facts
        finally:
            self._cache.forget(announced, [_KEY])


class HomeCache(TrackedDocuments):
    """Documents and shared facts, told of changes by Redis key."""

    def drop(self, key: Hashable) -> None:
        """The key has changed in Redis."""
        if isinstance(key, bytes) and (key.startswith(PREFIXES)):
            super().drop(_KEY)
        else:
            super().drop(key)
