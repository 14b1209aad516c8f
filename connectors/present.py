"""Row changes that were sent back: they tell which row has changed, and the database what it is now.

A rejected change comes back late. Changes of the same row that came after it are applied already, so its own values may
be out of date, and its position is behind what read models keep to know a replay by. Like a row of a snapshot it
is therefore given as a fact of now, with position (0, 0): `r` with the row's present values, or `d` when it is gone.
"""

import json
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from connectors.plan import load_templates
from fanline.changes import KEY_COLUMNS, RowChange
from fanline.database import connect, unavailable
from fanline.errors import MalformedEvent
from fanline.settings import Settings

# `posts` is not among KEY_COLUMNS, as its deletes carry the whole row.
KEYS = {**KEY_COLUMNS, "posts": ("id",)}
_JSON_TYPES = (psycopg.adapters.types["json"].oid, psycopg.adapters.types["jsonb"].oid)


class PresentRows:
    """Asks the database, connected when it is first needed. One thread only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection[Any] | None = None

    def __call__(self, change: RowChange) -> RowChange:
        """The change as a fact of now; raises `MalformedEvent` without its key, and `DependencyUnavailable`."""
        columns = KEYS.get(change.table)
        if columns is None:
            return change
        try:
            key = {column: change.row[column] for column in columns}
            row = self._row(change.table, key)
        except (KeyError, psycopg.DataError) as error:
            raise MalformedEvent(f"The change of {change.table} has no key to look for: {error}.") from error
        now_ms = time.time_ns() // 1_000_000
        if row is not None:
            return RowChange(change.table, "r", row, (0, 0), now_ms)
        return RowChange(change.table, "d", change.row if change.table == "posts" else key, (0, 0), now_ms)

    def _row(self, table: str, key: dict[str, Any]) -> dict[str, Any] | None:
        query = sql.SQL("SELECT * FROM {} WHERE {}").format(
            sql.Identifier(table),
            sql.SQL(" AND ").join(
                sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder(column)) for column in key
            ),
        )
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._settings, autocommit=True)
            with self._connection.cursor() as cursor:
                found = cursor.execute(query, key).fetchone()
                columns = cursor.description or []
        except psycopg.OperationalError as error:
            raise unavailable(error) from error
        if found is None:
            return None
        return {
            column.name: captured(value, as_json=column.type_code in _JSON_TYPES)
            for column, value in zip(columns, found, strict=True)
            if (table, column.name) not in excluded()
        }


def captured(value: Any, *, as_json: bool = False) -> Any:
    """A column's value as Debezium captures it: times, identifiers and JSON as text."""
    if as_json:
        return None if value is None else json.dumps(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        text = value.astimezone(UTC).replace(tzinfo=None).isoformat()
        return (text.rstrip("0").rstrip(".") if "." in text else text) + "Z"
    if isinstance(value, list):
        return [captured(each) for each in value]
    return value


@lru_cache(maxsize=1)
def excluded() -> frozenset[tuple[str, str]]:
    """Table and name of the columns that the connectors' templates leave out."""
    lists = [template.config.get("column.exclude.list", "") for template in load_templates()]
    names = [name.strip().split(".") for each in lists for name in each.split(",") if name.strip()]
    return frozenset((table, column) for _, table, column in names)
