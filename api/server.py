"""Runs an application until SIGTERM or SIGINT, and then lets the requests under way end."""

import asyncio
import signal
from collections.abc import Iterable

import uvloop
from aiohttp import web

from api.app import build_app
from api.drain import DRAIN
from fanline.errors import ConfigurationError
from fanline.logging import configure_logging, get_logger
from fanline.settings import Settings
from fanline.tracing import configure_tracing, shut_down_tracing

# What is left then are idle connections, and requests that have had their time.
SHUTDOWN_SECONDS = 1.0

_log = get_logger(__name__)


def serve(settings: Settings, only: Iterable[str] = (), host: str | None = None, port: int | None = None) -> None:
    """Serve until a signal; raises `ConfigurationError` when the address is taken."""
    configure_logging("api")
    configure_tracing("api")
    changes = {name: value for name, value in (("host", host), ("api_port", port)) if value is not None}
    try:
        uvloop.run(_serve(settings.model_copy(update=changes), tuple(only)))
    finally:
        shut_down_tracing()


async def _serve(settings: Settings, only: tuple[str, ...]) -> None:
    host, port = settings.host, settings.api_port
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = build_app(settings, only)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1_024)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(f"The API cannot listen on {host}:{port}: {error.strerror}.") from error
        _log.info("the api listens", host=host, port=port, only=",".join(only) or "all")
        await stop.wait()
        _log.info("the api drains")
        await site.stop()
        if not await app[DRAIN].finish(settings.api_drain_seconds):
            _log.warning("requests were not answered in time", seconds=settings.api_drain_seconds)
    finally:
        await runner.cleanup()
    _log.info("the api has ended")
