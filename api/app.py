"""Puts an application together: the boundaries that it serves, its context, and what runs beside the requests."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from importlib import import_module
from typing import Final, cast

from aiohttp import web

from api.context import CONTEXT, open_context
from api.drain import DRAIN, Drain
from api.edge import edge
from api.timelines import serve_home
from fanline.errors import ConfigurationError
from fanline.settings import Settings

MAX_BODY_BYTES = 1 << 20
# Half the second within which a revoked token has to stop everywhere.
EXCHANGE_SECONDS = 0.5

BOUNDARIES: Final = {
    "auth": ("api.auth.applications", "api.auth.oauth", "api.auth.authorize"),
    "accounts": ("api.signup", "api.accounts"),
    "graph": ("api.relationships", "api.graph", "api.follow_requests"),
    "statuses": ("api.status_writes", "api.status_edits", "api.statuses", "api.reposts"),
    "engagement": ("api.engagement", "api.engagement_lists", "api.polls", "api.filters", "api.filters_v1"),
    "timelines": ("api.timelines", "api.public_timelines", "api.markers"),
    "notifications": ("api.notifications", "api.grouped_notifications", "api.notification_policy"),
    "moderation": ("api.moderation",),
    "streaming": ("api.streaming.routes",),
    "channels": ("api.push", "api.email"),
    "aggregates": ("api.aggregates",),
    "search": ("api.search", "api.tags", "api.trends"),
    "instance": ("api.instance", "api.pictures"),
    "pipeline": ("api.pipeline",),
}
"""The boundaries, each of which can be served by processes of its own, and the modules of their routes."""

ALWAYS = ("api.health",)


def build_app(settings: Settings, only: Iterable[str] = ()) -> web.Application:
    """An application that serves the named boundaries, or all; raises `ConfigurationError` for an unknown name."""
    served = list(only) or list(BOUNDARIES)
    unknown = [name for name in served if name not in BOUNDARIES]
    if unknown:
        raise ConfigurationError(f"There is no boundary {unknown[0]!r}; there are {', '.join(BOUNDARIES)}.")

    async def serve_context(app: web.Application) -> AsyncIterator[None]:
        app[CONTEXT] = context = await open_context(settings)
        exchange = asyncio.create_task(_exchange(app))
        yield
        exchange.cancel()
        await asyncio.gather(exchange, return_exceptions=True)
        await context.limiter.exchange()
        await context.close()

    app = web.Application(middlewares=[edge], client_max_size=MAX_BODY_BYTES)
    app[DRAIN] = Drain()
    app.cleanup_ctx.append(serve_context)
    modules = [module for name, modules in BOUNDARIES.items() if name in served for module in modules]
    routes: list[web.RouteDef] = [
        route
        for module in (*modules, *ALWAYS)
        for route in cast(web.RouteTableDef, import_module(module).routes)
        if isinstance(route, web.RouteDef)
    ]
    # Literal paths first: /accounts/lookup must not be taken for an account's id.
    routes.sort(key=lambda route: "{" in route.path)
    app.add_routes(routes)
    # Mastodon takes a slash at the end of an address, and some clients write one.
    app.add_routes([web.route(route.method, f"{route.path}/", route.handler) for route in routes])
    if "notifications" in served:
        app.cleanup_ctx.append(import_module("api.notification_reads").serve_notifications)
    app.cleanup_ctx.append(serve_home)
    if "pipeline" in served:
        app.cleanup_ctx.append(import_module("api.pipeline").serve_pipeline)
    if "streaming" in served:
        streaming = import_module("api.streaming.service")
        app.cleanup_ctx.append(streaming.serve_streams)
        app.on_shutdown.append(streaming.end_streams)
    if {"aggregates", "instance"} & set(served):
        app.cleanup_ctx.append(import_module("api.series").serve_series)
    if "search" in served:
        app.cleanup_ctx.append(import_module("api.search").serve_search)
    return app


async def _exchange(app: web.Application) -> None:
    """Twice a second: hear which tokens were revoked elsewhere, and share what was counted."""
    context = app[CONTEXT]
    while True:
        await context.sessions.listen(context.tokens.forget)
        await context.limiter.exchange()
        await asyncio.sleep(EXCHANGE_SECONDS)
