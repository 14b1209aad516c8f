"""The pipeline page: how data flows from the database to the reads, live, for whoever runs this server.

The page itself tells nothing and is served to everybody; the figures go to moderators and admins, or to everybody who
reaches the server directly when FANLINE_PIPELINE_PUBLIC says so.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from api.auth.principal import principal_of
from api.auth.roles import require_moderator
from api.context import CONTEXT, Context, context_of
from api.drain import DRAIN
from api.errors import forbidden
from api.responses import json_response
from connectors.pipeline import Pipeline
from fanline import metrics
from fanline.errors import DependencyUnavailable
from fanline.resp import pack

routes = web.RouteTableDef()

# A look costs some tens of milliseconds of this process, however many people watch.
LOOK_SECONDS = 1.0
# After this long without anybody who watches, the connections are closed.
IDLE_SECONDS = 30.0
MOST_WATCHERS = 20

PAGE = {"/pipeline": ("index.html", "text/html"), "/pipeline/page.js": ("page.js", "text/javascript"),
        "/pipeline/page.css": ("page.css", "text/css")}  # fmt: skip
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class PipelineWatch:
    """The newest look at the pipeline, taken only while somebody wants it, in a thread, once for all who do."""

    def __init__(self, context: Context) -> None:
        self.watchers = 0
        self._context = context
        self._pipeline: Pipeline | None = None
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        self._facts: dict[str, Any] = {}
        self._requests: tuple[float, float] | None = None

    async def facts(self) -> dict[str, Any]:
        """How the pipeline is, at most `LOOK_SECONDS` old."""
        async with self._looking:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                facts = await asyncio.to_thread(self._look)
                facts["stores"] = [await self._redis(), *facts["stores"]]
                facts["api"] = self._own()
                facts["observed_at"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
                self._facts, self._looked = facts, time.monotonic()
            return self._facts

    async def close_when_idle(self) -> None:
        """Runs as long as the application."""
        while True:
            await asyncio.sleep(IDLE_SECONDS)
            async with self._looking:
                if self._pipeline is not None and time.monotonic() - self._looked > IDLE_SECONDS:
                    await self._close()

    async def close(self) -> None:
        """Close the connections."""
        async with self._looking:
            await self._close()

    async def _close(self) -> None:
        if self._pipeline is not None:
            pipeline, self._pipeline = self._pipeline, None
            await asyncio.to_thread(pipeline.close)

    def _look(self) -> dict[str, Any]:
        if self._pipeline is None:
            self._pipeline = Pipeline(self._context.settings)
        return self._pipeline.look()

    async def _redis(self) -> dict[str, Any]:
        """Keys and memory of all Redis nodes."""
        keys = size = 0
        try:
            for reply in await self._context.redis.on_every_master(pack(b"INFO", b"memory", b"keyspace")):
                for line in bytes(reply).decode().splitlines():
                    name, _, value = line.partition(":")
                    if name == "used_memory":
                        size += int(value)
                    elif name.startswith("db") and value.startswith("keys="):
                        keys += int(value[5:].split(",")[0])
        except DependencyUnavailable:
            return {"name": "Redis", "state": "down", "holds": None, "unit": "keys", "bytes": None}
        return {"name": "Redis", "state": "ok", "holds": keys, "unit": "keys", "bytes": size}

    def _own(self) -> dict[str, Any]:
        """Requests that this process has answered."""
        served = sum(
            sample.value
            for family in metrics.API_SECONDS.collect()
            for sample in family.samples
            if sample.name.endswith("_count")
        )
        now = time.monotonic()
        then, before = self._requests or (now, served)
        self._requests = now, served
        rate = round((served - before) / (now - then), 1) if now > then else None
        return {"state": "ok", "requests_per_second": rate, "watchers": self.watchers}


WATCH = web.AppKey("pipeline", PipelineWatch)


async def serve_pipeline(app: web.Application) -> AsyncIterator[None]:
    """Keeps the application's watch."""
    app[WATCH] = watch = PipelineWatch(app[CONTEXT])
    closing = asyncio.create_task(watch.close_when_idle())
    yield
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await watch.close()


@routes.get("/pipeline")
@routes.get("/pipeline/page.js")
@routes.get("/pipeline/page.css")
async def page(request: web.Request) -> web.Response:
    """The page and what it is made of."""
    name, kind = PAGE[request.path.rstrip("/")]
    text = files("api").joinpath("pipeline_page", name).read_text("utf-8")
    return web.Response(text=text, content_type=kind, charset="utf-8", headers=SECURITY)


@routes.get("/api/v1/pipeline")
async def pipeline(request: web.Request) -> web.Response:
    """The stages and their figures, once."""
    await may_look(request)
    return json_response(await request.app[WATCH].facts(), headers={"Cache-Control": "private, no-store"})


@routes.get("/api/v1/pipeline/stream")
async def stream(request: web.Request) -> web.StreamResponse:
    """The same each second, as server-sent events `pipeline`."""
    await may_look(request)
    watch, drain = request.app[WATCH], request.app[DRAIN]
    if watch.watchers >= MOST_WATCHERS:
        raise forbidden("Too many people watch the pipeline")
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "private, no-store", "X-Accel-Buffering": "no"}
    )
    watch.watchers += 1
    try:
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not drain.draining:
                facts = await watch.facts()
                await response.write(b"event: pipeline\ndata: %s\n\n" % msgspec.json.encode(facts))
                await asyncio.sleep(LOOK_SECONDS)
            await response.write_eof()
    finally:
        watch.watchers -= 1
    return response


async def may_look(request: web.Request) -> None:
    """Refuse who may not see the figures; raises `ApiError` 401 or 403."""
    if context_of(request).settings.pipeline_public and principal_of(request) is None:
        # Another site's page that a browser on this machine has open is not somebody who reaches the server directly,
        # nor is one whose name leads here.
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site not in ("none", "same-origin") or not _is_ours(context_of(request), request.host):
            raise forbidden("Other sites may not look at the pipeline")
        return
    await require_moderator(request, "read")


def _is_ours(context: Context, host: str) -> bool:
    return host == context.domain or urlsplit(f"//{host}").hostname in ("127.0.0.1", "localhost", "::1")
