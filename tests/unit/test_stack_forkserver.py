"""The fork server: its copies are processes like any other, with a supervisor, a session, a log and a name."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fanline.settings import Settings
from stack import daemon
from stack.forkserver import NICENESS, PRELOADED, ForkServer, ForkServerEnded
from stack.layout import Layout
from stack.status import supervisor_state
from stack.table import Probe, Process
from tests.waiting import wait_for

# A module of this name is put on the path of the server; it says who it is and does what it is told.
MODULE = """
import os, signal, sys, time

if __name__ == "__main__":
    print("main", sys.argv[1:], os.environ["GIVEN"], "INHERITED" in os.environ, "signal" in sys.modules, flush=True)
    if sys.argv[1] == "fail":
        sys.exit("it cannot be")
    signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), sys.exit(0)))
    time.sleep(60)
else:
    print("imported", flush=True, file=sys.stderr)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(Settings(state_dir=tmp_path))
    layout.run.mkdir()
    layout.log("x").parent.mkdir()
    (tmp_path / "told.py").write_text(MODULE)
    return layout


@pytest.fixture
def forks(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("INHERITED", "by the server")
    server = ForkServer(layout.log("forkserver"), dict(os.environ), ["told", "missing"])
    monkeypatch.delenv("INHERITED")
    yield server
    server.close()


def told(*arguments: str) -> Process:
    return Process(
        name="told",
        kind="dataflow",
        command=(sys.executable, "-m", "told", *arguments),
        probe=Probe("http", "127.0.0.1", 1),
        url="",
        ports={},
        stop_stage=0,
        environment={"GIVEN": "to it"},
        supervised=True,
        stop_seconds=10,
    )


def started(process: Process, layout: Layout, forks: ForkServer) -> tuple[psutil.Process, psutil.Process]:
    """The supervisor and the command of a process that is started now."""
    record = daemon.spawn_supervised(process, layout, forks)
    supervisor = record.process()
    assert supervisor is not None
    return supervisor, psutil.Process(wait_for(lambda: supervisor_state(layout, process).get("pid")))


def test_a_copy_runs_its_module_as_main_with_its_arguments_environment_name_and_log(
    layout: Layout, forks: ForkServer
) -> None:
    process = told("stay", "here")
    supervisor, command = started(process, layout, forks)
    try:
        said = wait_for(layout.log("told").read_text)
        assert said == "main ['stay', 'here'] to it False True\n"
        assert " ".join(command.cmdline()).strip() == " ".join(process.command)
        assert f"stack.supervise {daemon.supervisor_state_path(layout, 'told')}" in " ".join(supervisor.cmdline())
        assert os.getsid(command.pid) == supervisor.pid == os.getsid(supervisor.pid)
        assert "imported" in layout.log("forkserver").read_text()
    finally:
        assert daemon.stop(process, layout)
    assert layout.log("told").read_text().endswith("drained\n")
    assert not command.is_running()


def test_what_was_started_outlives_the_server(layout: Layout, forks: ForkServer) -> None:
    process = told("stay")
    supervisor, command = started(process, layout, forks)
    wait_for(layout.log("told").read_text)
    forks.close()
    assert supervisor.is_running()
    assert command.is_running()
    assert daemon.stop(process, layout)


def test_a_copy_that_ends_is_started_anew_by_its_supervisor(layout: Layout, forks: ForkServer) -> None:
    process = told("fail")
    started(process, layout, forks)
    try:
        wait_for(lambda: supervisor_state(layout, process).get("restarts", 0) >= 2)
        assert supervisor_state(layout, process)["last_exit"] == 1
        assert layout.log("told").read_text().count("it cannot be\n") >= 2
    finally:
        assert daemon.stop(process, layout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_killed_supervisor_takes_its_copy_along(layout: Layout, forks: ForkServer) -> None:
    process = told("stay")
    supervisor, command = started(process, layout, forks)
    wait_for(layout.log("told").read_text)
    supervisor.kill()
    wait_for(lambda: not command.is_running() or command.status() == psutil.STATUS_ZOMBIE)
    assert layout.log("told").read_text().endswith("drained\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares the processor out by session")
def test_what_nobody_waits_for_gives_way_with_its_session_and_the_others_do_not(
    layout: Layout, forks: ForkServer
) -> None:
    for process, niceness in ((told("stay"), 0), (replace(told("stay"), gives_way=True), NICENESS)):
        supervisor, command = started(process, layout, forks)
        try:
            for member in (supervisor, command):
                assert os.getpriority(os.PRIO_PROCESS, member.pid) == niceness
            autogroup = Path(f"/proc/{command.pid}/autogroup")
            if autogroup.exists():
                assert autogroup.read_text().split()[-1] == str(niceness)
        finally:
            daemon.stop(process, layout)


def test_a_server_that_has_ended_says_so(layout: Layout, forks: ForkServer) -> None:
    forks._server.send_signal(signal.SIGKILL)
    forks._server.wait()
    with pytest.raises(ForkServerEnded, match=str(layout.log("forkserver"))):
        daemon.spawn_supervised(told("stay"), layout, forks)


def test_what_is_preloaded_starts_no_thread_and_reads_no_settings() -> None:
    code = (
        f"import {', '.join(PRELOADED)}, psutil, fanline.settings\n"
        "print(psutil.Process().num_threads(), fanline.settings.get_settings.cache_info().currsize)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "1 0\n"
