"""Applies the changes of one database's tables to another, in their order, each once.

The place in the topic, and in the source's log, is kept in the target and moves in the transaction that applies the
changes: what a crash repeats is known and left out. What Debezium sends again after a crash of its own is known by its
place in the log.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from connectors.messages import Message
from fanline.changes import parse_sequence
from fanline.errors import MalformedEvent
from fanline.replica import LEFT_OUT
from readmodels.effects import Effects, Query

# What Debezium writes for a large value that an update has not touched; the target has it already.
UNCHANGED = "__debezium_unavailable_value"

BOOKS = (
    """
CREATE TABLE IF NOT EXISTS replica_positions (
    topic text, partition int, next_offset bigint NOT NULL, commit_lsn bigint NOT NULL, lsn bigint NOT NULL,
    PRIMARY KEY (topic, partition)
)
""",
    "ALTER TABLE replica_positions ADD COLUMN IF NOT EXISTS snapshot_lsn bigint NOT NULL DEFAULT 0",
    """
CREATE TABLE IF NOT EXISTS replica_constraints (
    name text PRIMARY KEY, relation text NOT NULL, definition text NOT NULL
)
""",
    "CREATE TABLE IF NOT EXISTS replica_marks (id uuid PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())",
)
"""The replication's own tables, in both databases."""

COLUMNS = """
SELECT c.table_name, c.column_name, c.udt_name FROM information_schema.columns c
JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.is_generated = 'NEVER'
ORDER BY c.table_name, c.ordinal_position
"""
KEYS = """
SELECT k.table_name, k.column_name FROM information_schema.key_column_usage k
JOIN information_schema.table_constraints t ON t.table_schema = k.table_schema
  AND t.table_name = k.table_name AND t.constraint_name = k.constraint_name
WHERE t.table_schema = 'public' AND t.constraint_type = 'PRIMARY KEY' ORDER BY k.table_name, k.ordinal_position
"""
POSITION = """
SELECT next_offset, commit_lsn, lsn, snapshot_lsn FROM replica_positions
WHERE topic = %(topic)s AND partition = %(partition)s FOR UPDATE
"""
MOVE = """
INSERT INTO replica_positions (topic, partition, next_offset, commit_lsn, lsn, snapshot_lsn)
VALUES (%(topic)s, %(partition)s, %(next_offset)s, %(commit_lsn)s, %(lsn)s, %(snapshot_lsn)s)
ON CONFLICT (topic, partition) DO UPDATE
SET next_offset = excluded.next_offset, commit_lsn = excluded.commit_lsn, lsn = excluded.lsn,
    snapshot_lsn = excluded.snapshot_lsn
"""


@dataclass(frozen=True)
class Table:
    """A table of the target: its columns with their types, and its primary key."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One change: the row's columns after it, or the key of a row that is gone."""

    table: Table
    values: dict[str, Any]
    gone: bool
    place: tuple[int, int] | None
    """Where it was in the source's log; None for a row that the snapshot has read."""
    snapshot: int | None = None
    """The place in the source's log at which the snapshot was taken that has read the row; None without one."""


def tables() -> Effects[dict[str, Table]]:
    """The tables of a database with a primary key, by name."""
    columns: dict[str, dict[str, str]] = {}
    for row in (yield Query(COLUMNS, {})):
        columns.setdefault(row["table_name"], {})[row["column_name"]] = row["udt_name"]
    keys: dict[str, list[str]] = {}
    for row in (yield Query(KEYS, {})):
        keys.setdefault(row["table_name"], []).append(row["column_name"])
    return {name: Table(name, columns[name], tuple(key)) for name, key in keys.items() if name in columns}


