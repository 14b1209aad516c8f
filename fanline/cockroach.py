"""Row changes out of CockroachDB's changefeeds: as Debezium's connector sends them on, and as they are.

Understood, with or without a `schema` beside a `payload`:

    Debezium            {"before", "after", "op", "source": {"ts_hlc", ...}, ...}
    native, enriched    {"before", "after", "op", "source": {"ts_hlc", ...}?, "updated"?, "key"?, ...}
    native, wrapped     {"before", "after", "updated", "key"?}
    resolved            {"resolved"}: no row

A change's place is its hybrid logical clock, `source.ts_hlc` or `updated`; never `ts_ns`, which is when the changefeed
worked on it. Sources: CockroachDB's "Changefeed Messages" and "Changefeed Message Envelope" (v25.2), and the
connector's CockroachDBSourceInfoStructMaker. The messages in those pages are the tests' fixtures.
"""

import json
from collections.abc import Callable
from typing import Any, cast

from fanline.changes import KEY_COLUMNS, Op, RowChange, deleted_row, parse_hlc, row_change
from fanline.errors import MalformedEvent

_OPS = ("c", "u", "d", "r")


def parse_message(table: str, value: bytes) -> dict[str, Any]:
    """The JSON object of a message, without the wrapping of its schema; raises `MalformedEvent`."""
    try:
        message = json.loads(value)
    except ValueError as error:
        raise MalformedEvent(f"The change of {table} is no JSON: {error}.") from error
    if not isinstance(message, dict):
        raise MalformedEvent(f"The change of {table} is no JSON object.")
    return unwrapped(message)


def change_in(
    table: str, value: bytes, key: bytes | None, decode: Callable[[bytes], dict[str, Any]], *, late: bool = False
) -> RowChange | None:
    """The change in a record of a topic of row changes, whoever wrote it; None for a message that tells of no row.

    `decode` reads Avro; `late` is that of `cockroach_change`. Raises `MalformedEvent`.
    """
    record = parse_message(table, value) if value.startswith(b"{") else decode(value)
    if "__op" not in record and ("after" in record or "resolved" in record):
        return cockroach_change(table, record, key, late=late)
    return row_change(table, record)


def unwrapped(message: dict[str, Any]) -> dict[str, Any]:
    """A message without the schema that was sent along."""
    payload = message.get("payload")
    return payload if isinstance(payload, dict) and message.keys() <= {"payload", "schema"} else message


def resolved_us(message: dict[str, Any]) -> int | None:
    """The time up to which a changefeed has sent everything, in microseconds; None for a message of a row."""
    return parse_hlc("the changefeed", message["resolved"])[0] // 1_000 if "resolved" in message else None


def cockroach_change(
    table: str, message: dict[str, Any], key: bytes | None = None, *, late: bool = False
) -> RowChange | None:
    """The change in a message; None for a resolved timestamp. `key` is the Kafka record's, for deletes.

    A change that comes `late` only names its row, whose present values are then asked for (connectors/present.py).

    Raises `MalformedEvent` when it is no change, or tells too little: changefeeds need the options `updated` (or
    enriched with `source`) and `diff`, without which a new row looks like one that has changed.
    """
    if "resolved" in message and "after" not in message:
        return None
    if "after" not in message:
        raise MalformedEvent(f"The change of {table} has no row after it: {', '.join(sorted(message)) or 'nothing'}.")
    position = _position(table, message)
    after, before = message["after"], message.get("before")
    op = _op(table, message, after, before)
    row = after
    if op == "d":
        row = deleted_row(table, before) if isinstance(before, dict) else _key_of(table, message, key)
    if not isinstance(row, dict):
        raise MalformedEvent(f"The change of {table} has no row.")
    if op == "u" and "before" not in message and not late:
        raise MalformedEvent(
            f"The change of {table} does not tell whether the row is new: the changefeed needs the option diff."
        )
    return RowChange(table, op, row, position, position[0] // 1_000_000)


def _position(table: str, message: dict[str, Any]) -> tuple[int, int]:
    source = message.get("source")
    hlc = (source.get("ts_hlc") if isinstance(source, dict) else None) or message.get("updated")
    if hlc is None:
        raise MalformedEvent(f"The change of {table} has no place: the changefeed needs the option updated.")
    return parse_hlc(table, hlc)


def _op(table: str, message: dict[str, Any], after: object, before: object) -> Op:
    op = message.get("op")
    if op is None:
        # Wrapped: a row is new if there was none before it.
        return "d" if after is None else "c" if "before" in message and before is None else "u"
    if op not in _OPS:
        raise MalformedEvent(f"The change of {table} has the unknown operation {op!r}.")
    return cast(Op, op)


def _key_of(table: str, message: dict[str, Any], key: bytes | None) -> dict[str, Any]:
    """The primary key of a deleted row: from the value's key or from the record's."""
    columns = KEY_COLUMNS.get(table)
    if columns is None:
        raise MalformedEvent(f"The delete of {table} lacks the row before it: the changefeed needs the option diff.")
    found = message.get("key")
    if found is None and key is not None:
        try:
            found = json.loads(key)
        except ValueError as error:
            raise MalformedEvent(f"The delete of {table} has a key that is no JSON.") from error
        found = unwrapped(found) if isinstance(found, dict) else found
    if isinstance(found, list) and len(found) >= len(columns):
        # A hash-sharded key starts with the number of its bucket.
        found = dict(zip(columns, found[len(found) - len(columns) :], strict=True))
    if not isinstance(found, dict) or not set(columns) <= found.keys():
        raise MalformedEvent(f"The delete of {table} lacks its key {', '.join(columns)}.")
    return {column: found[column] for column in columns}
