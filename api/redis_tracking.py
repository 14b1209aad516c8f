"""Server-assisted client-side caching: Redis tells this process which keys have changed.

A connection of its own to each master speaks RESP3 and turns on `CLIENT TRACKING ON BCAST PREFIX ...`, so that Redis
pushes every changed, expired or evicted key with one of the prefixes, and null when the database is flushed. What a
process keeps is only worth keeping while all these connections live: as soon as one is lost the keeper is told to
drop everything and to keep nothing until all are back.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from api.redis_client import RedisAddress, RedisClient, RedisUnavailable, Reply
from api.redis_connection import RedisConnection, open_connection
from fanline.logging import get_logger
from fanline.resp import pack

_log = get_logger(__name__)

# A silent break of a connection (no FIN) is noticed after at most this long, plus the client's timeout.
PING_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0


class Keeper(Protocol):
    """Keeps copies of what is in Redis."""

    def start(self) -> None:
        """Changes are being told from now on: copies may be kept."""

    def drop(self, key: bytes) -> None:
        """The key has changed."""

    def stop(self) -> None:
        """Changes are no longer told: every copy is to be dropped, and none kept until `start`."""

    def flush(self) -> None:
        """Everything has changed; copies may still be kept."""


class RedisTracking:
    """Keeps a `Keeper` told about the keys under some prefixes, from `run` until it is cancelled."""

    def __init__(self, client: RedisClient, prefixes: Sequence[bytes], keeper: Keeper, *, timeout: float = 1.0) -> None:
        self._client = client
        self._keeper = keeper
        self._timeout = timeout
        options = [part for prefix in prefixes for part in (b"PREFIX", prefix)]
        self._greeting = [pack(b"HELLO", b"3"), pack(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *options)]
        self._connections: dict[RedisAddress, RedisConnection] = {}
        self._changed = asyncio.Event()
        self.live = asyncio.Event()
        """Set while every master tells its changes."""

    async def run(self) -> None:
        """Open the connections, watch them, and open them again when they are lost; ends only by being cancelled."""
        self._client.on_topology = self._topology
        pause = FIRST_RETRY_SECONDS
        try:
            while True:
                self._changed.clear()
                try:
                    await self._connect()
                    pause = FIRST_RETRY_SECONDS
                    await self._watch()
                except RedisUnavailable as error:
                    self._stop()
                    _log.warning("redis does not tell its changes", reason=str(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LAST_RETRY_SECONDS)
        finally:
            self._stop()
            for connection in [*self._connections.values()]:
                connection.close()

    async def _connect(self) -> None:
        """Have a tracking connection to exactly the nodes that are masters now."""
        masters = await self._client.masters()
        for address, connection in [*self._connections.items()]:
            if address not in masters or not connection.alive:
                self._stop()
                del self._connections[address]
                connection.close()
        for address in masters:
            if address not in self._connections:
                self._stop()
                self._connections[address] = await open_connection(
                    address, self._timeout, self._greeting, self._pushed, self._lost
                )
        if not self.live.is_set():
            self.live.set()
            self._keeper.start()

    async def _watch(self) -> None:
        """Return when a node was lost or the masters may have changed; a node that does not answer counts as lost."""
        ping = pack(b"PING")
        while not self._changed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_SECONDS):
                    await self._changed.wait()
                    return
            for connection in [*self._connections.values()]:
                await connection.send(ping, 1)

    def _pushed(self, message: list[Reply]) -> None:
        if message[0] != b"invalidate":
            return
        if message[1] is None:
            self._keeper.flush()
        else:
            for key in message[1]:
                self._keeper.drop(key)

    def _topology(self, masters: set[RedisAddress]) -> None:
        if masters != self._connections.keys():
            self._lost()

    def _lost(self) -> None:
        self._stop()
        self._changed.set()

    def _stop(self) -> None:
        if self.live.is_set():
            self.live.clear()
            self._keeper.stop()
