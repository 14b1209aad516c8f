"""Redis, stand-alone or cluster, for callers that join their own commands and want nothing lost.

Payloads are sent to a numbered node and answered later (`send`, `collect`); `execute` does both for small batches.
Whatever can be repaired is repaired here: a lost connection (the unanswered payloads are sent again, so commands must
be idempotent in effect), a slot that moved, functions that a restarted server has lost, a server that is loading.
"""

import select
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanline.errors import ConfigurationError, DependencyUnavailable, FanlineError
from fanline.logging import get_logger
from fanline.redis_connection import Address, Connection, ErrorReply, Exchange, ask, parse_url
from fanline.redis_node import Node, pause_seconds
from fanline.redis_topology import Topology, parse_cluster_slots
from fanline.resp import Fault, fault_of, key_of, pack, redirection, unpack
from fanline.settings import Settings

# A failover takes at least the cluster's node timeout: asking for the topology more often tells nothing new.
LEARN_INTERVAL_SECONDS = 0.1
# How long `execute` waits for a server before it leaves the decision to its caller.
PATIENCE_SECONDS = 5.0

_log = get_logger(__name__)
_EXECUTED = object()
_ABANDONED = object()


class RedisCommandFailed(FanlineError):
    """Redis refused a command for a reason that no repetition mends: a defect, or data of another type."""


@dataclass(slots=True, eq=False)
class _Repair:
    """A command of an exchange that has to be sent again, alone."""

    parent: Exchange
    index: int
    arguments: list[bytes]
    attempts: int = 0


@dataclass(slots=True, eq=False)
class _LoadFunctions:
    """Marks an exchange that loads the function libraries on a node."""

    node: int


def redis_url(settings: Settings) -> str:
    """The Redis URL: the setting, or the local stack's server; may contain a password."""
    return settings.redis_url.get_secret_value() or f"redis://{settings.host}:{settings.redis_port}/0"


def open_redis_nodes(settings: Settings) -> "RedisNodes":
    """The Redis of the settings; connects at the first use."""
    return RedisNodes(redis_url(settings), cluster=settings.redis_cluster)


