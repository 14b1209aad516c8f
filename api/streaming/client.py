"""One connected client: what it listens to, and the bounded queue between the log and its socket."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import msgspec

from api.auth.principal import Principal
from api.streaming.position import Position
from api.streaming.streams import Stream, shows_notifications

UPDATE = "update"
EDIT = "status.update"
DELETE = "delete"
NOTIFICATION = "notification"
FILTERS_CHANGED = "filters_changed"


class Ended(StrEnum):
    """Why a stream ends; clients are told the text."""

    SLOW = "the client reads too slowly; reconnect with the last event id"
    REVOKED = "the access token is no longer good"
    DRAINING = "the server restarts; reconnect with the last event id"
    LOST = "the server has lost its place; reconnect with the last event id"
    GONE = "the client has gone"


@dataclass(slots=True)
class Happening:
    """An event with its payload, encoded once however many are told. `id` is the post's or notification's.

    `stored_ms` says of a notification when it was stored.
    """

    event: str
    id: int
    payload: bytes
    log_ms: int = 0
    stored_ms: int = 0
    _text: bytes | None = field(default=None, init=False)

    @property
    def text(self) -> bytes:
        """The payload as a JSON string, for WebSocket frames."""
        if self._text is None:
            self._text = msgspec.json.encode(self.payload.decode())
        return self._text


@dataclass(slots=True, eq=False)
class Subscription:
    """One stream of one client. Until `live`, what happens waits in `backlog` for what was missed to be sent first."""

    client: "Client"
    stream: Stream
    position: Position
    notifications: bool
    live: bool = True
    backlog: list[Happening] = field(default_factory=list)
    noted: set[int] = field(default_factory=set)
    """Notifications that the client can have read before it came, and that the log may not have told yet."""
    task: asyncio.Task[None] | None = None

    def offer(self, happening: Happening) -> None:
        """Tell the client; one that does not keep up is ended."""
        if self.live:
            self.client.put(self, happening)
        elif len(self.backlog) < self.client.queue_size:
            self.backlog.append(happening)
        else:
            self.client.end(Ended.SLOW)

    def go_live(self, sent: Iterable[int] = ()) -> None:
        """Pass on what has waited, but for the updates and notifications that were `sent` meanwhile."""
        known = frozenset(sent)
        waiting, self.backlog, self.live = self.backlog, [], True
        for happening in waiting:
            if happening.event not in (UPDATE, NOTIFICATION) or happening.id not in known:
                self.client.put(self, happening)

    def is_new(self, happening: Happening) -> bool:
        """Note that the event is being sent; False if the client has it already."""
        position = self.position
        if happening.event == UPDATE:
            if position.posts.has(happening.id):
                return False
            position.posts.add(happening.id)
        elif happening.event == NOTIFICATION:
            if position.notifications.has(happening.id) and happening.id not in self.noted:
                return False
            self.noted.discard(happening.id)
            position.notifications.add(happening.id, happening.stored_ms)
        position.log_ms = max(position.log_ms, happening.log_ms)
        return True


Item = tuple[Subscription, Happening]


class Client:
    """A connection. `put` is called by whoever reads the log, `take` by the one task that writes to the socket."""

    def __init__(self, principal: Principal, queue_size: int, transport: str) -> None:
        self.principal = principal
        self.transport = transport
        self.queue_size = queue_size
        self.subscriptions: dict[Stream, Subscription] = {}
        self.ended: Ended | None = None
        self.checked_at = 0.0
        """When the token was last known to be good, by the monotonic clock."""
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self.over = asyncio.Event()
        """Set when the stream has ended, whatever its socket does."""

    @property
    def viewer(self) -> UUID | None:
        """The person who looks."""
        return self.principal.user_id

    def subscription(self, stream: Stream, position: Position) -> Subscription:
        """A new subscription to a stream that the client does not have yet."""
        added = Subscription(self, stream, position, shows_notifications(stream, self.principal))
        self.subscriptions[stream] = added
        return added

    def put(self, subscription: Subscription, happening: Happening) -> None:
        """Queue an event; ends the client when its queue is full."""
        if len(self._queue) >= self.queue_size:
            self.end(Ended.SLOW)
            return
        self._queue.append((subscription, happening))
        self._wake.set()

    async def put_patiently(self, subscription: Subscription, happening: Happening) -> None:
        """Queue an event of the past, waiting for room."""
        while len(self._queue) >= self.queue_size // 2 and self.ended is None:
            self._room.clear()
            await self._room.wait()
        self.put(subscription, happening)

    async def take(self, seconds: float) -> list[Item] | None:
        """What has been queued, an empty list when nothing came for so long, None when the stream has ended."""
        if not self._queue and self.ended is None:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return []
        if self.ended is not None:
            return None
        items = list(self._queue)
        self._queue.clear()
        self._wake.clear()
        self._room.set()
        return items

    def end(self, why: Ended) -> None:
        """End the stream; the first reason stays."""
        if self.ended is None:
            self.ended = why
            self._queue.clear()
            self.over.set()
            self._wake.set()
            self._room.set()
