"""Values that are loaded from the database once and then kept by adding row changes, each exactly once.

Layout: `<prefix>:{<id>}`, a string that begins with one byte:

    M   a mark: a token (8); somebody is about to load the value. Readers go on as if it were missing
    G   nothing: the thing does not exist (any more)
    H   the payload's size (4), the payload, the base, and the places

    payload   of shape C or N: counters (4 each), and for N the newest post (8) and its day since 1970 (4);
              of shape S: sets of ids, see readmodels/flags.py
    base      what the database had seen when the value was loaded:
              P, the log's end (8), zeros (8), xmax (4), a number (2) and the transactions (4 each) that ran; or
              C, CockroachDB's time (16)
    places    for each partition of a topic that has changed the value: topic (1), partition (2), the position (16) of
              the last change applied, a number (2) and the ids (8 each) of the rows applied at it

A change counts if the base has not seen it and its partition has not come past it. So duplicates and replays count
once, whoever reads the partition; rows of one COPY share a position and are told apart by their ids. The base has seen
a transaction that its snapshot shows; numbers of transactions are compared in their circle of 2^32, and whatever lies
behind the log's end of then is new, so that a value may outlive the circle.

CockroachDB's changefeeds keep each row's order but none across rows. There a change behind the last one of its
partition that the base has not seen may be a replay, or overtaken by another row's: the value is loaded again, and its
new base has seen whatever else is on its way. A replay of everything costs one load a value.

Loading: a mark is set (or one that is there is taken over), the database is asked, and the value is written if the
same mark still stands. A change that meets a mark replaces its token. Flows apply changes that queries see already
(`wait_until_visible`), so whoever loads under the new token sees the change, and whoever loaded under the old one
writes nothing: no value is ever written without a change that has passed it. The same holds when Redis loses values:
the mark is lost with them. Applying must keep each partition's order: a change is sent when those before are answered.

A flow loads what it meets, so that readers find it; *sparse* kinds exist only for who reads, and changes of a missing
one are dropped: it will be loaded later. Rows of snapshots and changes that come back out of their order (position
(0, 0)) are facts of now: they make the value missing.
"""

import secrets
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fanline.changes import parse_hlc
from fanline.resp import bulk, pack
from readmodels import generations
from readmodels.effects import Command, Effects, Query, Redis, call, command

MODEL = "engagement"

Id = UUID | int
Row = Mapping[str, Any]
Changes = bytes | dict[bytes, bytes]

MARKED, GONE, HELD = b"M", b"G", b"H"
TOKEN_BYTES = 8
SECONDS_TO_LIVE = 35 * 86_400
"""Longer than a timeline stays warm, so that a warm read finds its counts."""
GONE_SECONDS = 3_600
"""Long enough for the changes that come with a deletion; what comes later asks the database once more."""

SNAPSHOT = """pg_current_snapshot()::text AS snapshot,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS log_end"""
"""Columns of every query that loads values: what its snapshot shows, and the end of the log after it was taken."""
HYBRID_TIME = "cluster_logical_timestamp()::text AS hybrid_time"
"""What stands for them on CockroachDB: the time up to which the query sees everything; needs SERIALIZABLE isolation."""

_columns = SNAPSHOT
_CIRCLE = 0xFFFFFFFF
_SIZE = struct.Struct(">I")
_BASE = struct.Struct(">cQQIH")
_TIME = struct.Struct(">cQQ")
_WHEN = struct.Struct(">QQI")
_WHAT = struct.Struct(">BBI")
_PLACE = struct.Struct(">BH")
_UNSURE = 2
_APPLY = pack(b"FCALL", b"incremental_apply", b"1")[4:]
"""The command's first words without their number."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: where it is, how it is loaded and what shape its payload has."""

    name: str
    prefix: bytes
    sql: str
    """Takes `%(ids)s`, an array; answers one row with an `id` and the columns of `SNAPSHOT` for each thing there is."""
    encode: Callable[[Row], bytes]
    """Turns a row into a payload."""
    shape: bytes
    sparse: bool = False
    kept: int = 0
    """Of shape S: how many ids of a set are kept at least."""

    def key(self, identifier: Id | str) -> bytes:
        """The key of a value."""
        return generations.key(self.prefix, MODEL, str(identifier).encode())

    def keys(self, identifiers: Iterable[Id | str]) -> list[bytes]:
        """The keys of many values."""
        start = generations.key(self.prefix, MODEL, b"")[:-1].decode()
        return [f"{start}{identifier}}}".encode() for identifier in identifiers]


Reference = tuple[Kind, Id]


def use_dialect(dialect: str) -> None:
    """Make this process load values from this kind of database: `postgres` or `cockroach`."""
    global _columns
    _columns = HYBRID_TIME if dialect == "cockroach" else SNAPSHOT


def body(value: bytes | None) -> bytes | None:
    """The payload of a value that was read; None if it has to be loaded, empty if the thing does not exist."""
    if value is None:
        return None
    if value[:1] == HELD:
        return value[5 : 5 + int(_SIZE.unpack_from(value, 1)[0])]
    # What is neither marked nor gone is a value of an earlier layout.
    return b"" if value[:1] == GONE else None


def read(reference: Reference) -> Command:
    """Reads a value."""
    kind, identifier = reference
    return command(kind.key(identifier), b"GET")


