"""Follows posts on their way: until a follower's list in Redis has them, and the feed over REST shows them."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import BlockingConnectionPool
from redis.exceptions import RedisError

from audit.rest import HomeReader
from demo.graph import Graph
from demo.journey import Journey
from demo.poster import Acknowledged
from demo.tap import PostTap
from fanline.errors import DependencyUnavailable
from fanline.ids import pack_id
from fanline.redis_nodes import redis_url
from fanline.settings import Settings
from readmodels.timelines import timeline_key

# A look costs Redis 2 us; the moments are exact to about this, and to a twentieth of what has passed since.
LOOK_SECONDS = 0.001
GIVE_UP_SECONDS = 30.0
_CONNECTIONS = 16
# Newest items of a list that are looked at: more than arrive between two looks.
_NEWEST = 32


class Watch:
    """Samples posts as they come by in Kafka. Followers who never write are watched: they read what Redis has.

    A post's feeds do not wait for the answer to its author, and neither do looks at them. Replies and reposts may be
    hidden from a follower by the rules, and would be waited for in vain. Watching costs the machine that is being
    measured, so at most `per_second` posts are followed. To be made inside the running event loop.
    """

    def __init__(
        self,
        settings: Settings,
        graph: Graph,
        people: Sequence[UUID],
        readers: set[int],
        reader: HomeReader,
        tap: PostTap,
        per_second: float,
    ) -> None:
        self.journeys: list[Journey] = []
        self._graph = graph
        self._people = people
        self._numbers = {person: number for number, person in enumerate(people)}
        self._readers = readers
        self._reader = reader
        self._tap = tap
        self._pause = 1 / per_second
        self._next = 0.0
        self._sent: dict[int, float] = {}
        self._over = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._redis: redis.asyncio.Redis | RedisCluster = (
            RedisCluster.from_url(redis_url(settings), max_connections=1_000)
            if settings.redis_cluster
            else redis.asyncio.Redis.from_pool(
                BlockingConnectionPool.from_url(
                    redis_url(settings), max_connections=_CONNECTIONS, timeout=GIVE_UP_SECONDS
                )
            )
        )
        loop = asyncio.get_running_loop()

        def seen(post_id: int, author: UUID) -> None:
            loop.call_soon_threadsafe(self._begin, post_id, author)

        tap.on_post = seen

    def on_acknowledged(self, done: Acknowledged) -> None:
        """Note when the post's request was sent."""
        self._sent[done.post_id] = done.sent_at

    def _begin(self, post_id: int, author: UUID) -> None:
        """Start to follow the post, if it is its turn and a reader follows its author."""
        now, number = time.monotonic(), self._numbers.get(author)
        if self._over or now < self._next or number is None:
            return
        readers = [person for person in self._graph.followers(number) if person in self._readers]
        if not readers:
            return
        self._next = now + self._pause
        journey = Journey(post_id)
        self.journeys.append(journey)
        task = asyncio.get_running_loop().create_task(self._follow(journey, self._people[random.choice(readers)]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the posts on their way, and close."""
        self._over = True
        await asyncio.gather(*self._tasks)
        await self._redis.aclose()

    async def _follow(self, journey: Journey, follower: UUID) -> None:
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                journey.in_redis = await _moment(lambda: self._is_in_redis(journey.post_id, follower))
                journey.visible = await _moment(lambda: self._is_visible(journey.post_id, follower))
                await _moment(lambda: self._is_tapped(journey))
                await _moment(lambda: self._is_acknowledged(journey))
        except TimeoutError:
            return

    async def _is_in_redis(self, post_id: int, follower: UUID) -> bool:
        newest = await self._redis.lrange(timeline_key(follower), -_NEWEST, -1)
        return pack_id(post_id) in newest

    async def _is_visible(self, post_id: int, follower: UUID) -> bool:
        return any(item[0] == post_id for item in await self._reader.home(follower, depth=10))

    async def _is_tapped(self, journey: Journey) -> bool:
        if (seen := self._tap.seen(journey.post_id)) is None:
            return False
        journey.committed, journey.captured, journey.consumed = seen.committed, seen.captured, seen.consumed
        return True

    async def _is_acknowledged(self, journey: Journey) -> bool:
        journey.sent = self._sent.get(journey.post_id)
        return journey.sent is not None


async def _moment(happened: Callable[[], Awaitable[bool]]) -> float:
    """The Unix time at which a look first finds that something has happened; a server that is away is asked again.

    Looks come further apart the longer it takes, so that what is slow is not slowed down by being watched, and a
    feed is not asked for more often than its owner may.
    """
    started = time.monotonic()
    while True:
        try:
            if await happened():
                return time.time()
        except (DependencyUnavailable, RedisError):
            await asyncio.sleep(0.1)
        await asyncio.sleep(max(LOOK_SECONDS, (time.monotonic() - started) / 20))
