"""Whether this process lives, whether it can serve, and its metrics."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.context import Context, context_of
from api.drain import DRAIN
from api.responses import json_response
from fanline.errors import FanlineError
from readmodels.effects import command

routes = web.RouteTableDef()

# A probe that takes longer is as good as none: load balancers ask every second or two.
CHECK_SECONDS = 1.0


@routes.get("/health/live")
async def live(_request: web.Request) -> web.Response:
    """The event loop turns."""
    return json_response({"status": "ok"})


@routes.get("/health/ready")
async def ready(request: web.Request) -> web.Response:
    """Whether requests should come here: 503 without the database, or while the process drains.

    Redis and the registry are reported, and needed by neither reads (the database answers) nor, once the schemas' ids
    are known, writes: without them the service is `degraded`.
    """
    context = context_of(request)
    database, redis, registry = await asyncio.gather(
        _check(_database(context)), _check(_redis(context)), _check(_registry(context))
    )
    draining = request.config_dict[DRAIN].draining
    serving = database["status"] == "ok" and not draining
    whole = serving and redis["status"] == "ok" and registry["status"] == "ok"
    state = "draining" if draining else "ok" if whole else "degraded" if serving else "unavailable"
    return json_response(
        {"status": state, "dependencies": {"database": database, "redis": redis, "registry": registry}},
        200 if serving else 503,
    )


@routes.get("/metrics")
async def prometheus(_request: web.Request) -> web.Response:
    """Metrics in the text format of Prometheus."""
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _check(probe: Callable[[], Awaitable[object]]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await probe()
    except TimeoutError:
        return {"status": "down", "reason": f"no answer within {CHECK_SECONDS:g} s"}
    except FanlineError as error:
        return {"status": "down", "reason": str(error)}
    return {"status": "ok", "ms": round((time.perf_counter() - started) * 1_000, 2)}


def _database(context: Context) -> Callable[[], Awaitable[object]]:
    return lambda: context.database.row("SELECT 1 AS one")


def _redis(context: Context) -> Callable[[], Awaitable[object]]:
    return lambda: context.redis.execute([command(b"session:{health}", b"EXISTS")])


def _registry(context: Context) -> Callable[[], Awaitable[object]]:
    return context.events.encoder
