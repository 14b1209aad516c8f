"""Compares the tables of two databases range by range, with the same queries on both.

A range is some thousand rows in the order of the primary key: its ends come from the source. Rows are compared as the
driver gives them, not as text that each database writes in its own way.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from sinks.replica import Table

RANGE_ROWS = 2_000

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Difference:
    """A range in which the databases differ: after `above` (None: from the start) up to `upto` (None: to the end)."""

    table: str
    above: Key | None
    upto: Key | None
    source_rows: int
    target_rows: int


@dataclass(frozen=True)
class Compared:
    """What was found in one table."""

    table: str
    rows: int
    ranges: int
    differences: tuple[Difference, ...]


def compare(
    source: "psycopg.Connection[Any]", target: "psycopg.Connection[Any]", table: Table, rows: int = RANGE_ROWS
) -> Compared:
    """Compare one table; what is written meanwhile may show as a difference."""
    total = ranges = 0
    differences: list[Difference] = []
    above: Key | None = None
    while True:
        mine = _rows(source, table, above, None, rows)
        upto = _key(table, mine[-1]) if len(mine) == rows else None
        theirs = _rows(target, table, above, upto, None)
        total, ranges = total + len(mine), ranges + 1
        if checksum(mine) != checksum(theirs):
            differences.append(Difference(table.name, above, upto, len(mine), len(theirs)))
        if upto is None:
            return Compared(table.name, total, ranges, tuple(differences))
        above = upto


def checksum(rows: Sequence[Sequence[Any]]) -> str:
    """A hash of rows, whatever their order."""
    return hashlib.sha256("\n".join(sorted(map(repr, map(_plain, rows)))).encode()).hexdigest()


def _plain(row: Sequence[Any]) -> list[Any]:
    # The zone that a time is shown in belongs to the session, not to the row.
    return [value.timestamp() if hasattr(value, "timestamp") else value for value in row]


def _rows(
    connection: "psycopg.Connection[Any]", table: Table, above: Key | None, upto: Key | None, limit: int | None
) -> list[Any]:
    columns = sql.SQL(", ").join(map(sql.Identifier, sorted(table.columns)))
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    query = sql.SQL("SELECT {} FROM {} WHERE true").format(columns, sql.Identifier(table.name))
    parameters: list[Any] = []
    for place, sign in ((above, ">"), (upto, "<=")):
        if place is not None:
            values = sql.SQL(", ").join(_typed(table, place))
            query += sql.SQL(" AND ({}) " + sign + " ({})").format(key, values)
            parameters += place
    query += sql.SQL(" ORDER BY {}").format(key)
    if limit is not None:
        query += sql.SQL(" LIMIT {}").format(limit)
    return connection.execute(query, parameters).fetchall()


def _typed(table: Table, place: Key) -> Iterator[sql.Composable]:
    for column in table.key[: len(place)]:
        yield sql.SQL("%s::" + table.columns[column])


def _key(table: Table, row: Sequence[Any]) -> Key:
    columns = sorted(table.columns)
    return tuple(row[columns.index(column)] for column in table.key)