def read(message: Message, known: dict[str, Table]) -> Row:
    """The change in a record; raises `MalformedEvent` when it is none, or of a table or column that is not there."""
    try:
        record, key = json.loads(message.value or b""), json.loads(message.key or b"")
        table = known[record.pop("__source_table")]
        op, deleted, sequence = record.pop("__op"), record.pop("__deleted"), record.pop("__source_sequence")
        gone = deleted == "true"
        values = {column: key[column] for column in table.key} if gone else record
        unknown = values.keys() - table.columns.keys()
        if unknown:
            raise KeyError(min(unknown))
        place = parse_sequence(table.name, sequence)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedEvent(
            f"The change at offset {message.offset} of {message.topic} cannot be applied: {error!r}."
        ) from error
    return Row(table, values, gone, None, place[1]) if op == "r" else Row(table, values, gone, place)


def apply(messages: Sequence[Message], known: dict[str, Table]) -> Effects[int]:
    """Applies records of one partition, in their order; returns how many were new. One transaction."""
    topic, partition = messages[0].topic, messages[0].partition
    found = yield Query(POSITION, {"topic": topic, "partition": partition})
    known_place = found[0] if found else {"next_offset": 0, "commit_lsn": 0, "lsn": 0, "snapshot_lsn": 0}
    next_offset, snapshot = known_place["next_offset"], known_place["snapshot_lsn"]
    place = known_place["commit_lsn"], known_place["lsn"]
    applied = 0
    for message in messages:
        if message.offset < next_offset or message.value is None:
            continue
        row = read(message, known)
        next_offset = message.offset + 1
        if row.place is not None:
            if row.place < place:
                continue
            place = row.place
        if row.snapshot is not None and row.snapshot != snapshot:
            # A connector that is made anew, or was interrupted in its snapshot, takes another, which lacks what was
            # deleted meanwhile. Debezium's mark of the first row is missing when the first table is empty.
            snapshot = row.snapshot
            for name in sorted(known.keys() - LEFT_OUT):
                yield Query(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)).as_string(), {})
        yield from statements(row)
        applied += 1
    yield Query(
        MOVE,
        {
            "topic": topic,
            "partition": partition,
            "next_offset": next_offset,
            "commit_lsn": place[0],
            "lsn": place[1],
            "snapshot_lsn": snapshot,
        },
    )
    return applied


def statements(row: Row) -> Iterator[Query]:
    """The statement that a change is."""
    table = sql.Identifier(row.table.name)
    where = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), _value(column, row.table.columns[column]))
        for column in row.table.key
    )
    if row.gone:
        yield _query(sql.SQL("DELETE FROM {} WHERE {}").format(table, where), row.values)
        return
    given = {column: value for column, value in row.values.items() if value != UNCHANGED}
    columns = [sql.Identifier(column) for column in given]
    values = [_value(column, row.table.columns[column]) for column in given]
    changed = [
        sql.SQL("{} = {}").format(sql.Identifier(column), _value(column, row.table.columns[column]))
        for column in given
        if column not in row.table.key
    ]
    if len(given) < len(row.values):
        if changed:
            yield _query(sql.SQL("UPDATE {} SET {} WHERE {}").format(table, sql.SQL(", ").join(changed), where), given)
        return
    conflict = sql.SQL("DO UPDATE SET {}").format(sql.SQL(", ").join(changed)) if changed else sql.SQL("DO NOTHING")
    yield _query(
        sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) {}").format(
            table, sql.SQL(", ").join(columns), sql.SQL(", ").join(values),
            sql.SQL(", ").join(map(sql.Identifier, row.table.key)), conflict,
        ),
        given,
    )  # fmt: skip


def _query(statement: sql.Composed, values: dict[str, Any]) -> Query:
    return Query(statement.as_string(), values)


def _value(column: str, kind: str) -> sql.Composable:
    """A parameter as the column's type; bytes come as base64."""
    name = sql.Placeholder(column)
    if kind == "bytea":
        return sql.SQL("decode({}, 'base64')").format(name)
    # An array's type is named as its items' with an underscore in front.
    wanted = f"{kind[1:]}[]" if kind.startswith("_") else kind
    return sql.SQL("{}::" + wanted).format(name)
