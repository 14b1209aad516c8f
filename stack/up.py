"""`fanline up`: starts what is not running, each part as soon as what it needs is ready, and waits until all answer."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fanline.errors import FanlineError
from stack import daemon, prepare
from stack.down import stop_all
from stack.forkserver import ForkServer
from stack.layout import Layout
from stack.ports import check_ports
from stack.probe import answers
from stack.status import supervisor_state
from stack.steps import run_step
from stack.table import Node, Process, Step

POLL = 0.05  # seconds between two questions to a process that is starting
RESTARTS_ALLOWED = 3  # in a row, of a supervised process before it first answers

WAITING, STARTING, READY, FAILED = "waiting", "starting", "ready", "failed"


class StartFailed(FanlineError):
    """A part of the stack did not come up; the message names it and holds the last lines of its log."""


class Cancelled(FanlineError):
    """Somebody interrupted the start; what it had started is stopped again."""

    exit_code = 130


@dataclass
class Progress:
    """Where one node stands: its state, since when (monotonic seconds), seconds it took, what is wrong with it,
    and how often it was started again before it answered."""

    state: str = WAITING
    since: float = 0.0
    seconds: float = 0.0
    note: str = ""
    restarts: int = 0


class Up:
    """One run of `fanline up` over `nodes`; `progress` may be read at any time, by name."""

    def __init__(self, layout: Layout, nodes: Sequence[Node]) -> None:
        self.layout = layout
        self.nodes = nodes
        self.cancelled = threading.Event()
        self.progress = {node.name: Progress() for node in nodes}
        self.started: list[Process] = []
        self.error: BaseException | None = None
        self._ready = {node.name: threading.Event() for node in nodes}
        self._threads: list[threading.Thread] = []
        self._running: set[str] = set()
        self._forks: ForkServer | None = None

    def begin(self) -> None:
        """Look at the ports, then start everything in the background; raises `PortBusy` before anything is started."""
        layout = self.layout
        for folder in (layout.run, layout.temporary, layout.log("x").parent, layout.archive("x").parent):
            folder.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            if isinstance(node, Process):
                if daemon.running(self.layout, node.name):
                    self._running.add(node.name)
                else:
                    check_ports(node)
        if any(isinstance(node, Process) and node.supervised and node.name not in self._running for node in self.nodes):
            self._forks = ForkServer(layout.log("forkserver"), daemon.environment(layout))
        for node in self.nodes:
            thread = threading.Thread(target=self._bring_up, args=(node,), name=f"up-{node.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def finished(self) -> bool:
        """Whether every part is ready, failed or was given up."""
        return not any(thread.is_alive() for thread in self._threads)

    def check_alive(self) -> None:
        """Notice parts that answered once and ended since, also if their supervisor starts them again."""
        for process in list(self.started):
            progress = self.progress[process.name]
            if progress.state == READY and (
                daemon.running(self.layout, process.name) is None or restarts(self.layout, process) > progress.restarts
            ):
                self._fail(process, self._crash(process))

    def result(self) -> None:
        """Raise what went wrong, if something did."""
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        """Have the background work end; what runs goes on running."""
        self.cancelled.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self.close()

    def close(self) -> None:
        """End what only the start needed."""
        if self._forks is not None:
            self._forks.close()
            self._forks = None

    def undo(self) -> None:
        """Stop what this run started; what ran before stays."""
        self.end()
        stop_all(self.layout, self.started)

    def _bring_up(self, node: Node) -> None:
        try:
            if not self._wait_for_needs(node):
                return
            self._enter(node, STARTING)
            if isinstance(node, Step):
                run_step(node, self.layout.settings)
            else:
                self._process(node)
            if not self.cancelled.is_set():
                self._enter(node, READY)
                self._ready[node.name].set()
        except BaseException as error:  # noqa: BLE001  raised again by result(), in the thread of the command
            self._fail(node, error)

    def _wait_for_needs(self, node: Node) -> bool:
        for need in node.needs:
            while need in self._ready and not self._ready[need].wait(POLL):
                if self.cancelled.is_set() or self.error is not None:
                    return False
        return not self.cancelled.is_set()

    def _process(self, process: Process) -> None:
        if process.name not in self._running:
            prepare.BEFORE[process.prepare](self.layout, process.name, self.cancelled)
            if self.cancelled.is_set():
                return
            self.started.append(process)
            if process.supervised:
                assert self._forks is not None
                daemon.spawn_supervised(process, self.layout, self._forks)
            else:
                daemon.spawn(process, self.layout)
        self._wait_for_answer(process)
        self.progress[process.name].restarts = restarts(self.layout, process)
        if not self.cancelled.is_set():  # also of what ran before: an earlier start may have failed half-way
            prepare.AFTER[process.settle](self.layout)

    def _wait_for_answer(self, process: Process) -> None:
        deadline = time.monotonic() + process.start_seconds
        while not self.cancelled.is_set():
            if daemon.running(self.layout, process.name) is None:
                raise self._crash(process)
            if answers(process.probe):
                return
            if failures(self.layout, process) >= RESTARTS_ALLOWED:
                raise self._crash(process)
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"{process.name} did not answer at {process.url} within {process.start_seconds:.0f} s;"
                    f" {self._log_tail(process)}"
                )
            self.cancelled.wait(POLL)

    def _crash(self, process: Process) -> StartFailed:
        return StartFailed(f"{process.name} ended while it was needed; {self._log_tail(process)}")

    def _log_tail(self, process: Process) -> str:
        log = self.layout.log(process.name)
        lines = "".join(f"\n  {line}" for line in daemon.last_lines(log))
        return f"the last lines of its log {log} are:{lines}" if lines else f"its log {log} is empty."

    def _enter(self, node: Node, state: str) -> None:
        progress, now = self.progress[node.name], time.monotonic()
        if progress.since:
            progress.seconds = now - progress.since
        progress.state, progress.since = state, now

    def _fail(self, node: Node, error: BaseException) -> None:
        self._enter(node, FAILED)
        self.progress[node.name].note = str(error).splitlines()[0] if str(error) else type(error).__name__
        if self.error is None and not self.cancelled.is_set():
            self.error = error


def restarts(layout: Layout, process: Process) -> int:
    """How often the supervisor started `process` again."""
    return int(supervisor_state(layout, process).get("restarts", 0))


def failures(layout: Layout, process: Process) -> int:
    """How often in a row `process` has ended without a stable minute."""
    return int(supervisor_state(layout, process).get("failures", 0))
