"""`fanline topics`."""

import click

from connectors.topics import ensure_topics
from fanline.settings import get_settings


@click.command()
@click.option("--fix", is_flag=True, help="Set configuration values that differ (never partitions or replication).")
def topics(fix: bool) -> None:
    """Create the missing topics and report those that differ; exit 1 when any does."""
    ensured = ensure_topics(get_settings(), fix=fix)
    for name in ensured.created:
        click.echo(f"{name}: created")
    for drift in ensured.drifts:
        click.echo(f"{drift.topic}: {drift.what} is {drift.current or 'not set'}, should be {drift.wanted}")
    if ensured.drifts:
        raise SystemExit(1)
    if not ensured.created:
        click.echo("Every topic is as it should be.")
