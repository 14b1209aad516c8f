"""Which generations of the read models this process reads (readmodels/generations.py)."""

import asyncio
from collections.abc import Callable

from api.redis_client import RedisClient
from api.redis_connection import RedisReplyError, RedisUnavailable
from readmodels import generations

LOOK_SECONDS = 0.5
"""For so long processes may differ after a switch; both generations are kept up to date meanwhile."""


async def follow_generations(redis: RedisClient, switched: Callable[[], None]) -> None:
    """Read the generations that serve, from now on, until cancelled; `switched` is called after each change.

    While Redis is away nothing is read from it, so nothing changes either.
    """
    while True:
        try:
            replies = await redis.execute([generations.read(model) for model in generations.MODELS])
        except (RedisUnavailable, RedisReplyError):
            pass
        else:
            found = zip(generations.MODELS, map(generations.parse, replies), strict=True)
            if generations.serve({model: each.serving for model, each in found}):
                switched()
        await asyncio.sleep(LOOK_SECONDS)
