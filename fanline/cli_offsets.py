"""`fanline offsets`: where a flow is in its topics, what its recovery store holds, and moving it."""

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from connectors import moves, recovery
from connectors.flows import EVERY_FLOW
from fanline.errors import ConfigurationError
from fanline.settings import Settings, get_settings
from stack import daemon
from stack.layout import Layout
from stack.table import processes

FLOW = click.argument("flow", type=click.Choice(list(EVERY_FLOW)))


@click.group()
def offsets() -> None:
    """Show and reset a flow's offsets, and look into its recovery store."""


@offsets.command()
@FLOW
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(flow: str, as_json: bool) -> None:
    """Show each partition's oldest offset, what FLOW has applied and by which instance, its snapshot, and the end."""
    settings = get_settings()
    found = moves.standings(flow, settings)
    saved = {
        place: offset
        for store in map(recovery.inspect, recovery.folders(flow, settings))
        if store is not None
        for place, offset in store.positions.items()
    }
    if as_json:
        partitions = [asdict(each) | {"saved": saved.get((each.topic, each.partition))} for each in found]
        click.echo(json.dumps({"flow": flow, "partitions": partitions}, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("partition", "oldest", "applied", "by instance", "snapshot", "end"):
        table.add_column(heading, justify="left" if heading in ("partition", "by instance") else "right")
    for each in found:
        by = "nobody yet" if each.commit is None else each.commit.by or "an operator"
        applied = "" if each.commit is None else str(each.commit.offset)
        snapshot = str(saved.get((each.topic, each.partition), ""))
        table.add_row(f"{each.topic} \\[{each.partition}]", str(each.earliest), applied, by, snapshot, str(each.end))
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)


@offsets.command(name="recovery")
@FLOW
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_recovery(flow: str, as_json: bool) -> None:
    """Show what each instance of FLOW would resume from: its starts, epoch, steps with their state, and positions."""
    stores = [found for found in map(recovery.inspect, recovery.folders(flow, get_settings())) if found is not None]
    if as_json:
        shown = [
            asdict(store)
            | {"folder": str(store.folder)}
            | {"positions": {f"{topic}-{partition}": at for (topic, partition), at in store.positions.items()}}
            for store in stores
        ]
        click.echo(json.dumps({"flow": flow, "stores": shown}, indent=2))
        return
    if not stores:
        click.echo(f"{flow} has no recovery store here: it would start from its group's offsets.")
    for store in stores:
        click.echo(f"{store.folder}: started {store.executions} times, epoch {store.epoch}")
        for step in store.steps:
            click.echo(f"  {step.step}: {step.keys} key{'s' * (step.keys != 1)}, {step.size:,} bytes")
        for (topic, partition), offset in sorted(store.positions.items()):
            click.echo(f"  {topic} [{partition}] goes on at {offset}")


@offsets.command()
@FLOW
@click.option("--to", required=True, help="earliest, latest, an offset, or a time (2026-11-22T17:30:00Z).")
@click.option("--topic", help="Only this topic.")
@click.option("--partition", type=click.IntRange(min=0), help="Only this partition.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(flow: str, to: str, topic: str | None, partition: int | None, yes: bool) -> None:
    """Move FLOW, which must be stopped, to another place; first say what that will read again or skip."""
    settings = get_settings()
    chosen = [
        each
        for each in moves.standings(flow, settings)
        if topic in (None, each.topic) and partition in (None, each.partition)
    ]
    if not chosen:
        raise ConfigurationError(f"{flow} does not read {topic or 'anything'}{_in(partition)}.")
    planned = moves.plan(flow, to, chosen, settings)
    for move in planned:
        click.echo(moves.describe(move))
    again, skipped = sum(move.again for move in planned), sum(move.skipped for move in planned)
    click.echo(f"In all {again} records are read again and {skipped} are skipped.")
    if again:
        click.echo("Read again is harmless: read models come out the same.")
    if skipped:
        click.echo("Skipped is lost to the read model until it is built again from the database.")
    refuse_while_it_runs(flow, settings)
    with recovery.all_held(flow, settings) as stores:
        if not yes:
            click.confirm(f"Reset {flow}?", abort=True)
        moves.carry_out(flow, planned, settings)
        for store in stores:
            recovery.forget(store)
    click.echo(f"{flow} is reset; its recovery stores are empty.")


def refuse_while_it_runs(flow: str, settings: Settings) -> None:
    """Raise `ConfigurationError` while an instance of the flow runs, or its supervisor is about to start one."""
    layout = Layout(settings)
    running = [each.name for each in processes(layout) if each.flow == flow and daemon.running(layout, each.name)]
    if running:
        raise ConfigurationError(
            f"{', '.join(running)} runs; nothing was changed. Stop it first: fanline dataflows stop {flow}."
        )


def _in(partition: int | None) -> str:
    return "" if partition is None else f" [{partition}]"
