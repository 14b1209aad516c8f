"""The supervisor: restarts with growing pauses, passes SIGTERM on, waits for the drain, leaves no child behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from fanline.settings import Settings
from stack import daemon, status, supervise
from stack.layout import Layout
from stack.supervise import FIRST_PAUSE, LONGEST_PAUSE, LOOP_AFTER, Supervisor, pause_before_restart
from stack.table import processes
from tests.waiting import wait_for

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


@pytest.fixture
def start(state: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(code: str, grace: float = 5) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-u", "-c", code]
        supervise_it = f"from stack.supervise import Supervisor; Supervisor({str(state)!r}, {grace}, {command!r}).run()"
        started.append(subprocess.Popen([sys.executable, "-c", supervise_it], stdout=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def read(state: Path) -> dict[str, Any]:
    return dict(json.loads(state.read_text())) if state.exists() else {}


def child_of(state: Path, restarts: int = 0) -> int:
    """Process id of the running command after so many restarts."""
    return int(wait_for(lambda: read(state).get("restarts") == restarts and read(state).get("pid")))


def test_pauses_double_up_to_a_limit() -> None:
    pauses = [pause_before_restart(failures) for failures in range(1, 40)]
    assert pauses[0] == FIRST_PAUSE
    assert all(later == min(LONGEST_PAUSE, 2 * earlier) for earlier, later in pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE


def test_a_killed_command_is_started_again_and_counted(start: Start, state: Path) -> None:
    start("import time; time.sleep(60)")
    first = child_of(state)
    os.kill(first, signal.SIGKILL)
    second = child_of(state, restarts=1)
    assert second != first
    assert read(state)["last_exit"] == -signal.SIGKILL


def test_sigterm_goes_through_and_the_supervisor_waits_for_the_drain(start: Start, state: Path, tmp_path: Path) -> None:
    drained, ready = tmp_path / "drained", tmp_path / "ready"
    code = (
        "import pathlib, signal, sys, time\n"
        f"def drain(*_): time.sleep(0.5); pathlib.Path({str(drained)!r}).touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, drain)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )
    supervisor = start(code)
    wait_for(ready.exists)
    child = child_of(state)
    supervisor.terminate()
    assert supervisor.wait(timeout=10) == 0
    assert drained.exists()
    assert not psutil.pid_exists(child)


def test_a_command_that_ignores_sigterm_is_killed_after_its_grace(start: Start, state: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )
    supervisor = start(code, grace=0.5)
    wait_for(ready.exists)
    child = child_of(state)
    supervisor.terminate()
    assert supervisor.wait(timeout=10) == 0
    assert not psutil.pid_exists(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_killed_supervisor_takes_its_command_along(start: Start, state: Path) -> None:
    supervisor = start("import time; time.sleep(60)")
    child = psutil.Process(child_of(state))
    supervisor.kill()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_sigterm_during_the_pause_ends_the_supervisor_at_once(start: Start, state: Path) -> None:
    supervisor = start("raise SystemExit(3)")
    wait_for(lambda: read(state).get("state") == "waiting")
    supervisor.terminate()
    assert supervisor.wait(timeout=5) == 0
    assert read(state)["last_exit"] == 3


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pauses of milliseconds, and the signal handlers of the test run put back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(supervise, "LONGEST_PAUSE", 0.002)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def supervised(state: Path, runs: int, script: str) -> list[dict[str, Any]]:
    """What the supervisor of a shell script notes until the script, in its last run, has it stopped."""
    noted: list[dict[str, Any]] = []

    class Watched(Supervisor):
        def _write(self, state: str, pid: int | None, pause: float | None = None) -> None:
            super()._write(state, pid, pause)
            noted.append(read(Path(self.state_path)))

    counted = f"echo >> {state}.runs; [ $(wc -l < {state}.runs) -lt {runs} ] || kill -TERM $PPID; {script}"
    Watched(str(state), 5, ["sh", "-c", counted]).run()
    return noted


def test_a_command_that_ends_again_and_again_is_noted_as_failing_in_a_row(quick: None, state: Path) -> None:
    noted = supervised(state, LOOP_AFTER + 2, "exit 3")
    waiting = [note for note in noted if note["state"] == "waiting"]
    assert [note["failures"] for note in waiting][: LOOP_AFTER + 1] == list(range(1, LOOP_AFTER + 2))
    assert all(note["last_exit"] == 3 and note["next_start"] >= note["last_end"] for note in waiting)
    assert all(note["failures"] == note["restarts"] for note in noted)


def test_a_command_that_has_been_stable_for_long_enough_has_no_failures_any_more(
    quick: None, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "STABLE_AFTER", 0.05)
    noted = supervised(state, 3, "sleep 0.5")
    assert [(note["state"], note["failures"], note["restarts"]) for note in noted[:5]] == [
        ("running", 0, 0),
        ("waiting", 1, 1),
        ("running", 1, 1),
        ("running", 0, 1),
        ("waiting", 1, 2),
    ]


@pytest.mark.parametrize(
    ("failures", "supervisor", "state"),
    [
        (1, "waiting", status.RESTARTING),
        (LOOP_AFTER, "waiting", status.LOOPING),
        (LOOP_AFTER, "running", status.LOOPING),
        (0, "running", status.STARTING),
    ],
)
def test_status_tells_a_crash_loop_and_the_last_that_the_command_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, supervisor: str, state: str
) -> None:
    layout = Layout(Settings(state_dir=tmp_path))
    flow = next(process for process in processes(layout) if process.kind == "dataflow")
    layout.run.mkdir(parents=True)
    layout.log(flow.name).parent.mkdir(parents=True)
    record = {"pid": os.getpid(), "born": daemon.birth(os.getpid()), "boot": daemon.boot()}
    daemon.record_path(layout, flow.name).write_text(json.dumps(record))
    note = {"state": supervisor, "pid": os.getpid(), "restarts": 9, "failures": failures, "last_exit": 1}
    daemon.supervisor_state_path(layout, flow.name).write_text(json.dumps(note))
    layout.log(flow.name).write_text(
        "flow starts\nThe flow cards stops, as it had to reject 50 records in a row.\n"
        "supervisor: ended with code 1, starts again in 4.0 s\nflow starts\n"
    )
    monkeypatch.setattr(status, "answers", lambda _: False)
    found = status.describe(layout, flow)
    assert found["state"] == state
    expected = "The flow cards stops, as it had to reject 50 records in a row." if state == status.LOOPING else None
    assert found.get("reason") == expected
