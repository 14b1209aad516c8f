"""Row changes as read models see them: one shape out of Debezium's unwrapped rows."""

from dataclasses import dataclass
from typing import Any, Literal, cast

from fanline.errors import MalformedEvent

Op = Literal["c", "u", "d", "r"]

TOPIC_PREFIX = "cdc."

# Tables whose deletes carry only the key (Postgres' default replica identity). Debezium fills the other columns with
# zeros, empty texts and 1970, which look like data; they are taken out.
KEY_COLUMNS: dict[str, tuple[str, ...]] = {
    "users": ("id",),
    "follows": ("follower_id", "followee_id"),
    "blocks": ("blocker_id", "blocked_id"),
    "mutes": ("muter_id", "muted_id"),
    "media": ("id",),
    "follow_requests": ("follower_id", "followee_id"),
    "likes": ("user_id", "post_id"),
    "bookmarks": ("user_id", "post_id"),
    "pins": ("user_id", "post_id"),
    "conversation_mutes": ("user_id", "post_id"),
    "polls": ("id",),
    "poll_votes": ("poll_id", "voter_id", "position"),
    "markers": ("user_id", "timeline"),
    "filters": ("id",),
    "heartbeat": ("id",),
    "signal": ("id",),
}

# Tables whose deletes carry more that is needed: Postgres logs their whole rows (REPLICA IDENTITY FULL).
MORE_COLUMNS: dict[str, tuple[str, ...]] = {
    "users": ("created_at",),
    "follows": ("created_at",),
    "likes": ("created_at",),
    "filters": ("user_id",),
}

_OPS = ("c", "u", "d", "r")


@dataclass(slots=True)
class RowChange:
    """One committed change of one row.

    `row` has the table's captured columns: after the change, or before a delete (then, except for posts, the key and
    `MORE_COLUMNS`). uuids and times are text, 64-bit numbers are int. `position` is (LSN of the last commit before it,
    its own LSN): inside a partition it only goes back on a replay, and rows of one COPY may share it. Of a row that a
    snapshot has read it is (0, 0). From CockroachDB it is the hybrid logical clock (nanoseconds, logical part): for
    each row it only goes back on a replay, but those of a partition's other rows come in any order, and the rows of a
    transaction share it; of a row that a scan has read it is the scan's time. `source_ms` is the commit's time in
    milliseconds since the epoch (of a snapshot: the reading's). `transaction` is the 32-bit id of the Postgres
    transaction; None for a row that a snapshot has read and for databases that have none.
    """

    table: str
    op: Op
    row: dict[str, Any]
    position: tuple[int, int]
    source_ms: int
    transaction: int | None = None


def table_of(topic: str) -> str:
    """The table of a `cdc.` topic; raises `ValueError` for another topic."""
    if not topic.startswith(TOPIC_PREFIX):
        raise ValueError(f"{topic} is no topic of row changes.")
    return topic[len(TOPIC_PREFIX) :]


def row_change(table: str, record: dict[str, Any]) -> RowChange:
    """The change in a decoded record, which is taken apart; raises `MalformedEvent` when it is not one.

    Tombstones (records without a value) are the caller's to drop.
    """
    try:
        op = record.pop("__op")
        deleted = record.pop("__deleted")
        hlc = record.pop("__source_ts_hlc", None)
        sequence = record.pop("__source_sequence") if hlc is None else None
        source_ms = record.pop("__source_ts_ms")
        transaction = record.pop("__source_txId", None)
    except KeyError as error:
        raise MalformedEvent(f"The change of {table} lacks {error.args[0]}.") from error
    if op not in _OPS:
        raise MalformedEvent(f"The change of {table} has the unknown operation {op!r}.")
    if deleted == "true":
        op = "d"
        record = deleted_row(table, record)
    if not isinstance(source_ms, int):
        raise MalformedEvent(f"The change of {table} has no time.")
    if hlc is not None:
        return RowChange(table, cast(Op, op), record, parse_hlc(table, hlc), source_ms)
    if op == "r":
        return RowChange(table, "r", record, (0, 0), source_ms)
    if transaction is not None and not isinstance(transaction, int):
        raise MalformedEvent(f"The change of {table} has the transaction {transaction!r}, which is no number.")
    return RowChange(table, cast(Op, op), record, parse_sequence(table, sequence), source_ms, transaction)


def deleted_row(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """What a delete tells of a row; raises `MalformedEvent` when its key is missing."""
    if table not in KEY_COLUMNS:
        return row
    try:
        kept = {column: row[column] for column in KEY_COLUMNS[table]}
    except KeyError as error:
        raise MalformedEvent(f"The delete of {table} lacks its key {error.args[0]}.") from error
    return kept | {column: row[column] for column in MORE_COLUMNS.get(table, ()) if column in row}


def parse_hlc(table: str, hlc: object) -> tuple[int, int]:
    """CockroachDB's hybrid logical clock, such as `1747243394200039000.0000000002`: nanoseconds, logical part."""
    try:
        wall, _, logical = cast(str, hlc).partition(".")
        return int(wall), int(logical or "0")
    except (AttributeError, ValueError) as error:
        raise MalformedEvent(f"The change of {table} has no place: {hlc!r}.") from error


def parse_sequence(table: str, sequence: object) -> tuple[int, int]:
    """Debezium's `source.sequence`, a JSON array of two numbers as strings: last commit and this change.

    The first is null until a new connector has seen a commit. The change's own place then stands for it: nothing that
    an earlier connector has sent lies behind it, and a zero would make the change look older than all of that.
    """
    # Taken apart by hand: this runs for every record, and JSON costs four times as much.
    try:
        commit, lsn = cast(str, sequence)[1:-1].split(",")
        own = int(lsn.strip(' "'))
        return (own if commit == "null" else int(commit.strip(' "')), own)
    except (TypeError, ValueError) as error:
        raise MalformedEvent(f"The change of {table} has no position: {sequence!r}.") from error
