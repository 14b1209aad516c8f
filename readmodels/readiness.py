"""Whether Redis holds every author's followers and recent posts, without which a timeline cannot be kept.

Layout: `ready:{<n>}` for n below 64, spread over the nodes of a cluster:

    generation (8 random bytes)   of the last rebuild
    b"B" + generation             while that rebuild goes on

If one is missing, a node has lost its data: the API answers from the database, the followers flow builds everything
again from it, and the new generation makes every timeline from before as good as absent. A rebuild ends only where its
mark is still there, so that a node which loses its data meanwhile is found out.
"""

import secrets
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from readmodels import followers, generations, recents
from readmodels.effects import Command, Effects, Query, Redis, call, command
from readmodels.followers import MODEL

NODES = 64
GENERATION_BYTES = 8
BUILDING = b"B"
AUTHORS_PER_STEP = 500

AUTHORS_AFTER = "SELECT id FROM users WHERE id > %(after)s::uuid ORDER BY id LIMIT %(limit)s"


def mark_keys() -> list[bytes]:
    """The keys, spread over the nodes of a cluster."""
    return [generations.key(b"ready", MODEL, b"%d" % number) for number in range(NODES)]


def read(key: bytes) -> Command:
    """Reads one of the keys."""
    return command(key, b"GET")


def generation_of(values: Sequence[bytes | None]) -> bytes | None:
    """The generation that all these keys agree on; None if a rebuild is needed or goes on."""
    first = values[0]
    return first if first is not None and len(first) == GENERATION_BYTES and len(set(values)) == 1 else None


def generation() -> Effects[bytes | None]:
    """The generation that all nodes agree on; None if followers and recent posts have to be built again."""
    values = yield Redis([read(key) for key in mark_keys()])
    return generation_of(values)


def rebuild(chunk_capacity: int, threshold: int, cap: int) -> Effects[bytes]:
    """Builds followers and recent posts from the database; the new generation.

    Whoever applies follows has to wait until it is over, and then goes on from where they were: an edge that changes
    meanwhile comes again from the log.
    """
    while True:
        made = secrets.token_bytes(GENERATION_BYTES)
        yield Redis([command(key, b"SET", BUILDING + made) for key in mark_keys()])
        yield from _restore_all(chunk_capacity, threshold, cap)
        if all((yield Redis([call(b"ready_set", [key], BUILDING + made, made) for key in mark_keys()]))):
            return made


def _restore_all(chunk_capacity: int, threshold: int, cap: int) -> Effects[None]:
    last = UUID(int=0)
    while True:
        rows: Sequence[Any] = yield Query(AUTHORS_AFTER, {"after": last, "limit": AUTHORS_PER_STEP})
        if not rows:
            break
        authors = [row["id"] for row in rows]
        last = authors[-1]
        edges = yield Query(followers.EDGES_OF_AUTHORS, {"authors": authors})
        newest = yield Query(recents.NEWEST_BY_AUTHOR, {"authors": authors, "limit": cap + 1})
        writes: list[Command] = []
        for author, rows_of_author in groupby(edges, lambda row: row["followee_id"]):
            ids = [row["follower_id"].bytes for row in rows_of_author]
            writes += followers.restore(author, ids, chunk_capacity, celebrity=len(ids) > threshold)
        for author, rows_of_author in groupby(newest, lambda row: row["author_id"]):
            writes.append(recents.restore(author, list(rows_of_author), cap))
        if writes:
            yield Redis(writes)
