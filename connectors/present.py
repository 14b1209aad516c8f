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
from fanline.changes import RowChange, deleted_row
from fanline.database import connect, unavailable
from fanline.errors import MalformedEvent
from fanline.settings import Settings

PRIMARY_KEY = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
WHERE i.indrelid = to_regclass(%(table)s) AND i.indisprimary
"""
_JSON_TYPES = (psycopg.adapters.types["json"].oid, psycopg.adapters.types["jsonb"].oid)


class PresentRows:
    """Asks the database, connected when it is first needed. One thread only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection[Any] | None = None
        self._keys: dict[str, list[str]] = {}

    def __call__(self, change: RowChange) -> RowChange:
        """The change as a fact of now; raises `MalformedEvent` without its key, and `DependencyUnavailable`."""
        try:
            row = self._row(change.table, {column: change.row[column] for column in self._key(change.table)})
        except (KeyError, psycopg.DataError) as error:
            raise MalformedEvent(f"The change of {change.table} has no key to look for: {error}.") from error
        except psycopg.OperationalError as error:
            self._connection = None
            raise unavailable(error) from error
        now_ms = time.time_ns() // 1_000_000
        if row is not None:
            return RowChange(change.table, "r", row, (0, 0), now_ms)
        return RowChange(change.table, "d", deleted_row(change.table, change.row), (0, 0), now_ms)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _key(self, table: str) -> list[str]:
        if table not in self._keys:
            found = self._execute(PRIMARY_KEY, {"table": table}).fetchall()
            if not found:
                raise KeyError(f"the database has no table {table}")
            self._keys[table] = [column for (column,) in found]
        return self._keys[table]

    def _row(self, table: str, key: dict[str, Any]) -> dict[str, Any] | None:
        query = sql.SQL("SELECT * FROM {} WHERE {}").format(
            sql.Identifier(table),
            sql.SQL(" AND ").join(
                sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder(column)) for column in key
            ),
        )
        cursor = self._execute(query, key)
        found = cursor.fetchone()
        columns = cursor.description or []
        if found is None:
            return None
        return {
            column.name: captured(value, as_json=column.type_code in _JSON_TYPES)
            for column, value in zip(columns, found, strict=True)
            if (table, column.name) not in excluded()
        }

    def _execute(self, query: Any, parameters: dict[str, Any]) -> psycopg.Cursor[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._settings, autocommit=True, repeating=True)
        return self._connection.execute(query, parameters)


def captured(value: Any, *, as_json: bool = False) -> Any:
    """A column's value as Debezium captures it: times, identifiers and JSON as text."""
    if as_json:
        return None if value is None else json.dumps(value, ensure_ascii=False)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if isinstance(value, list):
        return [captured(each) for each in value]
    return value


@lru_cache(maxsize=1)
def excluded() -> frozenset[tuple[str, str]]:
    """Table and name of the columns that the connectors' templates leave out."""
    lists = [template.config.get("column.exclude.list", "") for template in load_templates()]
    names = [name.strip().split(".") for each in lists for name in each.split(",") if name.strip()]
    return frozenset((table, column) for _, table, column in names)
