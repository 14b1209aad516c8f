"""`fanline api` and `fanline keys`: serve the API, and turn the keys that sign its tokens."""

from typing import Any

import click
import psycopg

from api.app import BOUNDARIES
from api.auth import keys as signing
from api.server import serve
from fanline.database import connect, run_transaction_alone
from fanline.settings import get_settings


@click.command()
@click.option("--only", default="", help=f"Boundaries to serve, comma-separated: {', '.join(BOUNDARIES)}.")
@click.option("--host", help="Address to bind to (FANLINE_HOST).")
@click.option("--port", type=click.IntRange(1, 65_535), help="Port to listen on (FANLINE_API_PORT).")
def api(only: str, host: str | None, port: int | None) -> None:
    """Serve the REST API until SIGTERM or Ctrl-C; requests under way are finished."""
    serve(get_settings(), filter(None, (name.strip() for name in only.split(","))), host, port)


@click.group()
def keys() -> None:
    """The keys that sign access tokens."""


@keys.command()
def rotate() -> None:
    """Sign new tokens with a fresh key; tokens of the keys before stay good until they expire.

    A running API notices within a minute.
    """
    key = signing.new_key()

    def insert(connection: psycopg.Connection[Any]) -> int:
        connection.execute(signing.INSERT_KEY, key)
        return connection.execute(signing.RETIRE_OTHERS, {"kid": key["kid"]}).rowcount

    retired = run_transaction_alone(get_settings(), insert)
    click.echo(f"Key {key['kid']} signs from now on; retired: {retired}.")


@keys.command(name="list")
def list_keys() -> None:
    """Show the keys, the newest last; never their secrets."""
    with connect(get_settings()) as connection:
        for kid, algorithm, created_at, retired_at in connection.execute(signing.LIST_KEYS).fetchall():
            state = f"retired {retired_at:%Y-%m-%d %H:%M}" if retired_at else "signs"
            click.echo(f"{kid}  {algorithm}  made {created_at:%Y-%m-%d %H:%M}  {state}")
