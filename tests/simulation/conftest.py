"""A real Valkey of this run's own, so that the simulation runs the very functions that production runs."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import hiredis
import pytest

from fanline.resp import pack
from fanline.settings import Settings
from readmodels.effects import Redis
from stack.layout import Layout


class Server:
    """One connection to a Valkey, speaking the protocol directly."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._reader = hiredis.Reader()

    def __call__(self, batch: Redis) -> list[Any]:
        return self.send([command.data for command in batch.commands])

    def send(self, commands: list[bytes]) -> list[Any]:
        self._socket.sendall(b"".join(commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(1 << 16))
                continue
            if isinstance(reply, Exception):
                raise reply
            replies.append(reply)
        return replies

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("valkey")
    path = folder / "socket"
    binary = Layout(Settings()).valkey
    process = subprocess.Popen(
        [binary, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"],
        cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        for line in process.stdout:
            if "ready to accept connections" in line.lower():
                break
        connection = Server(path)
        for function in files("readmodels").joinpath("functions").iterdir():
            connection.send([pack(b"FUNCTION", b"LOAD", b"REPLACE", function.read_bytes())])
        yield connection
        connection.close()
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def redis(server: Server) -> Callable[[Redis], list[Any]]:
    server.send([pack(b"FLUSHALL")])
    return server