def held(row: Row, payload: bytes) -> bytes:
    """A loaded value, of the row of a kind's query."""
    begin = HELD + _SIZE.pack(len(payload)) + payload
    if "hybrid_time" in row:
        return begin + _TIME.pack(b"C", *parse_hlc("this value", row["hybrid_time"]))
    _, xmax, running = row["snapshot"].split(":")
    transactions = [int(number) & _CIRCLE for number in running.split(",") if number]
    base = _BASE.pack(b"P", row["log_end"], 0, int(xmax) & _CIRCLE, len(transactions))
    return begin + base + struct.pack(f">{len(transactions)}I", *transactions)


def place(topic: int, partition: int) -> bytes:
    """A partition of a topic, as groups of changes begin."""
    return _PLACE.pack(topic, partition)


def when(position: tuple[int, int], transaction: int | None) -> bytes:
    """How a change begins: its place in the log and its transaction.

    Then come eight bytes that name the row among those of its table that may change the same value, and `what`.
    """
    return _WHEN.pack(position[0], position[1], transaction or 0)


def what(field: int, adds: bool, day: int = 0) -> bytes:
    """How a change ends: the field, whether it adds or takes away, and the day."""
    return _WHAT.pack(field, adds, day)


def unsure(field: int) -> bytes:
    """How a change ends that takes away a row for which another one may stand: the value has to be loaded again."""
    return _WHAT.pack(field, _UNSURE, 0)


class Applier:
    """Packs the commands that apply changes, with one token for all of them."""

    def __init__(self) -> None:
        self.token = secrets.token_bytes(TOKEN_BYTES)

    def pack(self, kind: Kind, keys: Iterable[bytes], changes: Iterable[Changes]) -> list[bytes]:
        """A command for each key of a kind that applies the changes of its value; it answers 0 if it has to be loaded.

        Changes come behind their place, in their order: those of one place as bytes, of several by place. No bytes only
        ask for the value.
        """
        words = (kind.shape, b"1" if kind.sparse else b"0", self.token, b"%d" % SECONDS_TO_LIVE, b"%d" % kind.kept)
        settled = b"".join(map(bulk, words))
        one = b"*10\r\n" + _APPLY
        # One format, as most values change in one place in a batch.
        return [
            b"%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n" % (one, len(key), key, settled, len(change), change)
            if change and type(change) is bytes
            else _of_places(key, settled, change)
            for key, change in zip(keys, changes, strict=True)
        ]


def _of_places(key: bytes, settled: bytes, changes: Changes) -> bytes:
    groups = changes.values() if isinstance(changes, dict) else ()
    head = b"*%d\r\n%b$%d\r\n%b\r\n%b" % (9 + len(groups), _APPLY, len(key), key, settled)
    return head + b"".join(map(bulk, groups))


def forget(key: bytes) -> Command:
    """Makes a value missing: it has to be loaded again."""
    return command(key, b"DEL")


def gone(key: bytes) -> Command:
    """Says that the thing does not exist any more."""
    return command(key, b"SET", GONE, b"EX", GONE_SECONDS)


def complete(references: Collection[Reference], token: bytes) -> Effects[None]:
    """Loads values that `Applier.apply` answered 0 for, under its token; returns when each one is there."""
    wanted = dict.fromkeys(references, token)
    while wanted:
        values, _ = yield from _values(wanted)
        filled = yield Redis([_fill(reference, wanted[reference], value) for reference, value in values.items()])
        missing = [reference for reference, is_there in zip(values, filled, strict=True) if not is_there]
        wanted = (yield from _begin(missing)) if missing else {}


def fill(references: Collection[Reference]) -> Effects[dict[Reference, bytes]]:
    """Reads missing values from the database and writes those that no change has met meanwhile; the payloads."""
    tokens = yield from _begin(references)
    values, payloads = yield from _values(references)
    yield Redis([_fill(reference, token, values[reference]) for reference, token in tokens.items()])
    return payloads


def load(references: Collection[Reference]) -> Effects[dict[Reference, bytes]]:
    """The payloads straight from the database, empty where nothing exists."""
    _, payloads = yield from _values(references)
    return payloads


def _begin(references: Collection[Reference]) -> Effects[dict[Reference, bytes]]:
    """Sets marks; the tokens of those that have to be loaded."""
    token = secrets.token_bytes(TOKEN_BYTES)
    tokens = yield Redis([call(b"incremental_begin", [kind.key(found)], token) for kind, found in references])
    return {reference: token for reference, token in zip(references, tokens, strict=True) if token}


def _fill(reference: Reference, token: bytes, value: bytes) -> Command:
    kind, identifier = reference
    seconds = GONE_SECONDS if value == GONE else SECONDS_TO_LIVE
    return call(b"incremental_fill", [kind.key(identifier)], token, value, seconds)


def _values(references: Collection[Reference]) -> Effects[tuple[dict[Reference, bytes], dict[Reference, bytes]]]:
    """Values and payloads from the database."""
    values = dict.fromkeys(references, GONE)
    payloads = dict.fromkeys(references, b"")
    by_kind: dict[Kind, list[Id]] = {}
    for kind, identifier in references:
        by_kind.setdefault(kind, []).append(identifier)
    for kind, identifiers in by_kind.items():
        rows: Sequence[Row] = yield Query(kind.sql.replace(SNAPSHOT, _columns), {"ids": identifiers})
        for row in rows:
            payload = kind.encode(row)
            values[kind, row["id"]], payloads[kind, row["id"]] = held(row, payload), payload
    return values, payloads
