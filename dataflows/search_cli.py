"""`fanline search`: look after the search indexes."""

import json
import time
from typing import Any

import click
import psycopg

from dataflows.effects import Performer
from dataflows.search_rebuild import Building, rebuild, roll_back, unfinished
from fanline.database import connect, unavailable
from fanline.errors import ConfigurationError
from fanline.logging import configure_logging
from fanline.settings import Settings, get_settings
from readmodels.search import KINDS
from sinks.opensearch_client import OpenSearchClient

REPORT_SECONDS = 2.0


@click.group()
def search() -> None:
    """Build search indexes anew, and show what they hold."""


@search.command()
@click.option("--keep-old", is_flag=True, help="Leave the old indexes there, written, until the next run.")
@click.option("--rollback", is_flag=True, help="Search the indexes that --keep-old has left; builds nothing.")
def reindex(keep_old: bool, rollback: bool) -> None:
    """Build new indexes from the database beside the serving ones, compare them with it, then switch.

    Searches go on meanwhile, and no change is lost. An interrupted run is gone on with by the next one. New indexes
    that differ from the database are deleted, and the command exits with 1.
    """
    configure_logging("search", level="warning")
    settings = get_settings()
    if rollback:
        if keep_old:
            raise ConfigurationError("A rollback builds nothing: give --rollback or --keep-old, not both.")
        _roll_back(settings)
        return
    client, performer = OpenSearchClient(settings), Performer(settings, "search")
    try:
        built = rebuild(settings, performer, client, drop_old=not keep_old, report=Progress())
    finally:
        performer.close()
        client.close()
    for building in built:
        click.echo(f"{building.kind.name}: {building.loaded:,} documents in {building.index}, which is searched now")
        if building.refused:
            click.echo(
                f"{building.kind.name}: OpenSearch did not take {building.refused:,} documents; the log names them"
            )


def _roll_back(settings: Settings) -> None:
    client = OpenSearchClient(settings)
    try:
        for kind, index in roll_back(settings, client).items():
            click.echo(f"{kind}: {index} is searched again")
    finally:
        client.close()


@search.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Show the indexes, how many documents they hold, and how many the database has for them."""
    configure_logging("search", level="warning")
    settings = get_settings()
    wanted = totals(settings)
    client = OpenSearchClient(settings)
    rows: list[dict[str, Any]] = []
    try:
        for kind in KINDS:
            read, write = kind.read_alias(settings.search_prefix), kind.write_alias(settings.search_prefix)
            behind = client.behind([read, write])
            building = unfinished(client, kind, settings.search_prefix)
            for index in sorted({*behind[read], *behind[write]}) or [""]:
                state = "serving" if index in behind[read] else "building" if index == building else "left over"
                rows.append(
                    {
                        "kind": kind.name,
                        "index": index or None,
                        "state": state if index else "missing",
                        "documents": client.count(index) if index else 0,
                        "database": wanted[kind.name],
                    }
                )
    finally:
        client.close()
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(
            f"{row['kind']:<7}{row['state']:<11}{row['index'] or '-':<40}{row['documents']:>12,} documents, "
            f"{row['database']:,} in the database"
        )


def totals(settings: Settings) -> dict[str, int]:
    """How many documents the database has, by kind; raises `DependencyUnavailable` when it does not answer."""
    with connect(settings, autocommit=True) as connection:
        try:
            return {kind.name: connection.execute(kind.total.encode()).fetchall()[0][0] for kind in KINDS}
        except psycopg.OperationalError as error:
            raise unavailable(error) from error


class Progress:
    """Shows how far a build is, now and then, and how long it may still take."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = self._started
        self._first: dict[str, int] = {}

    def __call__(self, building: Building) -> None:
        """Take in a page."""
        now = time.monotonic()
        first = self._first.setdefault(building.kind.name, building.loaded)
        if now - self._shown < REPORT_SECONDS and not building.complete:
            return
        self._shown = now
        rate = (building.loaded - first) / max(now - self._started, 0.001)
        left = max(0, building.total - building.loaded)
        estimate = f", about {left / rate:,.0f} s left" if rate and left else ""
        click.echo(f"{building.kind.name}: {building.loaded:,} of {building.total:,}{estimate}")
