"""One asyncio connection to Redis or Valkey: batches of ready RESP bytes out, replies in order back.

No object is made a command. Batches of concurrent requests that meet in one turn of the event loop leave in one
write, and the replies are parsed in C (hiredis). A connection whose oldest batch waits longer than the timeout is
closed, which fails everything behind it too: order is all that tells one reply from another.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from fanline.errors import ConfigurationError, DependencyUnavailable, FanlineError
from fanline.resp import pack

Reply = Any
"""What hiredis makes of a reply: bytes, int, None, list, or a `RedisReplyError` (not raised)."""

_MORE = object()


class RedisUnavailable(DependencyUnavailable):
    """Redis cannot be reached, or the connection broke before the replies came."""


class RedisTimeout(RedisUnavailable):
    """Redis did not reply in time."""


class RedisReplyError(FanlineError):
    """Redis answered a command with an error; the message is Redis' own."""


@dataclass(frozen=True)
class RedisAddress:
    """Where a node listens and how to log in there."""

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    tls: bool = False

    @classmethod
    def from_url(cls, url: str) -> "RedisAddress":
        """Parse `redis[s]://[user[:password]@]host[:port][/database]`; raises `ConfigurationError`."""
        parts = urlsplit(url)
        try:
            if parts.scheme not in ("redis", "rediss") or not parts.hostname:
                raise ValueError("redis://host:port or rediss://host:port is expected")
            return cls(
                parts.hostname,
                parts.port or 6379,
                unquote(parts.username or ""),
                unquote(parts.password or ""),
                int(parts.path.strip("/") or 0),
                parts.scheme == "rediss",
            )
        except ValueError as error:
            raise ConfigurationError(f"The Redis URL cannot be used: {error}.") from error

    def at(self, host: str, port: int) -> "RedisAddress":
        """The same login at another node of the cluster."""
        return RedisAddress(host, port, self.username, self.password, self.database, self.tls)

    def greeting(self) -> list[bytes]:
        """The commands that open a connection: log in and select the database."""
        commands = []
        if self.password:
            commands.append(pack(b"AUTH", (self.username or "default").encode(), self.password.encode()))
        if self.database:
            commands.append(pack(b"SELECT", b"%d" % self.database))
        return commands

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _Batch:
    __slots__ = ("count", "future", "replies", "sent_at")

    def __init__(self, count: int, future: "asyncio.Future[list[Reply]]", sent_at: float) -> None:
        self.count = count
        self.future = future
        self.replies: list[Reply] = []
        self.sent_at = sent_at


class RedisConnection(asyncio.Protocol):
    """A connection that is open from `open_connection` until `closed` is set."""

    def __init__(
        self,
        address: RedisAddress,
        timeout: float,
        on_push: Callable[[list[Reply]], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=RedisReplyError, notEnoughData=_MORE)
        self._waiting: deque[_Batch] = deque()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._failure: RedisUnavailable | None = None
        self.closed = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether batches can be sent."""
        return self._failure is None

    def send(self, payload: bytes, replies: int) -> "asyncio.Future[list[Reply]]":
        """Send ready RESP bytes of `replies` commands; the future holds their replies or `RedisUnavailable`."""
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self._failure is not None:
            future.set_exception(self._failure)
            return future
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(payload)
        now = self._loop.time()
        self._waiting.append(_Batch(replies, future, now))
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(now + self._timeout, self._watch)
        return future

    def close(self) -> None:
        """Close the connection; what still waits fails with `RedisUnavailable`."""
        self._fail(RedisUnavailable(f"The connection to Redis at {self._address} is closed."))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._fail(RedisUnavailable(f"Redis at {self._address} closed the connection."))

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: match replies to batches, first come first served."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _MORE:
                if type(reply) is hiredis.PushNotification:
                    if self._on_push is not None:
                        self._on_push(reply)
                    continue
                batch = waiting[0]
                batch.replies.append(reply)
                if len(batch.replies) == batch.count:
                    waiting.popleft()
                    if not batch.future.done():
                        batch.future.set_result(batch.replies)
        except (hiredis.ProtocolError, IndexError):
            self._fail(RedisUnavailable(f"What listens at {self._address} does not speak the Redis protocol."))

    def _flush(self) -> None:
        if self._transport is not None and self._failure is None:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _watch(self) -> None:
        self._watchdog = None
        if not self._waiting or self._failure is not None:
            return
        deadline = self._waiting[0].sent_at + self._timeout
        if self._loop.time() >= deadline:
            self._fail(RedisTimeout(f"Redis at {self._address} did not reply within {self._timeout:g} s."))
        else:
            self._watchdog = self._loop.call_at(deadline, self._watch)

    def _fail(self, failure: RedisUnavailable) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(failure)
                future.exception()  # a request that was cancelled meanwhile does not collect it
        self.closed.set()
        if self._on_lost is not None:
            self._on_lost()


async def open_connection(
    address: RedisAddress,
    timeout: float,  # noqa: ASYNC109 - of each reply too
    greeting: list[bytes] | None = None,
    on_push: Callable[[list[Reply]], None] | None = None,
    on_lost: Callable[[], None] | None = None,
) -> RedisConnection:
    """Connect and log in, `greeting` being further first commands.

    Raises `RedisUnavailable` within `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            _, connection = await loop.create_connection(
                lambda: RedisConnection(address, timeout, on_push, on_lost),
                address.host,
                address.port,
                ssl=True if address.tls else None,
            )
            commands = address.greeting() + (greeting or [])
            try:
                replies = await connection.send(b"".join(commands), len(commands)) if commands else []
            except BaseException:
                connection.close()
                raise
    except TimeoutError as error:
        raise RedisTimeout(f"Redis at {address} did not answer within {timeout:g} s.") from error
    except OSError as error:
        raise RedisUnavailable(f"Redis at {address} cannot be reached: {error}.") from error
    for reply in replies:
        if isinstance(reply, RedisReplyError):
            connection.close()
            raise RedisUnavailable(f"Redis at {address} refuses the connection: {reply}.")
    return connection
