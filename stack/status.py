"""`fanline status`: what runs, where, and how it does."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import requests

from stack import daemon
from stack.layout import Layout
from stack.probe import TIMEOUT, answers
from stack.supervise import LOOP_AFTER, SAYS
from stack.table import Process, processes

RUNNING, STARTING, CRASHED, RESTARTING, STOPPED = "running", "not answering", "crashed", "restarting", "stopped"
LOOPING = "crash-looping"


def collect(layout: Layout) -> dict[str, Any]:
    """State of every server, connector, dataflow and the API; the shape that `fanline status --json` prints."""
    table = processes(layout)
    with ThreadPoolExecutor(len(table) + 1) as pool:
        connectors = pool.submit(connector_states, layout)
        entries = list(pool.map(lambda process: describe(layout, process), table))
    by_kind: dict[str, list[dict[str, Any]]] = {"server": [], "dataflow": [], "api": []}
    for process, entry in zip(table, entries, strict=True):
        by_kind[process.kind].append(entry)
    return {
        "servers": by_kind["server"],
        "connectors": connectors.result(),
        "dataflows": by_kind["dataflow"],
        "api": by_kind["api"][0],
        "state_dir": str(layout.state),
        "rss_bytes": sum(entry["rss_bytes"] for entry in entries),
        "pss_bytes": sum(entry["pss_bytes"] or 0 for entry in entries),
    }


def describe(layout: Layout, process: Process) -> dict[str, Any]:
    """One process: name, state, url, host, port, pid, memory, log.

    Of one that crashed the last lines of its log as well, and of one that its supervisor starts again and again
    (`crash-looping`, also while it runs for a moment) the `reason`: the last that it said.
    """
    record = daemon.read_record(layout, process.name)
    found = record.process() if record else None
    supervisor = supervisor_state(layout, process)
    entry: dict[str, Any] = {
        "name": process.name,
        "state": STOPPED,
        "url": process.url,
        "host": process.probe.host,
        "port": process.probe.port,
        "pid": None,
        "rss_bytes": 0,
        "pss_bytes": 0,
        "log": str(layout.log(process.name)),
    }
    if process.kind == "dataflow":
        entry |= {"metrics_url": process.url, "flow": process.flow, "instance": process.instance}
    if found is not None:
        entry["pid"] = supervisor.get("pid") if process.supervised else found.pid
        entry["rss_bytes"], entry["pss_bytes"] = daemon.memory(found)
        entry["uptime_seconds"] = round(daemon.age(found), 1)
        entry["state"] = RUNNING if answers(process.probe) else STARTING
        if process.supervised:
            entry["supervisor_pid"] = found.pid
            entry["restarts"] = supervisor.get("restarts", 0)
            if entry["restarts"]:
                entry["last_exit"] = supervisor.get("last_exit")
            if supervisor.get("failures", 0) >= LOOP_AFTER:
                entry["state"], entry["reason"] = LOOPING, reason(Path(entry["log"]))
            elif supervisor.get("state") == "waiting":
                entry["state"] = RESTARTING
    elif record is not None and not daemon.started_before_boot(record):
        entry["state"] = CRASHED
    if entry["state"] in (CRASHED, RESTARTING, LOOPING):
        entry["last_lines"] = daemon.last_lines(Path(entry["log"]))
    return entry


def reason(log: Path) -> str:
    """The last that a supervised process said before its supervisor noted that it had ended; empty when nothing."""
    lines = daemon.last_lines(log, 200)
    ends = [number for number, line in enumerate(lines) if line.startswith(SAYS)]
    said = [line for line in lines[: ends[-1] if ends else len(lines)] if not line.startswith(SAYS)]
    return said[-1] if said else ""


def supervisor_state(layout: Layout, process: Process) -> dict[str, Any]:
    """What the supervisor of `process` wrote last; empty when it has none."""
    if not process.supervised:
        return {}
    try:
        state: dict[str, Any] = json.loads(daemon.supervisor_state_path(layout, process.name).read_text())
    except FileNotFoundError:
        return {}
    pid = state.get("pid")
    return state | {"pid": pid if isinstance(pid, int) and psutil.pid_exists(pid) else None}


def connector_states(layout: Layout) -> list[dict[str, Any]]:
    """Connectors as Kafka Connect reports them; none when it does not answer."""
    settings = layout.settings
    url = f"http://{settings.host}:{settings.connect_port}/connectors?expand=status"
    try:
        reply = requests.get(url, timeout=TIMEOUT)
        reply.raise_for_status()
    except requests.RequestException:
        return []
    return [
        {
            "name": name,
            "state": connector["status"]["connector"]["state"],
            "tasks": [{"id": task["id"], "state": task["state"]} for task in connector["status"]["tasks"]],
        }
        for name, connector in sorted(reply.json().items())
    ]


def is_well(status: dict[str, Any]) -> bool:
    """Whether everything in `status` runs."""
    parts = [*status["servers"], *status["dataflows"], status["api"]]
    tasks = [task for connector in status["connectors"] for task in (connector, *connector["tasks"])]
    return all(part["state"] == RUNNING for part in parts) and all(task["state"] == "RUNNING" for task in tasks)