class RedisNodes:
    """Connections to every master. One thread only."""

    node_of: Callable[[bytes], int]
    """The number of the node that has a key; stable, see `Topology`."""

    def __init__(self, url: str, *, cluster: bool = False) -> None:
        seed, self._login = parse_url(url)
        if cluster and self._login.database:
            raise ConfigurationError("FANLINE_REDIS_URL names a database, but a Redis Cluster has only database 0.")
        self._topology = Topology(seed, cluster=cluster)
        self.node_of = self._topology.node_of
        self.inflight_bytes = 0
        self.reconnects = 0
        self._nodes = [Node()]
        self._functions: list[bytes] = []
        self._finished: list[Exchange] = []
        self._later: list[tuple[float, _Repair]] = []
        self._unfinished = 0
        self._learned_at = float("-inf")
        if cluster:
            self._learn()

    @property
    def addresses(self) -> list[Address]:
        """The masters, by number."""
        return list(self._topology.masters)

    @property
    def unfinished(self) -> int:
        """How many payloads are not answered yet."""
        return self._unfinished

    @property
    def waits_for(self) -> str | None:
        """What keeps payloads from being answered, in words; None when every needed node is connected."""
        for node, address in zip(self._nodes, self._topology.masters, strict=True):
            if node.connection is None and node.error:
                return f"Redis at {address} does not answer: {node.error}"
        if self._later:
            return f"Redis waits: {self._later[0][1].parent.replies[self._later[0][1].index]}"
        return None

    def by_node(self, keys: Sequence[bytes]) -> Mapping[int, Sequence[int]]:
        """For each node that has some of the keys, their places in the list."""
        if not self._topology.cluster:
            return {0: range(len(keys))} if keys else {}
        found: dict[int, list[int]] = {}
        for at, key in enumerate(keys):
            found.setdefault(self.node_of(key), []).append(at)
        return found

    def send(self, node: int, payload: bytes, replies: int, token: Any = None) -> Exchange:
        """Queue `replies` commands for a node; `collect` sends them and returns the exchange when it is answered."""
        exchange = Exchange(payload, replies, token)
        self.inflight_bytes += len(payload)
        self._unfinished += 1
        self._nodes[node].put(exchange)
        return exchange

    def collect(self, timeout: float = 0.0) -> list[Exchange]:
        """Send and receive; returns what was answered, waiting up to `timeout` seconds for the first answer.

        Replies that are errors no repetition mends are `ErrorReply` objects among the replies.
        """
        deadline = time.monotonic() + timeout if timeout else 0.0
        while True:
            self._step()
            if self._finished or not self._unfinished or not timeout:
                finished, self._finished = self._finished, []
                return finished
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return []
            self._wait(remaining)

    def execute(self, commands: Sequence[tuple[bytes, bytes]], *, patience: float = PATIENCE_SECONDS) -> list[Any]:
        """Run `(key, command bytes)` pairs, each node's in order, and return their replies in the given order.

        Raises `RedisCommandFailed` when a command is refused, and `DependencyUnavailable` when a server does not answer
        within `patience` seconds; the commands may have run all the same.
        """
        exchanges = [
            (self.send(node, b"".join([commands[p][1] for p in places]), len(places), _EXECUTED), places)
            for node, places in self.by_node([key for key, _ in commands]).items()
        ]
        self._finish_all([exchange for exchange, _ in exchanges], patience)
        replies: list[Any] = [None] * len(commands)
        for exchange, places in exchanges:
            for place, reply in zip(places, exchange.replies, strict=True):
                if isinstance(reply, ErrorReply):
                    raise refused(commands[place][1], reply)
                replies[place] = reply
        return replies

    def load_functions(self, path: Path) -> None:
        """Load a library, or every `*.lua` of a folder, on each master, now and whenever a server has lost them.

        Raises `ConfigurationError` when a library has a fault.
        """
        files = sorted(path.glob("*.lua")) if path.is_dir() else [path]
        if not files:
            raise ConfigurationError(f"There is no function library in {path}.")
        self._functions = [pack(b"FUNCTION", b"LOAD", b"REPLACE", file.read_bytes()) for file in files]
        exchanges = [
            self.send(node, b"".join(self._functions), len(self._functions), _EXECUTED)
            for node in range(len(self._nodes))
            if self._topology.is_master(node)
        ]
        self._finish_all(exchanges, PATIENCE_SECONDS)
        for exchange in exchanges:
            for file, reply in zip(files, exchange.replies, strict=True):
                if isinstance(reply, ErrorReply):
                    raise ConfigurationError(f"Redis does not accept the functions in {file.name}: {reply}.")

    def close(self) -> None:
        """Close every connection; what is unanswered is forgotten."""
        for node in self._nodes:
            if node.connection is not None:
                node.connection.close()
                node.connection = None

    def _finish_all(self, exchanges: list[Exchange], patience: float) -> None:
        deadline = time.monotonic() + patience
        while not all(exchange.done for exchange in exchanges):
            self._step()
            if all(exchange.done for exchange in exchanges):
                return
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                for exchange in exchanges:
                    if not exchange.done:
                        exchange.token = _ABANDONED
                raise DependencyUnavailable(f"{self.waits_for or 'Redis does not answer in time'}.", "redis")
            self._wait(remaining)

    def _step(self) -> None:
        now = time.monotonic()
        for number, node in enumerate(self._nodes):
            if node.connection is None and node.backlog and now >= node.retry_at:
                self._connect(number)
        if self._later and self._later[0][0] <= now:
            due = [repair for at, repair in self._later if at <= now]
            self._later = [(at, repair) for at, repair in self._later if at > now]
            for repair in due:
                self._send_repair(repair)
        for number, node in enumerate(self._nodes):
            if node.connection is not None and node.connection.inflight:
                self._pump(number, node.connection)

    def _pump(self, number: int, connection: Connection) -> None:
        try:
            answered = connection.pump()
        except OSError as error:
            self._lost(number, error)
            return
        for exchange in answered:
            self._answered(number, exchange)

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        for node in self._nodes:
            if node.connection is not None and node.connection.inflight:
                events = select.POLLIN | (select.POLLOUT if node.connection.wants_to_write else 0)
                poll.register(node.connection.fileno(), events)
            elif node.backlog:
                seconds = min(seconds, node.retry_at - time.monotonic())
        if self._later:
            seconds = min(seconds, self._later[0][0] - time.monotonic())
        poll.poll(max(0.0, seconds) * 1000)

    def _connect(self, number: int) -> None:
        try:
            connection = Connection(self._topology.masters[number], self._login)
        except (OSError, DependencyUnavailable) as error:
            self._failed(number, error)
            return
        if self._nodes[number].connected(connection):
            self.reconnects += 1

    def _lost(self, number: int, error: OSError) -> None:
        node = self._nodes[number]
        for exchange in node.disconnect():
            if exchange.token is _ABANDONED or isinstance(exchange.token, _LoadFunctions):
                self._forget(exchange)
            else:
                node.backlog.append(exchange)
        self._failed(number, error)

    def _failed(self, number: int, error: Exception) -> None:
        node = self._nodes[number]
        node.failed(self._topology.masters[number], error)
        for exchange in [exchange for exchange in node.backlog if exchange.token is _ABANDONED]:
            node.backlog.remove(exchange)
            self._forget(exchange)
        if self._topology.cluster:
            self._learn()

    def _learn(self) -> None:
        now = time.monotonic()
        if now - self._learned_at < LEARN_INTERVAL_SECONDS:
            return
        before = list(self._topology.masters)
        for address in self._topology.addresses():
            try:
                ranges = parse_cluster_slots(ask(address, self._login, pack(b"CLUSTER", b"SLOTS")), address)
            except (OSError, ErrorReply, DependencyUnavailable) as error:
                _log.debug("no topology from this node", address=str(address), error=str(error))
                continue
            if ranges:
                break
        else:
            if self._learned_at < 0:
                raise DependencyUnavailable("No node of the Redis Cluster answers with its slots.", "redis")
            return
        self._learned_at = now
        self._topology.update(ranges)
        masters = self._topology.masters
        self._nodes += [Node() for _ in range(len(masters) - len(self._nodes))]
        if masters != before:
            _log.info("redis cluster changed", masters=[str(address) for address in masters])
        for number, old in enumerate(before):
            node = self._nodes[number]
            if masters[number] != old and node.connection is not None:
                self._lost(number, ConnectionResetError("another node took over"))
            if node.backlog and not self._topology.is_master(number):
                backlog, node.backlog = node.backlog, deque()
                for exchange in backlog:
                    self._split(exchange)

    def _answered(self, number: int, exchange: Exchange) -> None:
        token = exchange.token
        if isinstance(token, _LoadFunctions):
            self._nodes[number].loading = False
            self._forget(exchange)
        elif isinstance(token, _Repair):
            self._forget(exchange)
            self._mended(number, token, exchange.replies[0])
        elif exchange.has_errors:
            arguments = unpack(exchange.payload)
            faulty = [index for index, reply in enumerate(exchange.replies) if isinstance(reply, ErrorReply)]
            exchange.open_repairs = len(faulty)
            for index in faulty:
                self._mended(number, _Repair(exchange, index, arguments[index]), exchange.replies[index])
        else:
            self._finish(exchange)

    def _mended(self, number: int, repair: _Repair, reply: Any) -> None:
        repair.parent.replies[repair.index] = reply
        fault = fault_of(str(reply)) if isinstance(reply, ErrorReply) else None
        if fault is None or fault is Fault.DEFECT or (fault is Fault.FUNCTION_MISSING and not self._functions):
            repair.parent.open_repairs -= 1
            if not repair.parent.open_repairs:
                self._finish(repair.parent)
            return
        repair.attempts += 1
        if fault is Fault.ASK:
            self._ask_there(number, repair, str(reply))
        elif repair.attempts > 2 or fault is Fault.WAIT:
            self._send_later(repair)
        else:
            if fault is Fault.MOVED:
                self._learn()
            else:
                self._load_on(number)
            self._send_repair(repair)

    def _ask_there(self, number: int, repair: _Repair, message: str) -> None:
        host, port = redirection(message)
        address = Address(host or self._topology.masters[number].host, port)
        try:
            reply: Any = ask(address, self._login, pack(b"ASKING"), pack(*repair.arguments))
        except ErrorReply as error:
            reply = error
        except (OSError, DependencyUnavailable):
            self._send_later(repair)
            return
        if isinstance(reply, ErrorReply) and fault_of(str(reply)) is not Fault.DEFECT:
            self._send_later(repair)
        else:
            self._mended(number, repair, reply)

    def _send_later(self, repair: _Repair) -> None:
        self._later.append((time.monotonic() + pause_seconds(repair.attempts), repair))
        self._later.sort(key=lambda entry: entry[0])

    def _send_repair(self, repair: _Repair) -> None:
        key = key_of(repair.arguments)
        exchange = Exchange(pack(*repair.arguments), 1, repair)
        self._unfinished += 1
        self.inflight_bytes += len(exchange.payload)
        self._nodes[0 if key is None else self.node_of(key)].put(exchange)

    def _split(self, exchange: Exchange) -> None:
        """Send the commands of an exchange one by one, as its node is gone."""
        if isinstance(exchange.token, _Repair):
            self._forget(exchange)
            self._send_repair(exchange.token)
            return
        commands = unpack(exchange.payload)
        exchange.replies, exchange.open_repairs = [None] * len(commands), len(commands)
        for index, arguments in enumerate(commands):
            self._send_repair(_Repair(exchange, index, arguments))

    def _load_on(self, number: int) -> None:
        if self._nodes[number].loading:
            return
        self._nodes[number].loading = True
        _log.info("loading functions", address=str(self._topology.masters[number]))
        self.send(number, b"".join(self._functions), len(self._functions), _LoadFunctions(number))

    def _finish(self, exchange: Exchange) -> None:
        exchange.done = True
        self._forget(exchange)
        if exchange.token is not _EXECUTED and exchange.token is not _ABANDONED:
            self._finished.append(exchange)

    def _forget(self, exchange: Exchange) -> None:
        self._unfinished -= 1
        self.inflight_bytes -= len(exchange.payload)


def refused(command: bytes, reply: ErrorReply) -> RedisCommandFailed:
    """The typed error for a command that Redis refused."""
    words = [argument.decode("ascii", "replace") for argument in unpack(command)[0][:3]]
    return RedisCommandFailed(f"Redis refused {' '.join(words)}: {reply}.")
