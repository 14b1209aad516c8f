"""`fanline migrate` and `fanline prune`."""

import click


@click.command()
@click.option("--revision", default="head", show_default=True, help="Revision to migrate to.")
def migrate(revision: str) -> None:
    """Bring the database to the newest schema."""
    from fanline.migrations_runner import migrate as run
    from fanline.settings import get_settings

    click.echo(f"The database is at revision {run(get_settings(), revision)}.")


@click.command()
def prune() -> None:
    """Delete sent events, old idempotency keys and dead sessions; run it every few minutes."""
    from fanline.pruning import prune as run
    from fanline.settings import get_settings

    for table, rows in run(get_settings()).items():
        click.echo(f"{table}: {rows} rows deleted")
