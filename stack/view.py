"""What the stack's commands show: a live table on a terminal, plain lines elsewhere."""

import os
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from stack.status import CRASHED, LOOPING, RESTARTING, RUNNING, STOPPED
from stack.up import FAILED, READY, STARTING, Progress, Up

COLOURS = {
    READY: "green",
    RUNNING: "green",
    "RUNNING": "green",
    STARTING: "yellow",
    FAILED: "red",
    CRASHED: "red",
    RESTARTING: "red",
    LOOPING: "red",
    "FAILED": "red",
    STOPPED: "dim",
}


def coloured(state: str) -> str:
    """The state in its colour."""
    return f"[{COLOURS[state]}]{state}[/]" if state in COLOURS else state


def progress_table(up: Up) -> Table:
    """The present state of every node of a run of `fanline up`."""
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "state", "seconds", "where"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left")
    for node in up.nodes:
        progress = up.progress[node.name]
        table.add_row(node.name, coloured(progress.state), seconds(progress), progress.note or getattr(node, "url", ""))
    return table


def seconds(progress: Progress) -> str:
    """How long a node took, or is taking, to be ready."""
    if progress.state == STARTING:
        return f"{time.monotonic() - progress.since:.1f}"
    return f"{progress.seconds:.1f}" if progress.state in (READY, FAILED) else ""


class PlainProgress:
    """Prints one line whenever a node changes its state; for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seen: dict[str, str] = {}

    def update(self, up: Up) -> None:
        """Print what changed since the last call."""
        for node in up.nodes:
            progress = up.progress[node.name]
            if progress.state != self.seen.get(node.name, "waiting"):
                self.seen[node.name] = progress.state
                after = f" after {seconds(progress)} s" if progress.state == READY else ""
                self.console.print(f"{node.name}: {progress.state}{after}", highlight=False)


def status_table(status: dict[str, Any]) -> Table:
    """`fanline status` as a table."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "state", "pid", "MiB", "where", "log"):
        table.add_column(heading, justify="right" if heading in ("pid", "MiB") else "left", overflow="fold")
    for part in [*status["servers"], *status["dataflows"], status["api"]]:
        state = coloured(part["state"]) + (f" ({part['restarts']} restarts)" if part.get("restarts") else "")
        size = f"{(part['pss_bytes'] or part['rss_bytes']) / 2**20:.0f}" if part["rss_bytes"] else ""
        log = os.path.relpath(part["log"])
        table.add_row(part["name"], state, str(part["pid"] or ""), size, part["url"], log)
    for connector in status["connectors"]:
        tasks = ", ".join(task["state"].lower() for task in connector["tasks"]) or "none"
        table.add_row(f"connector {connector['name']}", coloured(connector["state"]), "", "", f"tasks: {tasks}", "")
    return table
