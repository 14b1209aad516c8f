"""`fanline migrate`."""

import click


@click.command()
@click.option("--revision", default="head", show_default=True, help="Revision to migrate to.")
def migrate(revision: str) -> None:
    """Bring the database to the newest schema."""
    from fanline.migrations_runner import migrate as run
    from fanline.settings import get_settings

    click.echo(f"The database is at revision {run(get_settings(), revision)}.")
