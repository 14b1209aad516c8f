"""Fixtures of the integration and end-to-end tests: a real stack of their own, beside the developer's.

`stack`   the servers (Postgres, Valkey, Kafka, Connect, registry, OpenSearch), started once a run on empty data, on
          ports 1,000 above the defaults, in `.fanline/test`; downloads are shared with `.fanline/servers`.
`system`  the same stack with migrations, topics, schemas and connectors applied and the dataflows and the API running.

Both give a `Stack`: `settings`, `environment` for subprocesses, `fanline(...)` to run a command of the command line on
it, `status()`, `pid(name)`, `kill(name)`, `up(...)`. While one of them is in use `FANLINE_*` and `get_settings()` mean
that stack in the test process too. Every test in `integration` and `e2e` is marked `integration`, every test that uses
one of the two is marked `stack`.

`FANLINE_TEST_STACK=running` uses the stack that runs already (that of `fanline up`, or of the FANLINE_* variables that
are set) and neither starts nor stops nor empties anything: quick while you write a test. `FANLINE_TEST_STACK=keep`
leaves the test stack running afterwards, with its data, and finds it again.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fanline.settings import Settings, get_settings
from stack import daemon
from stack.layout import Layout
from stack.status import collect

CHECKOUT = Path(__file__).resolve().parents[1]
TEST_STATE = CHECKOUT / ".fanline" / "test"
MODE = os.environ.get("FANLINE_TEST_STACK", "")

PORTS = {
    "FANLINE_POSTGRES_PORT": 16432,
    "FANLINE_REDIS_PORT": 17379,
    "FANLINE_KAFKA_PORT": 20092,
    "FANLINE_KAFKA_CONTROLLER_PORT": 20093,
    "FANLINE_CONNECT_PORT": 19083,
    "FANLINE_REGISTRY_PORT": 19081,
    "FANLINE_OPENSEARCH_PORT": 9260,
    "FANLINE_OPENSEARCH_TRANSPORT_PORT": 9310,
    "FANLINE_FLOWS_METRICS_PORT": 20101,
    "FANLINE_API_PORT": 9080,
    "FANLINE_SMTP_PORT": 9025,
}

# The tests run the other ends of the channels themselves (tests/integration/channel_world.py).
CHANNELS = {
    "FANLINE_PUSH_PRIVATE_ENDPOINTS": "true",
    "FANLINE_DELIVERY_RETRY_SECONDS": "0.2",
    "FANLINE_SMTP_HOST": "127.0.0.1",
    "FANLINE_SMTP_SECURITY": "none",
    "FANLINE_SMTP_FROM": "fanline@example.org",
}


@dataclass(frozen=True)
class Stack:
    """A running stack; `environment` is what its processes and commands run with."""

    settings: Settings
    environment: dict[str, str]

    def fanline(self, *arguments: str, check: bool = True, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run `fanline ARGUMENTS` on this stack; with `check` a non-zero exit fails the test with what was printed."""
        done = subprocess.run(
            [sys.executable, "-m", "fanline.cli", *arguments],
            env=self.environment,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(f"fanline {' '.join(arguments)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def status(self) -> dict[str, Any]:
        """What `fanline status --json` says, asked without the detour of a process."""
        return collect(Layout(self.settings))

    def part(self, name: str) -> dict[str, Any]:
        """The entry of one server, dataflow or of the API in `status()`."""
        report = self.status()
        parts = [*report["servers"], *report["dataflows"], report["api"]]
        return next(part for part in parts if part["name"] == name)

    def pid(self, name: str) -> int:
        """Process id of a server, a dataflow or the API (of these two the process itself, not its supervisor)."""
        pid = self.part(name)["pid"]
        assert isinstance(pid, int), f"{name} does not run"
        return pid

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a part, `kill -9` unless told otherwise; returns the id that it had."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def up(self, only: str = "") -> None:
        """`fanline up`, of some parts with what they need, or of all."""
        self.fanline("up", *(("--only", only) if only else ()))


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks of the tests on real servers."""
    config.addinivalue_line("markers", "integration: needs real servers; see tests/conftest.py")
    config.addinivalue_line("markers", "stack: uses the stack, of which there is one; the others may run side by side")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests on real servers by their folder, and those that use the stack by their fixtures."""
    folders = {Path(__file__).parent / name for name in ("integration", "e2e")}
    for item in items:
        if folders & set(item.path.parents):
            item.add_marker(pytest.mark.integration)
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The servers on empty data; see the top of this file."""
    ours = {} if MODE == "running" else {name: str(port) for name, port in PORTS.items()}
    if ours:
        ours |= {"FANLINE_STATE_DIR": str(TEST_STATE), "FANLINE_SERVERS_DIR": str(CHECKOUT / ".fanline" / "servers")}
        # All tests come from one address, and sign up more people in five minutes than an address may.
        ours |= {"FANLINE_RATE_LIMIT": "100000"}
        ours |= CHANNELS
        # The barrier waits for the time series too, and tests wait for the barrier all the time.
        ours |= {"FANLINE_AGGREGATES_SECONDS": "0.1", "FANLINE_AGGREGATES_SHARE": "0.9"}
    # It would repair what tests damage, now and then before they have seen it.
    ours["FANLINE_AUDIT_ALWAYS"] = "false"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        running = Stack(get_settings(), dict(os.environ))
        try:
            if MODE == "running":
                yield running
            else:
                yield from _own(running)
        finally:
            get_settings.cache_clear()


def _own(running: Stack) -> Iterator[Stack]:
    TEST_STATE.mkdir(parents=True, exist_ok=True)
    with (TEST_STATE.parent / "test.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.exit("Another test run uses the test stack of this checkout.", returncode=2)
        if MODE != "keep":
            running.fanline("down")
            for folder in ("data", "log", "recovery", "archive"):
                shutil.rmtree(TEST_STATE / folder, ignore_errors=True)
        try:
            running.up("servers")
            yield running
        finally:
            if MODE != "keep":
                _throw_away(running)


def _throw_away(running: Stack) -> None:
    """Stop everything, but for the JVMs that would now take a minute to write archives for their next, faster start."""
    layout, report = Layout(running.settings), running.status()
    if clients := [part["name"] for part in [*report["dataflows"], report["api"]] if part["pid"]]:
        running.fanline("down", "--only", ",".join(clients))  # they end well only while the servers are there
    for server in report["servers"]:
        process = daemon.running(layout, server["name"])
        if process is not None and daemon.writes_archive(process):
            process.kill()
    running.fanline("down")


@pytest.fixture(scope="session")
def system(stack: Stack) -> Stack:
    """The whole system running; see the top of this file."""
    stack.up()
    return stack
