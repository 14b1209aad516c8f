"""Detached processes: found again, never confused with another, stopped for certain; busy ports and logs."""

import json
import os
import signal
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from fanline.settings import Settings
from stack import daemon
from stack.layout import Layout
from stack.ports import PortBusy, check_ports, is_free
from stack.table import Probe, Process


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(Settings(state_dir=tmp_path))
    layout.run.mkdir()
    layout.log("x").parent.mkdir()
    return layout


def process(code: str, port: int = 1, stop_seconds: float = 10) -> Process:
    return Process(
        name="thing",
        kind="server",
        command=(sys.executable, "-u", "-c", code),
        probe=Probe("http", "127.0.0.1", port),
        url="",
        ports={"FANLINE_THING_PORT": port},
        stop_stage=0,
        stop_seconds=stop_seconds,
    )


SLEEP = "import time; time.sleep(60)"


def test_a_started_process_is_found_by_another_command_and_stops(layout: Layout) -> None:
    thing = process(SLEEP)
    record = daemon.spawn(thing, layout)
    found = daemon.running(layout, "thing")
    assert found is not None
    assert found.pid == record.pid
    assert os.getsid(record.pid) == record.pid  # a session of its own: Ctrl-C in the terminal does not reach it
    assert daemon.stop(thing, layout)
    assert daemon.running(layout, "thing") is None
    assert daemon.read_record(layout, "thing") is None


def test_a_recycled_process_id_is_not_taken_for_ours_and_is_not_killed(layout: Layout) -> None:
    stale = daemon.Record(os.getpid(), "1", daemon.boot())
    daemon.record_path(layout, "thing").write_text(json.dumps(asdict(stale)))
    assert daemon.running(layout, "thing") is None
    assert daemon.stop(process(SLEEP), layout)  # this very test would not survive otherwise


def test_a_process_from_before_the_machine_was_started_anew_did_not_crash(layout: Layout) -> None:
    old = daemon.Record(os.getpid(), daemon.birth(os.getpid()), "an earlier boot")
    assert old.process() is None
    assert daemon.started_before_boot(old)
    assert not daemon.started_before_boot(daemon.Record(1, "1", daemon.boot()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts from the start of the machine")
def test_a_changed_clock_does_not_make_a_stranger_of_our_process(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = process(SLEEP)
    daemon.spawn(thing, layout)
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
    assert daemon.running(layout, "thing") is not None
    assert daemon.stop(thing, layout)


def test_a_process_that_ignores_its_signal_is_killed_with_its_children(layout: Layout, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(ready)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    thing = process(code, stop_seconds=0.5)
    record = daemon.spawn(thing, layout)
    while not (ready.exists() and ready.read_text()):
        assert psutil.pid_exists(record.pid)
    child = psutil.Process(int(ready.read_text()))
    assert not daemon.stop(thing, layout)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert daemon.running(layout, "thing") is None


def test_the_stop_signal_is_the_one_of_the_table(layout: Layout, tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); print('up'); time.sleep(60)"
    thing = process(code)
    gentle = Process(**{**thing.__dict__, "stop_signal": signal.SIGINT})
    daemon.spawn(gentle, layout)
    while daemon.last_lines(layout.log("thing")) != ["up"]:
        assert daemon.running(layout, "thing")
    assert daemon.stop(gentle, layout)


def test_the_last_lines_of_a_log_are_given_without_empty_ones(layout: Layout) -> None:
    log = layout.log("thing")
    assert daemon.last_lines(log) == []
    log.write_text("".join(f"line {number}\n\n" for number in range(5000)))
    assert daemon.last_lines(log, 2) == ["line 4998", "line 4999"]


def test_java_stack_frames_do_not_hide_what_happened(layout: Layout) -> None:
    frames = "".join(f"\tat a.b.C.method{number}(C.java:1)\n" for number in range(20))
    layout.log("thing").write_text(f"BindException: in use\n{frames}\t... 4 more\n")
    assert daemon.last_lines(layout.log("thing")) == ["BindException: in use"]


def test_of_a_logged_traceback_the_last_line_is_shown(layout: Layout) -> None:
    exception = "Traceback (most recent call last):\n  File x\nBrokenThing: it broke"
    layout.log("thing").write_text(
        json.dumps({"event": "uncaught exception", "exception": exception}) + "\n" + "y" * 900
    )
    assert daemon.last_lines(layout.log("thing")) == [
        "uncaught exception: BrokenThing: it broke",
        "y" * daemon.LINE_LIMIT,
    ]


def test_a_long_log_is_set_aside_at_the_next_start(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "LOG_LIMIT", 10)
    layout.log("thing").write_text("x" * 11)
    thing = process("pass")
    daemon.spawn(thing, layout)
    daemon.stop(thing, layout)
    assert layout.log("thing").with_suffix(".log.1").read_text() == "x" * 11
    assert layout.log("thing").stat().st_size == 0


def test_a_busy_port_is_named_with_its_owner_and_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        owner = rf"port {port} is in use by .*\(process {os.getpid()}\).*FANLINE_THING_PORT"
        with pytest.raises(PortBusy, match=owner):
            check_ports(process(SLEEP, port))
    check_ports(process(SLEEP, port))
