"""`fanline connectors`: what runs in Kafka Connect, and making it what the templates say."""

from pathlib import Path

import click

from connectors import connect, plan, renewal
from connectors.connect_client import ConnectClient
from fanline.errors import ConfigurationError, FanlineError
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
@click.option("--same-database", is_flag=True, help="The database is the same at another address: places are kept.")
def apply(templates: Path | None, same_database: bool) -> None:
    """Make Kafka Connect run the templates and wait until it does; changes nothing the second time."""
    settings = get_settings()
    for each in renewal.planned(settings, templates):
        if each.moves and not same_database:
            raise ConfigurationError(
                f"{each.name} would read another database, where its place in the log means nothing: `fanline"
                " connectors renew` has it begin there anew; with --same-database only the address changes."
            )
    for applied in connect.apply_all(settings, templates):
        click.echo(f"{applied.name}: {applied.outcome}")
        if applied.outcome == "changed":
            for line in plan.describe(applied.changes):
                click.echo(f"  {line}")


@connectors.command()
@TEMPLATES
@click.option("--lost", is_flag=True, help="The old database is gone, with what it had not sent.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def renew(templates: Path | None, lost: bool, yes: bool) -> None:
    """After a move to another database: make the connectors begin there anew; first say what that means."""
    settings = get_settings()
    planned = renewal.planned(settings, templates)
    for each in planned:
        click.echo(each.sentence())
    if not any(each.is_needed for each in planned):
        return
    if not yes:
        click.confirm("Renew them?", abort=True)
    renewal.carry_out(planned, settings, lost=lost)
    click.echo("They read the new database; what is written to it from now on is sent.")


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
