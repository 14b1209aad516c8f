"""WebSocket: any number of streams on one connection, taken and left by messages."""

import asyncio
from collections.abc import Iterable

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from api.errors import ApiError
from api.streaming.client import Client, Ended, Item
from api.streaming.position import Position, parse_position
from api.streaming.service import Streams
from api.streaming.streams import Stream, error_frame, parse_stream
from fanline import metrics
from fanline.errors import DependencyUnavailable

MAX_MESSAGE_BYTES = 8_192
CLOSE_SECONDS = 2.0
_CODES = {
    Ended.SLOW: WSCloseCode.TRY_AGAIN_LATER,
    Ended.REVOKED: WSCloseCode.POLICY_VIOLATION,
    Ended.DRAINING: WSCloseCode.SERVICE_RESTART,
    Ended.LOST: WSCloseCode.TRY_AGAIN_LATER,
    Ended.GONE: WSCloseCode.OK,
}


class Wish(msgspec.Struct):
    """A message of the client."""

    type: str
    stream: str = ""
    tag: str = ""
    last_event_id: str = ""
    since_id: str = ""


async def serve(
    request: web.Request,
    streams: Streams,
    client: Client,
    stream: Stream | None,
    position: Position | None,
    protocol: str | None,
) -> web.WebSocketResponse:
    """Answer with the connection until it ends; `protocol` is the token that the handshake must echo."""
    settings = streams.context.settings
    socket = web.WebSocketResponse(
        protocols=(protocol,) if protocol else (),
        # Pings find a peer that is gone; deflate would cost each connection some hundred kilobytes.
        heartbeat=settings.stream_heartbeat_seconds,
        compress=False,
        max_msg_size=MAX_MESSAGE_BYTES,
    )
    try:
        if stream is not None:
            await streams.subscribe(client, stream, position)
        await socket.prepare(request)
    except BaseException:
        streams.dismiss(client)
        raise
    try:
        tasks = [
            asyncio.create_task(_write(socket, client)),
            asyncio.create_task(_read(socket, streams, client)),
            asyncio.create_task(client.over.wait()),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _close(request, socket, client)
    finally:
        streams.dismiss(client)
    return socket


async def _write(socket: web.WebSocketResponse, client: Client) -> None:
    try:
        while (items := await client.take(3_600.0)) is not None:
            for frame in _frames(items):
                await socket.send_frame(frame, WSMsgType.TEXT)
    except ConnectionError:
        client.end(Ended.GONE)


def _frames(items: Iterable[Item]) -> Iterable[bytes]:
    for subscription, happening in items:
        if subscription.is_new(happening):
            metrics.STREAM_EVENTS.labels(subscription.stream.name, happening.event).inc()
            yield b'{"stream":%s,"event":"%s","payload":%s,"id":"%s"}' % (
                subscription.stream.label,
                happening.event.encode(),
                happening.text,
                subscription.position.text().encode(),
            )


async def _read(socket: web.WebSocketResponse, streams: Streams, client: Client) -> None:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            continue
        try:
            await _fulfil(streams, client, message.data)
        except ApiError as error:
            await socket.send_frame(error_frame(error), WSMsgType.TEXT)
        except DependencyUnavailable:
            unavailable = ApiError(503, "The service is not available at the moment")
            await socket.send_frame(error_frame(unavailable), WSMsgType.TEXT)
    client.end(Ended.GONE)


async def _fulfil(streams: Streams, client: Client, text: str) -> None:
    try:
        wish = msgspec.json.decode(text, type=Wish)
    except msgspec.MsgspecError as error:
        raise ApiError(400, "The message is no JSON object with a type and a stream") from error
    match wish.type:
        case "subscribe":
            since = wish.last_event_id or wish.since_id
            stream = parse_stream(wish.stream, wish.tag)
            await streams.subscribe(client, stream, parse_position(since) if since else None)
        case "unsubscribe":
            streams.unsubscribe(client, parse_stream(wish.stream, wish.tag))
        case _:
            raise ApiError(400, "The type must be subscribe or unsubscribe")


async def _close(request: web.Request, socket: web.WebSocketResponse, client: Client) -> None:
    ended = client.ended or Ended.GONE
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close(code=_CODES[ended], message=ended.value.encode())
    except (TimeoutError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()
