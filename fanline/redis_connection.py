"""One non-blocking socket to one Redis node: requests go out while replies come in.

Writing megabytes without reading would stop both sides once the socket buffers are full, so `Connection.pump` does
whichever is possible. Requests are answered in order, so the oldest unanswered exchange owns the next reply.
"""

import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from fanline.errors import ConfigurationError, DependencyUnavailable
from fanline.resp import pack

CONNECT_TIMEOUT_SECONDS = 2.0
# Longer than any command of ours takes (milliseconds), short enough to leave a frozen server for its successor.
SILENCE_TIMEOUT_SECONDS = 15.0

_BUFFER_BYTES = 256 * 1024
_BUFFERS_PER_SEND = 64


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """What a connection says first."""

    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0

    def commands(self) -> list[bytes]:
        """AUTH and SELECT as far as they are needed."""
        commands = []
        if self.password:
            user = [self.username.encode()] if self.username else []
            commands.append(pack(b"AUTH", *user, self.password.encode()))
        if self.database:
            commands.append(pack(b"SELECT", b"%d" % self.database))
        return commands


def parse_url(url: str) -> tuple[Address, Login]:
    """The address and login in `redis://[[user]:password@]host[:port][/database]`; raises `ConfigurationError`."""
    parts = urlsplit(url)
    try:
        if parts.scheme != "redis" or not parts.hostname:
            raise ValueError("it must look like redis://host:port/0")
        address = Address(parts.hostname, parts.port or 6379)
        database = int(parts.path.strip("/") or 0)
    except ValueError as error:
        raise ConfigurationError(f"FANLINE_REDIS_URL cannot be used: {error}.") from error
    return address, Login(unquote(parts.username or ""), unquote(parts.password or ""), database)


class ErrorReply(Exception):
    """An error that the server sent in place of a reply."""


@dataclass(slots=True, eq=False)
class Exchange:
    """Some commands for one node and, once `done`, their replies in order."""

    payload: bytes
    expected: int
    token: Any = None
    replies: list[Any] = field(default_factory=list)
    has_errors: bool = False
    open_repairs: int = 0
    done: bool = False


def connect(address: Address, login: Login) -> socket.socket:
    """A blocking, logged-in socket; raises OSError, or `DependencyUnavailable` when the login is refused."""
    sock = socket.create_connection((address.host, address.port), timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for command in login.commands():
            reply = _roundtrip(sock, command)
            if isinstance(reply, ErrorReply):
                raise DependencyUnavailable(f"Redis at {address} refuses the login: {reply}.", "redis")
    except BaseException:
        sock.close()
        raise
    return sock


def ask(address: Address, login: Login, *commands: bytes) -> Any:
    """The reply to the last of some commands, over a connection of its own; raises OSError, or `ErrorReply`."""
    with connect(address, login) as sock:
        for command in commands:
            reply = _roundtrip(sock, command)
            if isinstance(reply, ErrorReply):
                raise reply
    return reply


def _roundtrip(sock: socket.socket, command: bytes) -> Any:
    nothing = object()
    reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=nothing)
    sock.sendall(command)
    while (reply := reader.gets()) is nothing:
        data = sock.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        reader.feed(data)
    return reply


class Connection:
    """A socket and the exchanges that it still owes a reply."""

    def __init__(self, address: Address, login: Login) -> None:
        self.address = address
        self.inflight: deque[Exchange] = deque()
        self._socket = connect(address, login)
        self._socket.setblocking(False)
        self._outgoing: deque[memoryview] = deque()
        self._incoming = bytearray(_BUFFER_BYTES)
        self._nothing = object()
        self._errors = 0
        self._reader = hiredis.Reader(replyError=self._count_error, notEnoughData=self._nothing)
        self._heard_at = time.monotonic()

    def fileno(self) -> int:
        """The socket's descriptor, for select and poll."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether bytes wait for room in the socket's buffer."""
        return bool(self._outgoing)

    def put(self, exchange: Exchange) -> None:
        """Queue an exchange; `pump` sends it."""
        if not self.inflight:
            self._heard_at = time.monotonic()
        self.inflight.append(exchange)
        self._outgoing.append(memoryview(exchange.payload))

    def pump(self) -> list[Exchange]:
        """Write and read what is possible without waiting; returns the exchanges that are answered in full.

        Raises OSError when the connection is lost or silent for too long; `inflight` then has to be sent again.
        """
        if self._outgoing:
            self._write()
        return self._read()

    def close(self) -> None:
        """Close the socket; `inflight` stays."""
        self._socket.close()

    def _write(self) -> None:
        while self._outgoing:
            views = [self._outgoing[i] for i in range(min(len(self._outgoing), _BUFFERS_PER_SEND))]
            try:
                sent = self._socket.sendmsg(views)
            except BlockingIOError:
                return
            while sent:
                first = self._outgoing[0]
                if sent < len(first):
                    self._outgoing[0] = first[sent:]
                    return
                sent -= len(first)
                self._outgoing.popleft()

    def _read(self) -> list[Exchange]:
        answered: list[Exchange] = []
        while True:
            try:
                size = self._socket.recv_into(self._incoming)
            except BlockingIOError:
                if self.inflight and time.monotonic() - self._heard_at > SILENCE_TIMEOUT_SECONDS:
                    raise TimeoutError(f"no reply for {SILENCE_TIMEOUT_SECONDS:.0f} seconds") from None
                return answered
            if size == 0:
                raise ConnectionResetError("the server closed the connection")
            self._heard_at = time.monotonic()
            self._reader.feed(self._incoming, 0, size)  # type: ignore[arg-type]  # takes any buffer
            self._take_replies(answered)
            if size < _BUFFER_BYTES:
                return answered

    def _take_replies(self, answered: list[Exchange]) -> None:
        gets, nothing = self._reader.gets, self._nothing
        while self.inflight:
            exchange = self.inflight[0]
            replies, missing = exchange.replies, exchange.expected - len(exchange.replies)
            while missing:
                reply = gets()
                if reply is nothing:
                    break
                replies.append(reply)
                missing -= 1
            # Error replies are rare and counted as they are parsed: a look at every reply would cost a third more.
            if self._errors:
                exchange.has_errors, self._errors = True, 0
            if missing:
                return
            self.inflight.popleft()
            answered.append(exchange)

    def _count_error(self, message: str) -> ErrorReply:
        self._errors += 1
        return ErrorReply(message)
