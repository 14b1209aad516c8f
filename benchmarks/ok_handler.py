"""The ceiling of an aiohttp API: a handler that answers "ok" and does nothing else."""

import asyncio

import uvloop
from aiohttp import web


def serve(port: int) -> None:
    """Serve at 127.0.0.1 until the process is ended."""
    uvloop.run(_serve(port))


async def _serve(port: int) -> None:
    async def ok(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/ok", ok)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()
