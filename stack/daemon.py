"""Detached processes and their records: started, found again by another command, and stopped.

A record holds beside the process's id when it started, in a form that a changed clock does not change, so that an id
which the system gave to somebody else since is never taken for ours, and ours is never taken for somebody else.
"""

import contextlib
import json
import os
import re
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from stack.forkserver import ForkServer
from stack.layout import Layout
from stack.prepare import postgres_runner
from stack.table import Process

# Held for as long as this process lives: a dropped Popen complains that its child still runs.
_children_of_ours: list[subprocess.Popen[bytes]] = []

ARCHIVE_SECONDS = 180.0  # how long a JVM may take to end when it writes its archive: once, and 5 s on a quiet machine
LINE_LIMIT = 400  # characters
LOG_LIMIT = 20_000_000  # bytes; a longer log is set aside when its process starts


@dataclass(frozen=True)
class Record:
    """A process that was started: its id, when it started (see `birth`) and in which run of the machine."""

    pid: int
    born: str
    boot: str

    def process(self) -> psutil.Process | None:
        """The process if it still runs."""
        try:
            found = psutil.Process(self.pid)
            if self.boot != boot() or self.born != birth(self.pid) or found.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            return None
        return found


def birth(pid: int) -> str:
    """When a process started: on Linux in clock ticks since the machine did, elsewhere in Unix seconds.

    Raises psutil.NoSuchProcess.
    """
    try:
        # Fields after the command, which stands in parentheses and may hold anything; the start is the 22nd of all.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return f"{psutil.Process(pid).create_time():.0f}"


def boot() -> str:
    """Which run of the machine this is; another after each start of it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return f"{psutil.boot_time():.0f}"


def record_path(layout: Layout, name: str) -> Path:
    """File of the record of the process `name`."""
    return layout.run / f"{name}.pid.json"


def supervisor_state_path(layout: Layout, name: str) -> Path:
    """File in which the supervisor of `name` says what it does; see stack.supervise."""
    return layout.run / f"{name}.supervisor.json"


def read_record(layout: Layout, name: str) -> Record | None:
    """The record of `name`, whether it runs or not; None when it was never started or was stopped properly."""
    try:
        return Record(**json.loads(record_path(layout, name).read_text()))
    except FileNotFoundError:
        return None


def running(layout: Layout, name: str) -> psutil.Process | None:
    """The process `name` of this stack if it runs."""
    record = read_record(layout, name)
    return record.process() if record else None


def spawn(process: Process, layout: Layout) -> Record:
    """Start a server in a session of its own, its output in its log, and record it."""
    command, user = _command(process, layout)
    with _log(process, layout).open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(layout) | process.environment,
            user=user,
            extra_groups=None if user is None else [],
        )
    _children_of_ours.append(child)
    return _record(process, layout, child.pid)


def spawn_supervised(process: Process, layout: Layout, forks: ForkServer) -> Record:
    """Start a dataflow or the API with its supervisor, in a session of their own, and record the supervisor."""
    state = supervisor_state_path(layout, process.name)
    state.unlink(missing_ok=True)
    pid = forks.start(
        process.command,
        state=state,
        grace=process.stop_seconds - 5,
        log=_log(process, layout),
        environment=environment(layout) | process.environment,
        gives_way=process.gives_way,
    )
    return _record(process, layout, pid)


def _log(process: Process, layout: Layout) -> Path:
    log = layout.log(process.name)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    return log


def _record(process: Process, layout: Layout, pid: int) -> Record:
    record = Record(pid, birth(pid), boot())
    path = record_path(layout, process.name)
    path.with_suffix(".new").write_text(json.dumps(asdict(record)))
    path.with_suffix(".new").replace(path)
    return record


def _command(process: Process, layout: Layout) -> tuple[list[str], str | None]:
    command, user = list(process.command), None
    if process.unprivileged:
        runner = postgres_runner(layout)
        moved = {str(layout.data(process.name)): str(runner.data)}
        program = runner.programs / Path(command[0]).relative_to(layout.postgres)
        command = [*runner.prefix, str(program), *(moved.get(part, part) for part in command[1:])]
        user = runner.user
    return [_archive_option(part) for part in command], user


def _archive_option(part: str) -> str:
    """Use a JVM archive that is there, else have it written when the JVM ends."""
    option, _, path = part.partition("=")
    return f"-XX:AOTCacheOutput={path}" if option == "-XX:AOTCache" and not Path(path).exists() else part


def environment(layout: Layout) -> dict[str, str]:
    """What every process of the stack finds in its environment."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
    }
    return inherited | {"FANLINE_STATE_DIR": str(layout.state), "FANLINE_SERVERS_DIR": str(layout.servers.parent)}


def stop(process: Process, layout: Layout) -> bool:
    """Ask `process` to stop, wait `stop_seconds`, then kill it with its children. True when it went by itself."""
    found = running(layout, process.name)
    willing = True
    if found is not None:
        patience = ARCHIVE_SECONDS if writes_archive(found) else process.stop_seconds
        family = [found, *_children(found)]
        found.send_signal(process.stop_signal)
        _, left = psutil.wait_procs(family, timeout=patience)
        willing = not left
        left = list({*left, *(child for straggler in left for child in _children(straggler))})
        for straggler in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                straggler.kill()
        psutil.wait_procs(left, timeout=5)
    # An end that nobody has asked a child for makes Python complain of it at its own end.
    _children_of_ours[:] = [child for child in _children_of_ours if child.poll() is None]
    record_path(layout, process.name).unlink(missing_ok=True)
    supervisor_state_path(layout, process.name).unlink(missing_ok=True)
    return willing


def writes_archive(process: psutil.Process) -> bool:
    """Whether this JVM, started without an archive, will write one when it ends."""
    try:
        return any(word.startswith("-XX:AOTCacheOutput=") for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def memory(process: psutil.Process) -> tuple[int, int | None]:
    """Bytes of `process` with its children: resident, and proportional (None where the system does not tell)."""
    resident, proportional = 0, 0
    known = True
    for member in [process, *_children(process)]:
        try:
            resident += member.memory_info().rss
            full = member.memory_full_info()
            known = known and hasattr(full, "pss")
            proportional += getattr(full, "pss", 0)
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            known = False
    return resident, proportional if known else None


def last_lines(path: Path, count: int = 8) -> list[str]:
    """The last lines of a log that say something: not empty, no frame of a Java stack trace; none without a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65_536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    frame = re.compile(r"\s+(at |\.\.\. \d+ (more|common frames))")
    lines = [line for line in text.splitlines() if line.strip() and not frame.match(line)][-count:]
    return [_readable(line) for line in lines]


def _readable(line: str) -> str:
    """A line of a log, cut to `LINE_LIMIT`; of a JSON line with a traceback, what happened and not where."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line[:LINE_LIMIT]
    if not isinstance(entry, dict) or not entry.get("exception"):
        return line[:LINE_LIMIT]
    return f"{entry.get('event')}: {str(entry['exception']).strip().splitlines()[-1]}"[:LINE_LIMIT]


def started_before_boot(record: Record) -> bool:
    """Whether the machine was started anew since: such a process did not crash."""
    return record.boot != boot()


def age(process: psutil.Process) -> float:
    """Seconds since the process started."""
    return time.time() - process.create_time()
