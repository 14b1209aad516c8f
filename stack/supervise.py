"""Runs one command and starts it again when it ends by itself.

SIGTERM and SIGINT go through to the command, which has its grace to drain before it is killed; then the supervisor ends
too. Its state is a JSON file that says what the command does: `state` (running, waiting), `pid`, `restarts` in all,
`failures` (ends in a row, none of which came after a stable minute), when it `next_start`s (Unix seconds, while it
waits), and of the last end `last_exit` (exit code, negative for a signal) and `last_end` (Unix seconds).

A command that ends again and again is started ever more slowly, and never given up: what it waits for may come back.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from typing import Protocol

FIRST_PAUSE = 0.5  # seconds before the first restart; each further one doubles it
LONGEST_PAUSE = 30.0
STABLE_AFTER = 60.0  # a command that has run this long has recovered: its failures are forgotten
LOOP_AFTER = 4  # ends in a row that are called a crash loop
SAYS = "supervisor:"  # begins what it adds to the command's log
PR_SET_PDEATHSIG = 1


def pause_before_restart(failures: int) -> float:
    """Seconds to wait after the `failures`-th end in a row, counted from 1."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (min(failures, 16) - 1)))


class Child(Protocol):
    """A child of this process, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def wait(self, timeout: float) -> int:
        """Its exit code once it has ended; raises subprocess.TimeoutExpired."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class Forked:
    """A child that this process has forked; see `Child`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float) -> int:
        """Its exit code once it has ended; raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return code

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Supervisor:
    """Keeps one command running until it is asked to stop; `child` is the command if it runs already."""

    def __init__(self, state_path: str, grace: float, command: list[str], child: Child | None = None) -> None:
        self.state_path = state_path
        self.grace = grace
        self.command = command
        self.stopping = False
        self.child = child
        self.failures = 0
        self.state: dict[str, object] = {"restarts": 0, "last_exit": None, "last_end": None}

    def run(self) -> None:
        """Run, restart and wait until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        while not self.stopping:
            if self.child is None:
                self.child = subprocess.Popen(self.command, preexec_fn=end_with_parent)
            if self.stopping:  # asked to stop while the command was being started
                self.child.terminate()
            self._write("running", self.child.pid)
            code = self._wait()
            if self.stopping:
                return
            self.child = None
            self.failures += 1
            pause = pause_before_restart(self.failures)
            self.state.update(restarts=int(str(self.state["restarts"])) + 1, last_exit=code, last_end=time.time())
            self._write("waiting", None, pause)
            print(f"{SAYS} ended with code {code}, starts again in {pause} s", flush=True)  # noqa: T201
            deadline = time.monotonic() + pause
            while not self.stopping and time.monotonic() < deadline:
                time.sleep(0.05)

    def _wait(self) -> int:
        assert self.child is not None
        deadline: float | None = None
        stable = time.monotonic() + STABLE_AFTER
        while True:
            try:
                return self.child.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                if self.failures and time.monotonic() > stable:
                    self.failures = 0
                    self._write("running", self.child.pid)
                if self.stopping:
                    deadline = deadline or time.monotonic() + self.grace
                    if time.monotonic() > deadline:
                        self.child.kill()

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = True
        if self.child is not None and self.child.poll() is None:
            self.child.terminate()

    def _write(self, state: str, pid: int | None, pause: float | None = None) -> None:
        next_start = None if pause is None else time.time() + pause
        self.state.update(state=state, pid=pid, failures=self.failures, next_start=next_start)
        unfinished = f"{self.state_path}.new"
        with open(unfinished, "w") as file:
            json.dump(self.state, file)
        os.replace(unfinished, self.state_path)


def end_with_parent() -> None:
    """Have this process asked to stop when its supervisor is killed (on Linux), so that it is never left alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
