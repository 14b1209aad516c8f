"""`fanline archive`: query, list, compact and erase what the flow archive has written."""

import json
from datetime import date, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

DAY = click.DateTime(["%Y-%m-%d"])
WAIT = click.option(
    "--wait-seconds",
    default=600.0,
    show_default=True,
    help="How long to wait for another compaction or erasure.",
)


@click.group()
def archive() -> None:
    """Query and look after the Parquet archive of domain events (docs/guide/archive.md)."""


@archive.command()
@click.argument("sql")
@click.option("--since", type=DAY, help="First day to read, such as 2026-11-01.")
@click.option("--until", type=DAY, help="Last day to read.")
@click.option("--every-record", is_flag=True, help="Show an event that was sent twice as two rows.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a row.")
def query(sql: str, since: datetime | None, until: datetime | None, every_record: bool, as_json: bool) -> None:
    """Run SQL in DuckDB over views named as the topics, such as "post.created"."""
    from sinks import parquet_query

    database = parquet_query.open_archive(_store(), since=_day(since), until=_day(until), every_record=every_record)
    answer = parquet_query.query(database, sql)
    rows = zip(*(column.to_pylist() for column in answer.columns), strict=True)
    if as_json:
        for row in rows:
            click.echo(json.dumps(dict(zip(answer.column_names, map(_plain, row), strict=True)), ensure_ascii=False))
        return
    table = Table(*answer.column_names)
    for row in rows:
        table.add_row(*("" if value is None else str(_plain(value)) for value in row))
    Console().print(table)


@archive.command()
@click.argument("topics", nargs=-1)
def files(topics: tuple[str, ...]) -> None:
    """List the files that other readers should take, a path a line: those that nothing supersedes."""
    from readmodels.archive import current

    store = _store()
    for topic in topics or store.topics():
        for file in current(store.files(topic)):
            click.echo(store.path(file))


@archive.command()
@click.option(
    "--grace-seconds", default=600.0, show_default=True,
    help="Age at which a superseded file is deleted: longer than any query runs.",
)  # fmt: skip
@WAIT
def compact(grace_seconds: float, wait_seconds: float) -> None:
    """Put small files together; run it once an hour or once a day."""
    from sinks.parquet_compact import compact as run

    done = run(_store(), grace_seconds=grace_seconds, wait_seconds=wait_seconds)
    click.echo(f"{done.merged} files became {done.written}; {done.deleted} superseded files deleted.")


@archive.command()
@click.argument("account", type=click.UUID)
@WAIT
def erase(account: Any, wait_seconds: float) -> None:
    """Take every event that names the account (a UUID) out of the archive."""
    from sinks.parquet_compact import erase as run

    events, count = run(_store(), str(account), wait_seconds=wait_seconds)
    click.echo(f"{events} events erased in {count} files.")


def _store() -> Any:
    from fanline.settings import get_settings
    from sinks.parquet_store import open_store

    return open_store(get_settings())


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    return value if isinstance(value, int | float | str | bool | list | dict | None) else str(value)
