"""Servers of one's own for a benchmark or a test: the real ones of the wheels, on free ports, gone afterwards."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hiredis
import psycopg
from pydantic import SecretStr

from fanline import migrations_runner
from fanline.errors import DependencyUnavailable
from fanline.resp import pack
from fanline.settings import Settings
from stack.layout import Layout
from stack.unprivileged import unprivileged

FUNCTIONS = Path(__file__).resolve().parents[1] / "readmodels" / "functions"
START_SECONDS = 30.0


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, *commands: bytes) -> list[object]:
    """Send ready commands to a local Redis and read the replies; raises `ConnectionError`."""
    reader = hiredis.Reader()
    replies: list[object] = []
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"".join(commands))
        while len(replies) < len(commands):
            reply = reader.gets()
            if reply is not False:
                if isinstance(reply, Exception):
                    raise reply
                replies.append(reply)
                continue
            data = connection.recv(1 << 16)
            if not data:
                raise ConnectionError("closed")
            reader.feed(data)
    return replies


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Look every 10 ms; raises `DependencyUnavailable` naming `what` after half a minute."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except (OSError, psycopg.OperationalError, hiredis.ReplyError):
            pass
        time.sleep(0.01)
    raise DependencyUnavailable(f"{what} did not become ready within {START_SECONDS:g} s.")


class Valkey:
    """A Valkey that can be stopped, killed and started again on its port, always empty."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder = folder / f"valkey-{self.port}"
        self._folder.mkdir(parents=True)
        self.bus_port = free_port()
        self._options = (*options, "--cluster-port", str(self.bus_port)) if options else options
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, functions: bool = True) -> None:
        """Start it, empty, with the read models' functions."""
        program = Layout(Settings()).valkey
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [program, *arguments, *self._options], cwd=self._folder, stdout=subprocess.DEVNULL
        )
        wait_until(lambda: ask(self.port, pack(b"PING")) == [b"PONG"], "Valkey")
        if functions:
            self.load_functions()

    def load_functions(self) -> None:
        """Load the read models' functions."""
        libraries = [path.read_bytes() for path in sorted(FUNCTIONS.glob("*.lua"))]
        ask(self.port, *(pack(b"FUNCTION", b"LOAD", b"REPLACE", library) for library in libraries))

    def stop(self) -> None:
        """Kill it; what it held is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def valkey(folder: Path, *options: str) -> Iterator[Valkey]:
    """A Valkey for as long as the block runs."""
    server = Valkey(folder, *options)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def valkey_cluster(folder: Path, nodes: int = 3) -> Iterator[Sequence[Valkey]]:
    """A Redis Cluster of masters for as long as the block runs."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    servers: list[Valkey] = []
    try:
        for _ in range(nodes):
            servers.append(Valkey(folder, *options))
        bounds = [16_384 * n // nodes for n in range(nodes + 1)]
        for index, server in enumerate(servers):
            first, last = b"%d" % bounds[index], b"%d" % (bounds[index + 1] - 1)
            ask(server.port, pack(b"CLUSTER", b"SET-CONFIG-EPOCH", b"%d" % (index + 1)))
            ask(server.port, pack(b"CLUSTER", b"ADDSLOTSRANGE", first, last))
            first_node = (b"%d" % servers[0].port, b"%d" % servers[0].bus_port)
            ask(server.port, pack(b"CLUSTER", b"MEET", b"127.0.0.1", *first_node))
        wait_until(lambda: all(_is_whole(server, nodes) for server in servers), "The Redis Cluster")
        yield servers
    finally:
        for server in servers:
            server.stop()


def _is_whole(server: Valkey, nodes: int) -> bool:
    info, slots = ask(server.port, pack(b"CLUSTER", b"INFO"), pack(b"CLUSTER", b"SLOTS"))
    assert isinstance(info, bytes)
    assert isinstance(slots, list)
    return b"cluster_state:ok" in info and len(slots) == nodes


@contextmanager
def postgres() -> Iterator[Settings]:
    """A migrated Postgres for as long as the block runs; the settings say where."""
    folder = Path(tempfile.mkdtemp(prefix="fanline-postgres-"))
    folder.chmod(0o755)
    runner = unprivileged(Layout(Settings()).postgres, folder / "data")
    if runner.programs != Layout(Settings()).postgres and not runner.programs.exists():
        shutil.copytree(Layout(Settings()).postgres, runner.programs, dirs_exist_ok=True)
    runner.data.mkdir(parents=True, mode=0o700)
    runner.own(runner.data)
    programs = runner.programs / "bin"
    port = free_port()
    subprocess.run(
        [*runner.prefix, programs / "initdb", "-D", runner.data, "-U", "postgres", "-A", "trust", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL, user=runner.user,
    )  # fmt: skip
    options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    server = subprocess.Popen(
        [
            *runner.prefix, programs / "postgres", "-D", runner.data,
            *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=runner.user,
    )  # fmt: skip
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        wait_until(lambda: _connects(url), "Postgres")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE ROLE fanline_cdc LOGIN REPLICATION")
        settings = Settings(database_url=SecretStr(url))
        migrations_runner.migrate(settings)
        yield settings
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _connects(url: str) -> bool:
    with psycopg.connect(url, connect_timeout=2):
        return True
