"""`fanline schemas`: the contracts of the domain events."""

import click

from fanline.errors import ConfigurationError
from fanline.settings import get_settings
from schemas import contracts, registry


@click.group()
def schemas() -> None:
    """Check, release and register the contracts of the domain events."""


@schemas.command()
@click.option("--registry", "ask_registry", is_flag=True, help="Ask the running registry as well.")
def check(ask_registry: bool) -> None:
    """Check documentation, examples and BACKWARD_TRANSITIVE compatibility with every released version."""
    known = contracts.load()
    faults = [fault for contract in known.values() for fault in contracts.faults(contract)]
    if ask_registry:
        faults += registry.registry_faults(get_settings())
    if faults:
        raise ConfigurationError("\n".join(faults))
    click.echo(f"{len(known)} contracts hold.")


@schemas.command()
def release() -> None:
    """Keep each changed schema as its next version; later schemas must stay able to read it."""
    for contract in contracts.load().values():
        number = contracts.release(contract)
        if number is not None:
            click.echo(f"{contract.name}: version {number}")


@schemas.command()
def register() -> None:
    """Register the contracts; changes nothing the second time."""
    for name, schema_id in registry.register_all(get_settings()).items():
        click.echo(f"{name}: schema id {schema_id}")
