"""`fanline connectors`: what runs in Kafka Connect, and making it what the templates say."""

from pathlib import Path

import click

from connectors import connect, plan
from connectors.connect_client import ConnectClient
from fanline.errors import FanlineError
from fanline.settings import get_settings

TEMPLATES = click.option(
    "--templates",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Folder of connector templates; the built-in ones unless given.",
)


@click.group()
def connectors() -> None:
    """Compare, apply and watch the Debezium connectors."""


@connectors.command()
@TEMPLATES
def diff(templates: Path | None) -> None:
    """Show what apply would change; exit 1 when there is anything."""
    pending = False
    for name, changes in connect.diff_all(get_settings(), templates).items():
        if changes is None:
            click.echo(f"{name}: would be created")
        elif changes:
            click.echo(f"{name}: {len(changes)} settings differ")
            for line in plan.describe(changes):
                click.echo(f"  {line}")
        else:
            click.echo(f"{name}: equal")
        pending = pending or changes is None or bool(changes)
    if pending:
        raise SystemExit(1)


@connectors.command()
@TEMPLATES
def apply(templates: Path | None) -> None:
    """Make Kafka Connect run the templates and wait until it does; changes nothing the second time."""
    for applied in connect.apply_all(get_settings(), templates):
        click.echo(f"{applied.name}: {applied.outcome}")
        if applied.outcome == "changed":
            for line in plan.describe(applied.changes):
                click.echo(f"  {line}")


@connectors.command()
@click.argument("names", nargs=-1)
def status(names: tuple[str, ...]) -> None:
    """Show each connector's state and why it failed; exit 1 unless all run."""
    healthy = True
    with connect.client(get_settings()) as client:
        for name in names or client.names():
            found = client.status(name)
            if found is None:
                click.echo(f"{name}: unknown to Kafka Connect")
            else:
                click.echo(f"{name}: {found.state}, tasks: {', '.join(found.tasks) or 'none'}")
                if found.failed:
                    click.echo(f"  {found.reason}")
            healthy = healthy and found is not None and found.running
    if not healthy:
        raise SystemExit(1)


@connectors.command()
@click.argument("names", nargs=-1)
def restart(names: tuple[str, ...]) -> None:
    """Restart connectors and their tasks (all unless named) and wait until they run."""
    with connect.client(get_settings()) as client:
        for name in _named(client, names):
            client.restart(name)
            client.wait(name, lambda found: found.running)
            click.echo(f"{name}: running")


@connectors.command()
@click.argument("names", nargs=-1)
def pause(names: tuple[str, ...]) -> None:
    """Pause connectors (all unless named); the database keeps the log for them meanwhile."""
    with connect.client(get_settings()) as client:
        for name in _named(client, names):
            client.pause(name)
            client.wait(name, lambda found: {found.state, *found.tasks} == {"PAUSED"})
            click.echo(f"{name}: paused")


@connectors.command()
@click.argument("names", nargs=-1)
def resume(names: tuple[str, ...]) -> None:
    """Resume paused connectors (all unless named) and wait until they run."""
    with connect.client(get_settings()) as client:
        for name in _named(client, names):
            client.resume(name)
            client.wait(name, lambda found: found.running)
            click.echo(f"{name}: running")


@connectors.command()
@click.argument("name")
def reset(name: str) -> None:
    """Make a connector forget its position, so that it starts anew with its snapshot, and wait until it runs."""
    with connect.client(get_settings()) as client:
        client.reset(name)
        client.wait(name, lambda found: found.running)
        click.echo(f"{name}: running from the start")


def _named(client: ConnectClient, names: tuple[str, ...]) -> tuple[str, ...]:
    found = names or tuple(client.names())
    if not found:
        raise FanlineError("Kafka Connect has no connectors: fanline connectors apply makes them.")
    return found
