"""A closed-loop HTTP load over keep-alive connections: raw sockets and epoll, so that the generator stays cheap."""

import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle

from fanline.errors import DependencyUnavailable

ANSWER_SECONDS = 10.0


@dataclass
class Load:
    """What a load has measured; latencies in seconds, from the first byte sent to the last received."""

    seconds: float
    latencies: list[float]
    body_bytes: int

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return len(self.latencies)

    def percentile_ms(self, share: float) -> float:
        """The latency in ms that `share` of the requests did not exceed."""
        ordered = sorted(self.latencies)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1_000, 3)


@dataclass
class _Client:
    """One connection: its socket, what came of the answer so far, and how long the answer is once that is known."""

    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    length: int = 0
    body: int = 0
    started: float = 0.0

    def send(self, request: bytes) -> None:
        self.received.clear()
        self.length = 0
        self.started = time.perf_counter()
        self.socket.sendall(request)

    def take(self) -> bool:
        """Receive; whether the answer is complete. Raises `DependencyUnavailable` for anything but 200."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise DependencyUnavailable("The server closed a connection of the load.")
        self.received += data
        if not self.length:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.received[:end])
            if not head.startswith(b"HTTP/1.1 200"):
                raise DependencyUnavailable(f"The server answered {head.splitlines()[0].decode()!r}.")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self.body = int(lengths[0].partition(b":")[2])
            self.length = end + 4 + self.body
        return len(self.received) >= self.length


def request_bytes(path: str, token: str = "") -> bytes:
    """A GET request as a phone would send it."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n{authorization}\r\n".encode()


def run_load(port: int, requests: list[bytes], connections: int, seconds: float) -> Load:
    """Keep `connections` requests under way at 127.0.0.1 for some seconds, taking turns through `requests`."""
    turns: Iterator[bytes] = cycle(requests)
    selector = selectors.DefaultSelector()
    clients = []
    for _ in range(connections):
        client = _Client(socket.create_connection(("127.0.0.1", port)))
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client.socket, selectors.EVENT_READ, client)
        clients.append(client)
    latencies: list[float] = []
    started = time.perf_counter()
    try:
        for client in clients:
            client.send(next(turns))
        body_bytes = 0
        while (now := time.perf_counter()) - started < seconds:
            events = selector.select(ANSWER_SECONDS)
            if not events:
                raise DependencyUnavailable(f"The server did not answer within {ANSWER_SECONDS:g} s.")
            for key, _ in events:
                client = key.data
                if client.take():
                    latencies.append(time.perf_counter() - client.started)
                    body_bytes = max(body_bytes, client.body)
                    client.send(next(turns))
        return Load(now - started, latencies, body_bytes)
    finally:
        for client in clients:
            client.socket.close()
        selector.close()
