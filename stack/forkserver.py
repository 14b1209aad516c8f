"""Starts supervised Python processes as copies of one that has imported already what they all import.

Fifteen processes that start together would each import the same modules for most of a second, on the cores that the
servers start on. `ForkServer` is the side that asks; `python -m stack.forkserver MODULE...` is the side that imports
the modules, reads one JSON object a line (see `ForkServer.start`), and answers with the id of the copy.

A copy is a supervisor (stack/supervise.py) in a session of its own, with the command as its child. What it starts again
later it starts anew, with the code that is then on the disk.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from fanline.errors import FanlineError
from stack.supervise import Forked, Supervisor, end_with_parent

# What most of them import. Not pyarrow, and what imports it: it starts threads, which a copy would not have.
PRELOADED = ("dataflows.run", "dataflows.timelines", "api.cli")
NICENESS = 10  # of 19: a tenth of an ordinary process's share while others want the processor, all of it otherwise


class ForkServerEnded(FanlineError):
    """The process that starts the others has ended by itself."""


class ForkServer:
    """A fork server as a child of this process; it ends with `close`, or with this process. Threads may share it."""

    def __init__(self, log: Path, environment: dict[str, str], modules: Sequence[str] = PRELOADED) -> None:
        self._log, self._lock = log, threading.Lock()
        with log.open("ab") as output:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "stack.forkserver", *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                env=environment,
                text=True,
            )

    def start(
        self,
        command: Sequence[str],
        *,
        state: Path,
        grace: float,
        log: Path,
        environment: dict[str, str],
        gives_way: bool = False,
    ) -> int:
        """Start a supervisor of `command`, which is `PYTHON -m MODULE ARGUMENT...`; returns the supervisor's id.

        `state` and `grace` (seconds) are the supervisor's; both write to `log`. With `gives_way` the others have the
        processor first. Raises `ForkServerEnded`.
        """
        request = {
            "command": list(command),
            "state": str(state),
            "grace": grace,
            "log": str(log),
            "environment": environment,
            "gives_way": gives_way,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._lock:
            with contextlib.suppress(BrokenPipeError):
                self._server.stdin.write(json.dumps(request) + "\n")
                self._server.stdin.flush()
            answer = self._server.stdout.readline()
        if not answer:
            raise ForkServerEnded(f"The process that starts dataflows and the API has ended; its log is {self._log}.")
        return int(answer)

    def close(self) -> None:
        """End the server; what it has started goes on."""
        with contextlib.suppress(BrokenPipeError):
            self._server.communicate()


def serve(modules: Sequence[str]) -> None:
    """Import `modules`, then start what standard input asks for; returns when it ends, and in each copy at its end."""
    gc.disable()  # a collection would write to pages that the copies share
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001  whatever needs it says so in its own log, and is started again
            print(f"{module} is not preloaded: {error!r}", file=sys.stderr)  # noqa: T201
    gc.freeze()
    setproctitle(f"{sys.executable} -m stack.forkserver")  # the copies can have names only if this was called before
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # copies that end are gone at once
    for line in iter(sys.stdin.readline, ""):
        copy = os.fork()
        if copy == 0:
            _supervise(json.loads(line))
            return
        print(copy, flush=True)  # noqa: T201


def _supervise(request: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    _redirect(request["log"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["gives_way"]:
        _lower_priority()
    gc.enable()
    command = request["command"]
    child = os.fork()
    if child == 0:
        end_with_parent()
        setproctitle(" ".join(command))
        _become(command)
        return
    setproctitle(" ".join([command[0], "-m", "stack.supervise", request["state"], *command]))
    Supervisor(request["state"], request["grace"], command, Forked(child)).run()


def _redirect(log: str) -> None:
    with open(os.devnull, "rb") as null, open(log, "ab") as output:
        os.dup2(null.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)


def _become(command: Sequence[str]) -> None:
    """Run `PYTHON -m MODULE ARGUMENT...` here."""
    module = command[2]
    sys.argv[1:] = command[3:]
    sys.modules.pop(module, None)  # it runs as __main__; the copy that was imported is nobody's
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _lower_priority() -> None:
    """Let this session have the processor after the others.

    Linux shares the processor out by session first (sched(7), autogroup), and looks at niceness within one only.
    """
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with contextlib.suppress(OSError):  # there is no such file
        Path("/proc/self/autogroup").write_text(str(NICENESS))


if __name__ == "__main__":
    serve(sys.argv[1:])
