"""Trends as the API reads them: from Redis, and from the database when Redis does not have them."""

from collections.abc import Sequence
from typing import TypeVar

from aiohttp import web

from api.breaker import Breaker, CircuitOpen
from api.context import Context
from api.effects import run
from api.redis_client import RedisReplyError, RedisUnavailable
from fanline.ids import first_id_at
from fanline.logging import get_logger
from readmodels import trend_ranking, trends
from readmodels.effects import Effects, Redis
from readmodels.trend_ranking import Ranking, Terms
from readmodels.trend_uses import DAY_MS
from readmodels.trends import Use

T = TypeVar("T")

# The database's ranking reads a day of posts and likes.
KEPT_SECONDS = 60.0

_log = get_logger(__name__)

ORACLES = {trends.TAGS: trend_ranking.tags_oracle, trends.POSTS: trend_ranking.posts_oracle}


class TrendReads:
    """Reads rankings and histories; one object an application."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._breaker = Breaker(RedisUnavailable)

    @property
    def today(self) -> int:
        """The day, counted from the Unix epoch."""
        return self.context.clock.now_ms() // DAY_MS

    async def ranking(self, kind: bytes) -> Ranking:
        """What trends, reviewed or not; raises `DependencyUnavailable` when nothing answers."""
        value = await self._from_redis(_read_ranking(kind))
        if value is not None:
            return trend_ranking.parse(value)

        async def load() -> Ranking:
            settings = self.context.settings
            terms = Terms(self.context.clock.now_ms(), settings.trends_minimum_accounts, settings.trends_account_hours)
            return await run(ORACLES[kind](terms), None, self.context.database.rows)

        kept: Ranking = await self.context.kept(f"trends {kind.decode()}", KEPT_SECONDS, load)
        return kept

    async def histories(self, names: Sequence[str]) -> dict[str, dict[int, Use]]:
        """The days of hashtags by name; raises `DependencyUnavailable` when nothing answers."""
        found = await self._from_redis(trends.read_history(names, self.today))
        if found is not None:
            return found
        first = first_id_at((self.today - trends.HISTORY_DAYS + 1) * DAY_MS)
        rows = await self.context.database.rows(trends.TAG_HISTORY, {"names": list(names), "first": first})
        return trends.histories(rows)

    async def _from_redis(self, effects: Effects[T]) -> T | None:
        try:
            with self._breaker.guard():
                return await run(effects, self.context.redis, self.context.database.rows)
        except CircuitOpen:
            return None
        except (RedisUnavailable, RedisReplyError) as error:
            _log.warning("trends are read from the database", reason=str(error))
            return None


TRENDS = web.AppKey("trends", TrendReads)


def _read_ranking(kind: bytes) -> Effects[bytes | None]:
    (value,) = yield Redis([trend_ranking.read(kind)])
    return bytes(value) if value is not None else None
