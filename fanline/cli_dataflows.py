"""`fanline dataflows`: the dataflows of the local stack, and how many instances of each run."""

import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from connectors import flow_metrics, recovery
from connectors.applied import AppliedOffsets
from connectors.backlog import Backlog
from connectors.flows import EVERY_FLOW
from fanline.errors import ConfigurationError, DependencyUnavailable
from fanline.settings import get_settings
from stack import daemon
from stack.cli import bring_up
from stack.down import stop_all
from stack.instances import instances, set_instances
from stack.layout import Layout
from stack.lock import exclusive
from stack.status import describe
from stack.table import Process, processes
from stack.view import coloured

NAMES = click.argument("flows", nargs=-1, type=click.Choice(list(EVERY_FLOW)))


@click.group()
def dataflows() -> None:
    """List, start, stop, restart and scale the dataflows of the local stack."""


@dataflows.command(name="list")
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Measure rates so long."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_flows(seconds: float, as_json: bool) -> None:
    """Show each instance's state, restarts, records a second, lag, memory, what it waits for and why it loops."""
    layout = Layout(get_settings())
    chosen = of_flows(layout, ())
    before = {process.name: flow_metrics.read(process.url) for process in chosen}
    time.sleep(seconds)
    entries = [entry(layout, process, before[process.name]) for process in chosen]
    behind = flows_behind()
    for each in entries:
        each["behind_records"], each["lag_seconds"] = behind.get(each["flow"], (None, None))
    if as_json:
        click.echo(json.dumps({"dataflows": entries}, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table(entries))
    for each in entries:
        if each["reason"]:
            console.print(f"{each['name']}: {each['reason']}", markup=False, highlight=False, soft_wrap=True)


@dataflows.command()
@NAMES
def start(flows: tuple[str, ...]) -> None:
    """Start EVERY_FLOW (all unless named) where they do not run, and wait until they answer."""
    layout = Layout(get_settings())
    with exclusive(layout):
        bring_up(layout, of_flows(layout, flows), Console())


@dataflows.command()
@NAMES
def stop(flows: tuple[str, ...]) -> None:
    """Stop EVERY_FLOW (all unless named); what they have read they finish first."""
    layout = Layout(get_settings())
    with exclusive(layout):
        stop_instances(layout, of_flows(layout, flows))


@dataflows.command()
@NAMES
def restart(flows: tuple[str, ...]) -> None:
    """Stop EVERY_FLOW (all unless named) and start them."""
    layout = Layout(get_settings())
    chosen = of_flows(layout, flows)
    with exclusive(layout):
        stop_instances(layout, chosen)
        bring_up(layout, chosen, Console())


@dataflows.command()
@click.argument("flow", type=click.Choice(list(EVERY_FLOW)))
@click.argument("number", type=click.IntRange(min=1))
def scale(flow: str, number: int) -> None:
    """Run NUMBER instances of FLOW, each with its share of the partitions; all stop before the first new one starts.

    Every record is read by exactly one instance, from where the flow had applied it.
    """
    settings = get_settings()
    layout = Layout(settings)
    most = partitions_of(flow)
    if number > most:
        raise ConfigurationError(
            f"{flow} can have {most} instance{'s' * (most > 1)} at most: its topics have {most} partitions, and an "
            "instance without any would do nothing."
        )
    with exclusive(layout):
        before = of_flows(layout, (flow,))
        if len(before) == number:
            click.echo(f"{flow} has {number} instance{'s' * (number > 1)} already.")
            return
        ran = any(daemon.running(layout, process.name) for process in before)
        stop_instances(layout, before)
        # Positions in the stores are those of other shares; the group's offsets say what is applied.
        with recovery.all_held(flow, settings) as stores:
            for store in stores:
                recovery.forget(store)
        set_instances(layout, flow, number)
        if ran:
            bring_up(layout, of_flows(layout, (flow,)), Console())
    click.echo(f"{flow} has {number} instance{'s' * (number > 1)} now{'' if ran else ', to be started'}.")


def of_flows(layout: Layout, flows: Sequence[str]) -> list[Process]:
    """The processes of the named flows, of all without names."""
    wanted = set(flows) or set(EVERY_FLOW)
    return [process for process in processes(layout) if process.flow in wanted]


def stop_instances(layout: Layout, chosen: Sequence[Process]) -> None:
    """Stop processes and say so; what had to be killed reads its last records again."""
    console = Console()
    killed = stop_all(layout, chosen, lambda name, state: console.print(f"{name}: {state}", highlight=False))
    if killed:
        console.print(f"did not stop in time and will read their last records again: {', '.join(killed)}")


def partitions_of(flow: str) -> int:
    """How many instances of a flow have something to read."""
    found = AppliedOffsets(get_settings(), "fanline-dataflows").partitions(EVERY_FLOW[flow])
    return max((partition + 1 for _, partition in found), default=get_settings().kafka_partitions)


def flows_behind() -> dict[str, tuple[int, float]]:
    """What each flow has not applied, and the age in seconds of its oldest record; empty when Kafka does not answer."""
    backlog = Backlog(get_settings())
    found: dict[str, tuple[int, float]] = {}
    with contextlib.suppress(DependencyUnavailable), contextlib.closing(backlog):
        for each in backlog.measure():
            records, seconds = found.get(each.flow, (0, 0.0))
            found[each.flow] = records + each.records, round(max(seconds, each.seconds), 1)
    return found


def entry(layout: Layout, process: Process, before: flow_metrics.FlowFigures | None) -> dict[str, Any]:
    """One instance, measured since an earlier reading."""
    found = describe(layout, process)
    now = flow_metrics.read(process.url) if found["pid"] else None
    chosen = instances(layout).get(process.flow, 1)
    return {
        "name": process.name,
        "flow": process.flow,
        "instance": process.instance,
        "instances": chosen,
        "state": found["state"],
        "reason": found.get("reason", ""),
        "pid": found["pid"],
        "restarts": found.get("restarts", 0),
        "records_per_second": round(now.rate(before), 1) if now else None,
        "rss_bytes": found["rss_bytes"],
        "waits_for": now.waits_for if now else {},
        "metrics_url": process.url,
    }


def table(entries: Sequence[dict[str, Any]]) -> Table:
    """The entries, a line an instance."""
    made = Table(box=None, pad_edge=False)
    for heading in ("dataflow", "state", "of", "pid", "restarts", "records/s", "lag s", "behind", "MiB", "waits for"):
        made.add_column(heading, justify="left" if heading in ("dataflow", "state", "waits for") else "right")
    for each in entries:
        numbers = (each["records_per_second"], each["lag_seconds"], each["behind_records"])
        made.add_row(
            each["name"],
            coloured(each["state"]),
            f"{each['instance'] + 1}/{each['instances']}",
            str(each["pid"] or ""),
            str(each["restarts"]),
            *("" if number is None else f"{number:,}" for number in numbers),
            f"{each['rss_bytes'] / 2**20:.0f}" if each["rss_bytes"] else "",
            ", ".join(f"{dependency}, {seconds:.0f} s" for dependency, seconds in each["waits_for"].items()),
        )
    return made
