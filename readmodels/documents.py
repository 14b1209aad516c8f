"""Documents: absolute values computed from SQL and kept ready to serve, whatever order the log brings changes in.

Layout: `<prefix>:{<id>}`, a string of a version token (8 bytes, big-endian) and a body:

    an empty body       the thing does not exist (any more)
    one zero byte       reserved: somebody is about to write it (readers go on as if it were missing)
    anything else       the document, as its kind describes

Writing is always the same: take a token, reserve the key if nothing is there, ask the database, write over what is
there unless its token is newer. Whoever has the later token asked the database later, so the last document written has
seen every change that anybody wrote for; duplicates, replays and reordering change nothing. When Redis loses a document
while somebody writes it, nothing is written: a newer one may have been lost with it.

A flow writes the documents that a change affects; a reader fills a missing one. *Sparse* kinds exist only for viewers
who read: a flow refreshes them if they are there, and a reader's reservation is enough for that.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from readmodels import generations
from readmodels.effects import Command, Effects, Query, Redis, call, command

Id = UUID | int
Row = Mapping[str, Any]

TOKEN_KEY = b"document:token"
RESERVED = b"\0"
RESERVED_SECONDS = 60
SECONDS_TO_LIVE = 35 * 86_400
"""Longer than a timeline stays warm, so that a warm read finds its documents."""
GONE_SECONDS = 3_600
"""Of people who are gone documents say so for so long: nobody asks for them any more, and nothing is to be left."""

_TOKEN = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document: where it is, how it is read from the database and how a row becomes a body."""

    name: str
    prefix: bytes
    sql: str
    """Takes `%(ids)s`, an array; answers one row with an `id` for each thing that exists."""
    encode: Callable[[Row, str], bytes]
    """Turns a row into a body; the second argument is the public URL."""
    model: str = "cards"
    """The read model that it belongs to (readmodels/generations.py)."""
    sparse: bool = False
    gone_seconds: int = SECONDS_TO_LIVE
    """How long a document says that the thing does not exist."""

    def key(self, identifier: Id) -> bytes:
        """The key of a document."""
        return generations.key(self.prefix, self.model, str(identifier).encode())


Reference = tuple[Kind, Id]


def body(value: bytes | None) -> bytes | None:
    """The body of a document that was read; None if it is missing and has to be filled, empty if nothing is there."""
    if value is None or value[8:] == RESERVED:
        return None
    return value[8:]


def read(reference: Reference) -> Command:
    """Reads a document."""
    kind, identifier = reference
    return command(kind.key(identifier), b"GET")


def refresh(references: Collection[Reference], public_url: str) -> Effects[None]:
    """Writes the documents that a change has affected; sparse ones only where they are."""
    sparse = [reference for reference in references if reference[0].sparse]
    wanted = [reference for reference in references if not reference[0].sparse]
    if sparse:
        there = yield Redis([command(kind.key(identifier), b"EXISTS") for kind, identifier in sparse])
        sparse = [reference for reference, exists in zip(sparse, there, strict=True) if exists]
    yield from _write(wanted, sparse, public_url)


def fill(references: Collection[Reference], public_url: str) -> Effects[dict[Reference, bytes]]:
    """Reads missing documents from the database and writes them; the bodies, empty where nothing exists."""
    return (yield from _write(references, (), public_url))


def load(references: Collection[Reference], public_url: str) -> Effects[dict[Reference, bytes]]:
    """The bodies straight from the database, empty where nothing exists: what `refresh` and `fill` write."""
    bodies: dict[Reference, bytes] = dict.fromkeys(references, b"")
    by_kind: dict[Kind, list[Id]] = {}
    for kind, identifier in references:
        by_kind.setdefault(kind, []).append(identifier)
    for kind, identifiers in by_kind.items():
        rows: Sequence[Row] = yield Query(kind.sql, {"ids": identifiers})
        for row in rows:
            bodies[kind, row["id"]] = kind.encode(row, public_url)
    return bodies


def _write(
    references: Collection[Reference], there: Collection[Reference], public_url: str
) -> Effects[dict[Reference, bytes]]:
    """Writes documents, and over those that are `there` already."""
    if not references and not there:
        return {}
    answer = yield Redis([call(b"document_token", [TOKEN_KEY])])
    token = _TOKEN.pack(answer[0])
    if references:
        keys = [kind.key(identifier) for kind, identifier in references]
        yield Redis([command(key, b"SET", token + RESERVED, b"NX", b"EX", RESERVED_SECONDS) for key in keys])
    bodies = yield from load([*references, *there], public_url)
    yield Redis(
        [
            call(
                b"document_set",
                [kind.key(identifier)],
                token,
                content,
                SECONDS_TO_LIVE if content else kind.gone_seconds,
            )
            for (kind, identifier), content in bodies.items()
        ]
    )
    return bodies
