"""`fanline replicate`: move to another database without writing to both (docs/operations/replicate.md)."""

from contextlib import ExitStack
from typing import Any

import click

BACK = click.option("--back", is_flag=True, help="The way back: from the new database to the old one.")


@click.group()
def replicate() -> None:
    """Copy the database to another one, keep it up, and switch."""


@replicate.command()
def start() -> None:
    """Make the other database ready and begin to copy; `run` does the copying."""
    from connectors import replica

    route, settings = _route(False)
    click.echo(f"{replica.start(route, settings, snapshot=True)} tables are copied; run: fanline replicate run")


@replicate.command()
@BACK
def run(back: bool) -> None:
    """Apply the changes until SIGTERM or Ctrl-C; keep it running under a supervisor."""
    from dataflows.replicate import run as run_flow

    run_flow(*_route(back))


@replicate.command()
@BACK
def status(back: bool) -> None:
    """Show how far the copy is."""
    from connectors import replica

    ends, applied = replica.behind(*_route(back))
    click.echo(f"{applied} of {ends} changes are applied; {ends - applied} behind.")


@replicate.command()
@BACK
def verify(back: bool) -> None:
    """Compare every table range by range; exit 1 when a range differs. Run it when little is written."""
    from connectors import replica

    route, _ = _route(back)
    equal = True
    for found in replica.verify(route):
        equal = _told(found) and equal
    if not equal:
        raise SystemExit(1)


@replicate.command()
@BACK
@click.option("--timeout", default=60.0, show_default=True, help="Seconds within which the copy must catch up.")
def cutover(back: bool, timeout: float) -> None:
    """Refuse writes, wait for the last change, compare, and say what to set."""
    from connectors import replica

    route, _ = _route(back)
    done = replica.cut_over(route, timeout)
    click.echo(f"{sum(each.rows for each in done.tables)} rows in {len(done.tables)} tables are equal.")
    click.echo(
        "The connectors have sent everything of the database, and the dataflows have applied it."
        if done.drained
        else "No connector of the pipeline reads the database: what its outbox may hold is not sent by anybody."
    )
    first = "fanline replicate reopen" if back else "stop fanline replicate run; fanline replicate back"
    which, undo = ("old", "reopen --back") if back else ("new", "reopen")
    click.echo(
        f"The database refuses writes. Now: {first}; stop the API and the dataflows; set FANLINE_DATABASE_URL (and"
        f" FANLINE_CONNECT_DATABASE_URL) to the {which} one; fanline connectors renew; fanline replicate forget; start"
        f" them again. Or undo it with fanline replicate {undo}."
    )


@replicate.command()
def back() -> None:
    """After a cutover: begin to copy what is written to the new database to the old one; `run --back` does it.

    The copying forward, which must not run any more, is ended: it would bring back to the new database, late, what was
    copied from there.
    """
    from connectors import replica

    replica.stop(*_route(False))
    route, settings = _route(True)
    tables = replica.start(route, settings, snapshot=False)
    click.echo(f"{tables} tables are copied back; run: fanline replicate run --back")


@replicate.command()
@BACK
def reopen(back: bool) -> None:
    """Let the old database take writes again: undo a cutover."""
    from connectors import replica

    route, _ = _route(back)
    replica.take_writes(route.source)
    click.echo("The database takes writes again.")


@replicate.command()
@BACK
def stop(back: bool) -> None:
    """Remove the connector, its slot and its publication; without it the source's log is kept for ever."""
    from connectors import replica

    replica.stop(*_route(back))
    click.echo("The copying is over.")


@replicate.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(yes: bool) -> None:
    """After a move: make Redis forget places in the old database's log; the API and the dataflows must be stopped."""
    from audit.stores import Stores
    from connectors import recovery
    from fanline.cli_offsets import refuse_while_it_runs
    from fanline.settings import get_settings
    from rebuild import positions

    settings = get_settings()
    stores = Stores(settings)
    try:
        for sentence in positions.sentences(stores):
            click.echo(sentence)
        for flow in positions.FLOWS:
            refuse_while_it_runs(flow, settings)
        with ExitStack() as stack:
            for flow in positions.FLOWS:
                stack.enter_context(recovery.all_held(flow, settings))
            if not yes:
                click.confirm("Forget them?", abort=True)
            positions.forget(stores)
    finally:
        stores.close()
    click.echo("They are forgotten.")


def _route(back: bool) -> tuple[Any, Any]:
    from fanline.replica import route
    from fanline.settings import get_settings

    settings = get_settings()
    return route(settings, "back" if back else "forward"), settings


def _told(found: Any) -> bool:
    for each in found.differences:
        click.echo(
            f"{each.table}: {each.source_rows} and {each.target_rows} rows differ after {each.above} up to {each.upto}"
        )
    if not found.differences:
        click.echo(f"{found.table}: {found.rows} rows in {found.ranges} ranges are equal")
    return not found.differences
