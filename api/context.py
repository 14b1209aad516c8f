"""What every handler needs: settings, stores, identifiers, and who may do what. One object an application."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from api.auth.keys import SigningKeys
from api.auth.passwords import Passwords
from api.auth.sessions import Sessions
from api.auth.tokens import Tokens
from api.database import Database
from api.documents import Documents
from api.entities import Entities
from api.events import Events
from api.limiter import RateLimiter
from api.read_your_writes import OwnWrites
from api.redis_client import RedisClient
from api.redis_connection import RedisAddress
from api.shared_facts import HomeCache
from api.stored_reads import StoredReads
from connectors.watermark import Watermark
from fanline.clock import Clock, SystemClock
from fanline.database import open_async_pool
from fanline.ids import TimeOrderedIds
from fanline.settings import Settings
from readmodels import incremental


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one running application."""

    settings: Settings
    public_url: str
    """Without a slash at its end."""
    database: Database
    redis: RedisClient
    own_writes: OwnWrites
    cache: HomeCache
    documents: Documents
    entities: Entities
    sessions: Sessions
    tokens: Tokens
    passwords: Passwords
    limiter: RateLimiter
    ids: TimeOrderedIds
    clock: Clock
    events: Events
    _kept: dict[str, tuple[float, Any]] = field(default_factory=dict)

    async def kept(self, name: str, seconds: float, load: Callable[[], Awaitable[Any]]) -> Any:
        """A value that costs much and may be some seconds old: loaded when the one kept under the name is too old."""
        until, value = self._kept.get(name, (0.0, None))
        if time.monotonic() >= until:
            value = await load()
            self._kept[name] = time.monotonic() + seconds, value
        return value

    @property
    def domain(self) -> str:
        """Host, and port if it is not the scheme's own: what follows the second @ of a full handle."""
        return urlsplit(self.public_url).netloc

    async def close(self) -> None:
        """Close the connections."""
        self.passwords.close()
        await self.redis.close()
        await self.database.pool.close()


CONTEXT = web.AppKey("context", Context)


def context_of(request: web.Request) -> Context:
    """The context of the application that serves a request."""
    context: Context = request.config_dict[CONTEXT]
    return context


def public_url_of(settings: Settings) -> str:
    """The address under which clients reach the API."""
    return (settings.public_url or f"http://{settings.host}:{settings.api_port}").rstrip("/")


def redis_url_of(settings: Settings) -> str:
    """The address of Redis; contains the password."""
    return settings.redis_url.get_secret_value() or f"redis://{settings.host}:{settings.redis_port}"


async def open_context(settings: Settings) -> Context:
    """Open the connections inside the running event loop; they are made when first needed."""
    clock = SystemClock()
    database = Database(await open_async_pool(settings, max_size=settings.api_database_connections))
    redis = RedisClient(
        RedisAddress.from_url(redis_url_of(settings)),
        cluster=settings.redis_cluster,
        timeout=settings.redis_timeout_seconds,
    )
    sessions = Sessions(database, redis)
    keys = SigningKeys(database, settings.access_token_days)
    public_url = public_url_of(settings)
    own_writes = OwnWrites(redis, database, lambda: Watermark(settings))
    incremental.use_dialect(settings.database_dialect)
    cache = HomeCache(settings.document_cache_mb << 20)
    documents = Documents(redis, cache, database, public_url)
    return Context(
        settings=settings,
        public_url=public_url,
        database=database,
        redis=redis,
        own_writes=own_writes,
        cache=cache,
        documents=documents,
        entities=Entities(StoredReads(documents, own_writes), public_url),
        sessions=sessions,
        tokens=Tokens(keys, sessions, public_url, settings.access_token_days),
        passwords=Passwords(),
        limiter=RateLimiter(redis, clock, settings.rate_limit_window_seconds),
        ids=TimeOrderedIds(clock),
        clock=clock,
        events=Events(settings),
    )
