"""`GET /api/v1/timelines/home`, and what has to run in the process for it."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from api.auth.principal import require_user
from api.context import CONTEXT
from api.database import Database
from api.documents import Documents
from api.generations import follow_generations
from api.home import HomeTimelines
from api.paging import link_header, read_page
from api.read_your_writes import OwnWrites
from api.redis_client import RedisClient
from api.redis_tracking import RedisTracking
from api.responses import json_bytes
from api.shared_facts import PREFIXES, HomeCache, SharedFactsReader
from fanline.clock import Clock
from fanline.settings import Settings
from readmodels import affected, engagement
from readmodels.home_rules import Page

routes = web.RouteTableDef()

HOME = web.AppKey("home timelines", HomeTimelines)
# The first page as clients ask for it; its Link header needs no parsing.
_PLAIN_QUERIES = frozenset(["", *(f"limit={limit}" for limit in range(1, 41))])
TRACKED = (*(kind.prefix + b":" for kind in (*affected.KINDS, *engagement.KINDS)), *PREFIXES)
"""The key prefixes whose changes Redis tells this process."""


@routes.get("/api/v1/timelines/home")
async def home(request: web.Request) -> web.Response:
    """The newest statuses of the people whom the caller follows, with `Link` paging."""
    viewer = require_user(request, "read:statuses")
    wanted = read_page(request)
    page = Page(wanted.limit, wanted.max_id or None, wanted.since_id, wanted.min_id)
    timelines = request.app[HOME]
    shown = await timelines.read(viewer, page)
    if shown.newest is None:
        return json_bytes(shown.body)
    if request.query_string in _PLAIN_QUERIES:
        base = f"{timelines.public_url}/api/v1/timelines/home?"
        kept = base + request.query_string + "&" if request.query_string else base
        link = f'<{kept}max_id={shown.oldest}>; rel="next", <{kept}min_id={shown.newest}>; rel="prev"'
        return json_bytes(shown.body, headers={"Link": link})
    return json_bytes(shown.body, headers=link_header(request, timelines.public_url, shown.newest, shown.oldest))


def open_home(
    redis: RedisClient,
    cache: HomeCache,
    documents: Documents,
    database: Database,
    own_writes: OwnWrites,
    settings: Settings,
    public_url: str,
    clock: Clock,
) -> tuple[HomeTimelines, RedisTracking]:
    """Home timelines, and the tracking that keeps the cache's copies of Redis exact while it runs."""
    facts = SharedFactsReader(redis, cache)
    timelines = HomeTimelines(redis, documents, facts, database, own_writes, settings, public_url, clock)
    return timelines, RedisTracking(redis, TRACKED, cache, timeout=settings.redis_timeout_seconds)


async def serve_home(app: web.Application) -> AsyncIterator[None]:
    """For `cleanup_ctx`, after the context is there: home timelines, and what keeps documents and marks up to date."""
    context = app[CONTEXT]
    timelines, tracking = open_home(
        context.redis,
        context.cache,
        context.documents,
        context.database,
        context.own_writes,
        context.settings,
        context.public_url,
        context.clock,
    )
    app[HOME] = timelines

    def switched() -> None:
        context.cache.flush()
        timelines.forget_keys()

    running = [
        asyncio.create_task(tracking.run()),
        asyncio.create_task(context.own_writes.run()),
        asyncio.create_task(follow_generations(context.redis, switched)),
    ]
    yield
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await timelines.close()
