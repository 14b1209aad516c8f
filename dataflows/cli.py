"""`fanline dataflow NAME`: run one dataflow in this process."""

import click

from connectors.flows import EVERY_FLOW
from connectors.reset import Place, reset_offsets
from dataflows.run import run
from fanline.settings import get_settings


@click.command()
@click.argument("name", type=click.Choice(list(EVERY_FLOW)))
@click.option(
    "--reset-to",
    type=click.Choice(["earliest", "latest"]),
    help="First move the flow to the oldest or past the newest record of its topics.",
)
def dataflow(name: str, reset_to: Place | None) -> None:
    """Run the dataflow NAME until SIGTERM or Ctrl-C."""
    if reset_to is None:
        run(name)
    else:
        place: Place = reset_to
        run(name, prepare=lambda: reset_offsets(name, place, get_settings()))
