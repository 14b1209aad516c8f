"""Batches of commands to Redis, stand-alone or Redis Cluster: one connection a node, each command to its key's node.

A command is a `readmodels.effects.Command`: the key that it touches and ready RESP bytes. In a cluster the slot map is
read from any node, and again after MOVED or a lost connection; MOVED and ASK are followed.
"""

import asyncio
from binascii import crc_hqx
from collections.abc import Callable, Iterable, Sequence

from api.redis_connection import (
    RedisAddress,
    RedisConnection,
    RedisReplyError,
    RedisTimeout,
    RedisUnavailable,
    Reply,
    open_connection,
)
from fanline import metrics
from fanline.resp import pack
from readmodels.effects import Command

__all__ = ["RedisAddress", "RedisClient", "RedisReplyError", "RedisTimeout", "RedisUnavailable", "Reply", "slot_of"]

SLOTS = 16_384
REDIRECTIONS = 5
_ROUND_TRIPS = metrics.REDIS_ROUND_TRIPS
_UNAVAILABLE = ("CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN", "BUSY ")


def slot_of(key: bytes) -> int:
    """The Redis Cluster slot of a key: CRC16 of its hash tag, or of the whole key if it has none."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class _Node:
    """The one connection to a node, opened when first needed; concurrent callers share the attempt."""

    def __init__(self, address: RedisAddress, timeout: float) -> None:
        self.address = address
        self._timeout = timeout
        self.connection: RedisConnection | None = None
        self._opening: asyncio.Task[RedisConnection] | None = None

    async def open(self) -> RedisConnection:
        if self.connection is not None and self.connection.alive:
            return self.connection
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(open_connection(self.address, self._timeout))
        self.connection = await asyncio.shield(self._opening)
        return self.connection

    async def close(self) -> None:
        if self._opening is not None:
            if not self._opening.done():
                self._opening.cancel()
            await asyncio.wait([self._opening])
            if not self._opening.cancelled() and self._opening.exception() is None:
                self._opening.result().close()
        if self.connection is not None:
            self.connection.close()


class RedisClient:
    """Executes batches; make it inside the event loop that uses it, and `close` it."""

    def __init__(self, address: RedisAddress, *, cluster: bool = False, timeout: float = 1.0) -> None:
        self._seed = address
        self._cluster = cluster
        self._timeout = timeout
        self._nodes: dict[RedisAddress, _Node] = {address: _Node(address, timeout)}
        self._slots: list[_Node] = []
        self._single = self._nodes[address]
        self._refreshing: asyncio.Task[None] | None = None
        self.on_topology: Callable[[set[RedisAddress]], None] = lambda masters: None
        """Called with the masters whenever the slot map was read, before any command is sent by it."""

    async def masters(self) -> list[RedisAddress]:
        """The nodes that hold keys; raises `RedisUnavailable`."""
        if not self._cluster:
            return [self._seed]
        if not self._slots:
            await self.refresh()
        return list(dict.fromkeys(node.address for node in self._slots))

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Run the commands, each on the node of its key, in one round trip; the replies are in the same order.

        Raises `RedisUnavailable` if any of them cannot be answered and `RedisReplyError` if any is refused. Every
        command must be idempotent: it may have run although this raises.
        """
        if not commands:
            return []
        _ROUND_TRIPS.inc()
        if self._cluster:
            replies = await self._execute_in_cluster(commands)
        else:
            connection = self._single.connection
            if connection is None or not connection.alive:
                connection = await self._single.open()
            replies = await connection.send(b"".join([command.data for command in commands]), len(commands))
        for reply in replies:
            if type(reply) is RedisReplyError:
                if str(reply).startswith(_UNAVAILABLE):
                    raise RedisUnavailable(f"Redis cannot serve now: {reply}.")
                raise reply
        return replies

    async def on_every_master(self, command: bytes) -> list[Reply]:
        """Run one command on each node that holds keys; replies in the order of `masters`."""
        replies = []
        for address in await self.masters():
            connection = await self._node(address).open()
            replies += await connection.send(command, 1)
        return replies

    async def close(self) -> None:
        """Close every connection; what still waits fails."""
        if self._refreshing is not None and not self._refreshing.done():
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        for node in self._nodes.values():
            await node.close()

    async def refresh(self) -> None:
        """Read the slot map again from any node that answers; concurrent callers share the attempt."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    def _node(self, address: RedisAddress) -> _Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = _Node(address, self._timeout)
        return node

    async def _execute_in_cluster(self, commands: Sequence[Command]) -> list[Reply]:
        if not self._slots:
            await self.refresh()
        replies: list[Reply] = [None] * len(commands)
        by_node: dict[_Node, list[int]] = {}
        for index, command in enumerate(commands):
            by_node.setdefault(self._slots[slot_of(command.key)], []).append(index)
        redirected = await self._gather(by_node, commands, replies, asking=frozenset())
        for _ in range(REDIRECTIONS):
            if not redirected:
                break
            by_node, asking = self._follow(redirected, replies)
            if len(asking) < len(redirected):
                await self.refresh()
            redirected = await self._gather(by_node, commands, replies, asking)
        return replies

    async def _gather(
        self,
        by_node: dict[_Node, list[int]],
        commands: Sequence[Command],
        replies: list[Reply],
        asking: frozenset[int],
    ) -> list[int]:
        """Send each node its share, fill in the replies, and return the indexes that were redirected."""
        outcomes = await asyncio.gather(
            *(self._send(node, indexes, commands, asking) for node, indexes in by_node.items()), return_exceptions=True
        )
        redirected = []
        for indexes, outcome in zip(by_node.values(), outcomes, strict=True):
            if isinstance(outcome, BaseException):
                self._slots = []  # a node was lost: its slots may be served elsewhere
                raise outcome
            for index, reply in zip(indexes, outcome, strict=True):
                replies[index] = reply
                if type(reply) is RedisReplyError and str(reply).startswith(("MOVED ", "ASK ")):
                    redirected.append(index)
        return redirected

    async def _send(
        self, node: _Node, indexes: Iterable[int], commands: Sequence[Command], asking: frozenset[int]
    ) -> list[Reply]:
        payload, kept = [], []
        for index in indexes:
            if index in asking:
                payload.append(pack(b"ASKING"))
                kept.append(False)
            payload.append(commands[index].data)
            kept.append(True)
        connection = await node.open()
        replies = await connection.send(b"".join(payload), len(payload))
        return [reply for reply, keep in zip(replies, kept, strict=True) if keep]

    def _follow(self, redirected: list[int], replies: list[Reply]) -> tuple[dict[_Node, list[int]], frozenset[int]]:
        by_node: dict[_Node, list[int]] = {}
        asking = set()
        for index in redirected:
            kind, _slot, target = str(replies[index]).split(" ")[:3]
            host, _, port = target.rpartition(":")
            by_node.setdefault(self._node(self._seed.at(host or self._seed.host, int(port))), []).append(index)
            if kind == "ASK":
                asking.add(index)
        return by_node, frozenset(asking)

    def _forget(self, masters: set[_Node]) -> None:
        """Drop the nodes that hold no slot any more, so that no later refresh waits for one that is gone."""
        for address, node in [*self._nodes.items()]:
            if node not in masters and address != self._seed:
                del self._nodes[address]
                if node.connection is not None:
                    node.connection.close()

    async def _refresh(self) -> None:
        failure: RedisUnavailable = RedisUnavailable(f"No node of the Redis Cluster at {self._seed} answers.")
        for node in [*self._nodes.values()]:
            try:
                connection = await node.open()
                (reply,) = await connection.send(pack(b"CLUSTER", b"SLOTS"), 1)
            except RedisUnavailable as error:
                failure = error
                continue
            if isinstance(reply, RedisReplyError):
                failure = RedisUnavailable(f"Redis at {node.address} is no node of a cluster: {reply}.")
                continue
            slots: list[_Node | None] = [None] * SLOTS
            for first, last, master, *_replicas in reply:
                host = master[0].decode() if master[0] else node.address.host
                slots[first : last + 1] = [self._node(self._seed.at(host, master[1]))] * (last - first + 1)
            held = [slot for slot in slots if slot is not None]
            if len(held) < SLOTS:
                failure = RedisUnavailable("Some slots of the Redis Cluster are served by no node.")
                continue
            self._slots = held
            self._forget(set(held))
            self.on_topology({node.address for node in held})
            return
        raise failure
