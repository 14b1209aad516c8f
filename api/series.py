"""Time series as the API reads them: from Redis, and from the database when Redis does not answer."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from aiohttp import web

from api.breaker import Breaker, CircuitOpen
from api.context import CONTEXT, Context
from api.effects import run
from api.redis_client import RedisReplyError, RedisUnavailable
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger
from readmodels import active_users, aggregates, deliveries
from readmodels.aggregate_queries import ACTIVE_COUNT
from readmodels.aggregates import DAY, Buckets, Resolution, Retention, Scope
from readmodels.effects import Effects

T = TypeVar("T")

# An estimate over weeks changes slowly, and its fall-back reads weeks of rows.
KEPT_SECONDS = 60.0

_log = get_logger(__name__)


class TimeSeries:
    """Reads time series; one object an application."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self._context = context
        self._breaker = Breaker(RedisUnavailable)
        self.kept: Retention = aggregates.retention(
            settings.aggregates_minutes_days, settings.aggregates_hours_days, settings.aggregates_days_days
        )

    async def read(self, scope: Scope, resolution: Resolution, start: int, end: int) -> Buckets:
        """The buckets from `start` to before `end`, both multiples of the width; buckets of zeros may be missing.

        Raises `DependencyUnavailable` when neither Redis nor the database answers.
        """
        now = int(time.time())
        found = await self._from_redis(aggregates.read(scope, resolution, start, end, now, self.kept))
        if found is not None:
            return found
        parts = {
            series: [(max(start, series.start), min(end, series.end))]
            for series in aggregates.series_between(scope, resolution, start, end)
        }
        counted = await run(aggregates.count(parts), None, self._context.database.rows)
        return {bucket: counts for buckets in counted.values() for bucket, counts in buckets.items()}

    async def deliveries(self, scope: Scope, resolution: Resolution, start: int, end: int) -> Buckets:
        """The deliveries in the same way, which Redis alone knows: raises `DependencyUnavailable` without it."""
        found = await self._from_redis(deliveries.read(scope, resolution, start, end))
        if found is None:
            raise DependencyUnavailable("Only Redis knows what was delivered, and it does not answer.", "redis")
        return found

    async def active(self, days: Sequence[int]) -> int:
        """About how many people were active on any of the days, given by their starts in Unix seconds, in order."""

        async def load() -> int:
            estimate = await self._from_redis(active_users.read(days))
            if estimate is not None:
                return estimate
            between = {"starts_at": aggregates.moment(days[0]), "ends_at": aggregates.moment(days[-1] + DAY)}
            row = await self._context.database.row(ACTIVE_COUNT, between)
            return 0 if row is None else int(row["active"])

        return int(await self._context.kept(f"active {days[0]} {days[-1]}", KEPT_SECONDS, load))

    async def _from_redis(self, effects: Effects[T]) -> T | None:
        try:
            with self._breaker.guard():
                return await run(effects, self._context.redis, self._context.database.rows)
        except CircuitOpen:
            return None
        except (RedisUnavailable, RedisReplyError) as error:
            _log.warning("redis has not answered for a time series", reason=str(error))
            return None


SERIES = web.AppKey("time series", TimeSeries)


async def serve_series(app: web.Application) -> AsyncIterator[None]:
    """For `cleanup_ctx`, after the context is there."""
    app[SERIES] = TimeSeries(app[CONTEXT])
    yield
