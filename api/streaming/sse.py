"""Server-sent events: one stream a connection."""

import asyncio
from collections.abc import Iterable

from aiohttp import web

from api.streaming.client import Client, Ended, Item
from api.streaming.position import Position
from api.streaming.service import Streams
from api.streaming.streams import Stream
from fanline import metrics

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "private, no-store",
    "X-Accel-Buffering": "no",
    "Access-Control-Allow-Origin": "*",
}
# The last words of a stream that ends; a client that reads nothing cannot hear them.
GOODBYE_SECONDS = 1.0


async def serve(
    request: web.Request, streams: Streams, client: Client, stream: Stream, position: Position | None
) -> web.StreamResponse:
    """Answer with the stream until it ends. Before its first byte, errors are ordinary answers."""
    try:
        await streams.subscribe(client, stream, position)
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
    except BaseException:
        streams.dismiss(client)
        raise
    try:
        writing = asyncio.create_task(_write(response, client, streams.context.settings.stream_heartbeat_seconds))
        over = asyncio.create_task(client.over.wait())
        await asyncio.wait([writing, over], return_when=asyncio.FIRST_COMPLETED)
        for task in (writing, over):
            task.cancel()
        await asyncio.gather(writing, over, return_exceptions=True)
        if client.ended not in (None, Ended.GONE):
            await _say_goodbye(request, response, client)
    finally:
        streams.dismiss(client)
    return response


async def _write(response: web.StreamResponse, client: Client, heartbeat_seconds: float) -> None:
    try:
        await response.write(b":)\n")
        while (items := await client.take(heartbeat_seconds)) is not None:
            await response.write(b"".join(_frames(items)) or b":thump\n")
    except ConnectionError:
        client.end(Ended.GONE)


def _frames(items: Iterable[Item]) -> Iterable[bytes]:
    for subscription, happening in items:
        if subscription.is_new(happening):
            metrics.STREAM_EVENTS.labels(subscription.stream.name, happening.event).inc()
            yield b"event: %s\nid: %s\ndata: %s\n\n" % (
                happening.event.encode(),
                subscription.position.text().encode(),
                happening.payload,
            )


async def _say_goodbye(request: web.Request, response: web.StreamResponse, client: Client) -> None:
    assert client.ended is not None
    try:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await response.write(b": %s\n" % client.ended.value.encode())
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()
