"""`fanline down`: stops the stack in the order that loses nothing, each part within its time, then killed."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from stack import daemon
from stack.layout import Layout
from stack.table import Process

Report = Callable[[str, str], None]


def stop_all(layout: Layout, processes: Sequence[Process], report: Report = lambda name, state: None) -> list[str]:
    """Stop those of `processes` that run, stage by stage; returns the names of those that had to be killed.

    `report` gets the name and the new state of each that ran.
    """
    killed: list[str] = []
    ordered = sorted(processes, key=lambda process: process.stop_stage)
    for _, stage in groupby(ordered, key=lambda process: process.stop_stage):
        members = list(stage)
        with ThreadPoolExecutor(len(members)) as pool:
            for process, willing in zip(members, pool.map(lambda p: _stop(layout, p, report), members), strict=True):
                if not willing:
                    killed.append(process.name)
    return killed


def _stop(layout: Layout, process: Process, report: Report) -> bool:
    found = daemon.running(layout, process.name)
    if found is not None:
        archive = ", and writing its archive for faster starts" if daemon.writes_archive(found) else ""
        report(process.name, f"stopping{archive}")
    willing = daemon.stop(process, layout)
    if found is not None:
        report(process.name, "stopped" if willing else "killed")
    return willing
