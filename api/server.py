"""Runs an application until SIGTERM or SIGINT, and then lets the requests under way end."""

import asyncio
import signal
from collections.abc import Iterable

import uvloop
from aiohttp import web

from api.app import build_app
from api.health import DRAINING
from fanline.errors import ConfigurationError
from fanline.logging import configure_logging, get_logger
from fanline.settings import Settings
from fanline.tracing import configure_tracing, shut_down_tracing

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
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=settings.api_drain_seconds)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, reuse_port=False, backlog=1024).start()
        except OSError as error:
            raise ConfigurationError(f"The API cannot listen on {host}:{port}: {error.strerror}.") from error
        _log.info("the api listens", host=host, port=port, only=",".join(only) or "all")
        await stop.wait()
        _log.info("the api drains")
        app[DRAINING].set()
    finally:
        await runner.cleanup()
    _log.info("the api has ended")
