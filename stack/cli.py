"""The commands `fanline up`, `down` and `status`."""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from fanline.errors import ConfigurationError
from fanline.settings import get_settings
from stack import status as stack_status
from stack.down import stop_all
from stack.download import ensure_downloaded, is_downloaded
from stack.layout import Layout
from stack.lock import exclusive
from stack.next_steps import next_steps
from stack.table import Node, closure, nodes, processes
from stack.up import Cancelled, Up
from stack.view import PlainProgress, progress_table, status_table


@click.command()
@click.option("--only", default="", help="Comma-separated parts to start, with what they need: servers, or names.")
@click.option("--without-servers", is_flag=True, help="The servers run elsewhere, for example in Docker.")
def up(only: str, without_servers: bool) -> None:
    """Start what is not running and wait until all answers."""
    layout, console, began = Layout(get_settings()), Console(), time.monotonic()
    chosen = selection(nodes(layout), only)
    if without_servers:
        chosen = [node for node in chosen if getattr(node, "kind", "") != "server"]
    with exclusive(layout):
        bring_up(layout, chosen, console)
    if not only:
        console.print(next_steps(chosen), highlight=False, markup=False, soft_wrap=True)
    console.print(f"ready after {time.monotonic() - began:.1f} s", highlight=False)


def bring_up(layout: Layout, chosen: Sequence[Node], console: Console) -> None:
    """Start what does not run of the chosen parts, showing how far it is; raises why one did not come up.

    The caller holds the stack. Interrupted, it stops what it has started and raises `Cancelled`.
    """
    run = Up(layout, chosen)
    with cancelling(run):
        try:
            download(layout, run, console)
            watch(run, console)
            run.result()
            run.close()
        except BaseException:
            if run.cancelled.is_set():
                console.print("stopping what was started")
                run.undo()
                raise Cancelled("Interrupted: everything that this command started is stopped again.") from None
            run.end()
            raise


def selection(all_nodes: Sequence[Node], only: str) -> Sequence[Node]:
    """The nodes that `--only` asks for, all without it."""
    if not only:
        return all_nodes
    servers = [node.name for node in all_nodes if getattr(node, "kind", "") == "server"]
    names = [name for part in only.split(",") for name in (servers if part == "servers" else [part.strip()])]
    try:
        return closure(all_nodes, names)
    except KeyError as error:
        known = ", ".join(node.name for node in all_nodes)
        raise ConfigurationError(f"There is no part {error.args[0]!r}; there are: servers, {known}.") from None


@contextmanager
def cancelling(run: Up) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM cancel `run` at its next look, instead of breaking it off anywhere.

    Once all is ready they are ignored: the command only says so and ends, and there is nothing left to take back.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: run.cancelled.set()) for number in numbers}
    after: dict[signal.Signals, Any] = dict.fromkeys(numbers, signal.SIG_IGN)
    try:
        yield
    except BaseException:
        after = before
        raise
    finally:
        for number, handler in after.items():
            signal.signal(number, handler)


def download(layout: Layout, run: Up, console: Console) -> None:
    """Get the servers, showing how far it is."""
    if is_downloaded(layout) or not any(getattr(node, "kind", "") == "server" for node in run.nodes):
        return
    if console.is_terminal:
        with console.status("downloading the servers") as line:
            ensure_downloaded(
                layout, lambda text: line.update(f"downloading the servers: {escape(text)}"), run.cancelled
            )
    else:
        console.print("downloading the servers")
        ensure_downloaded(layout, lambda text: None, run.cancelled)


def watch(run: Up, console: Console) -> None:
    """Show a run until it has finished; raises `KeyboardInterrupt` once it is cancelled."""
    run.begin()
    plain = PlainProgress(console)
    with (
        Live(progress_table(run), console=console, refresh_per_second=8) if console.is_terminal else _nothing() as live
    ):
        while not run.finished and run.error is None:
            if run.cancelled.is_set():
                raise KeyboardInterrupt
            run.check_alive()
            if live is None:
                plain.update(run)
            else:
                live.update(progress_table(run))
            time.sleep(0.1)
        if live is None:
            plain.update(run)
        else:
            live.update(progress_table(run))
    if run.cancelled.is_set():
        raise KeyboardInterrupt


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@click.command()
@click.option("--only", default="", help="Comma-separated names of the parts to stop; all without it.")
def down(only: str) -> None:
    """Stop what runs, in an order that loses nothing."""
    layout, console = Layout(get_settings()), Console()
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    chosen = [process for process in processes(layout) if not wanted or process.name in wanted]
    if unknown := wanted - {process.name for process in chosen}:
        raise ConfigurationError(f"There is no process {', '.join(sorted(unknown))}.")
    with exclusive(layout):
        killed = stop_all(layout, chosen, lambda name, state: console.print(f"{name}: {state}", highlight=False))
    if killed:
        console.print(f"killed, because they did not stop in time: {', '.join(killed)}", highlight=False)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Show what runs, where, with its memory and its log; exit 1 unless everything is well."""
    report = stack_status.collect(Layout(get_settings()))
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 200  # one line a part, whatever the reader's width
        console.print(status_table(report))
        for part in [*report["servers"], *report["dataflows"], report["api"]]:
            if part.get("last_lines"):
                console.print(f"\n{part['name']} {part['state']}; its log ends with:", highlight=False)
                for line in part["last_lines"]:
                    console.print(f"  {line}", markup=False, highlight=False)
    raise SystemExit(0 if stack_status.is_well(report) else 1)
