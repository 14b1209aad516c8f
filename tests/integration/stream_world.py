"""Clients of the streaming API: server-sent events and WebSockets, read as a program reads them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.integration.api_world import Api, Person

SECONDS = 20.0


@dataclass(frozen=True)
class Told:
    """One event of a stream."""

    event: str
    id: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class Listener:
    """What a connection has been told so far."""

    told: list[Told] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    ended: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, told: Told) -> None:
        self.told.append(told)
        self.changed.set()

    def note(self) -> None:
        self.changed.set()

    def of(self, event: str) -> list[Told]:
        return [each for each in self.told if each.event == event]

    def ids(self) -> list[str]:
        """The ids of the statuses that were told, in order."""
        return [each.json["id"] for each in self.of("update")]

    async def until(self, done: Callable[["Listener"], bool], seconds: float = SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not done(self):
                self.changed.clear()
                await self.changed.wait()


async def _listen(response: aiohttp.ClientResponse, listener: Listener) -> None:
    fields: dict[str, str] = {}
    try:
        async for raw in response.content:
            line = raw.decode().rstrip("\n")
            if line.startswith(":"):
                listener.comments.append(line[1:].strip())
                listener.note()
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                listener.add(Told(fields["event"], fields["id"], fields["data"]))
                fields = {}
    except aiohttp.ClientError:
        pass
    listener.ended = True
    listener.note()


@asynccontextmanager
async def events(
    api: Api, path: str, who: Person | None, last_event_id: str = "", **parameters: str
) -> AsyncIterator[Listener]:
    """An open stream of server-sent events; the connection is cut at the end of the block."""
    headers = {"Authorization": f"Bearer {who.token}"} if who is not None else {}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    url = api.url(f"/api/v1/streaming/{path}")
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, params=parameters, timeout=aiohttp.ClientTimeout()) as response,
    ):
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        listener = Listener()
        task = asyncio.create_task(_listen(response, listener))
        try:
            await listener.until(lambda each: bool(each.comments))
            yield listener
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            response.close()


class Socket:
    """A WebSocket and what came through it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []

    async def send(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def until(self, done: Callable[[list[dict[str, Any]]], bool], seconds: float = SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not done(self.frames):
                message = await self.socket.receive()
                assert message.type is aiohttp.WSMsgType.TEXT, (message, self.frames)
                self.frames.append(json.loads(message.data))

    def of(self, stream: str, event: str = "update") -> list[Any]:
        """Payloads, parsed, of one event of one stream."""
        return [
            json.loads(frame["payload"])
            for frame in self.frames
            if frame.get("event") == event and frame["stream"][0] == stream
        ]


@asynccontextmanager
async def websocket(api: Api, **options: Any) -> AsyncIterator[Socket]:
    """An open WebSocket."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(api.url("/api/v1/streaming"), **options) as socket,
    ):
        yield Socket(socket)
