"""Who follows an author, in chunks that a fan-out can take one at a time.

Layout, all under the hash tag of the author:

    f:{<user id>}        hash: chunks, followers (numbers), state (push, pull or draining), last<partition> (position
                         of the last change of that partition, 16 bytes, by which a replay is known)
    f:{<user id>}:<n>    string: 16-byte ids of followers, unordered, each once; n from 0 to chunks - 1
    celebrities:{all}    set of 16-byte user ids whose recent lists readers merge

Chunks hold about FANLINE_FOLLOWERS_CHUNK followers and grow by linear hashing, so an edge costs 16 bytes and a little.
A chunk index never goes away, and a chunk that is split moves followers to the end: a fan-out that walks the
indices until it has passed the last one meets everybody (some twice, which a timeline does not mind).

Where partitions keep no order across rows (CockroachDB), a change behind the last one may be a replay or may have been
overtaken by another row's: the database is asked whether the follow is there (readmodels/following.py), and so it is
of rows that a snapshot has read.

State: `push` (posts are pushed), `pull` (readers merge the author's recent list), `draining` (back to push: posts are
pushed and still merged, until every follower's timeline has been backfilled).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from readmodels import generations
from readmodels.effects import Command, call, command

MODEL = "followers"
"""Followers, authors' recent lists and what says that they are complete are one read model: a fan-out needs all."""

PLACE = b"last"
"""How the fields begin that tell places in the log."""

NOW = (0, 0)
"""The position of what the database says now: always applied, and it hides no change of the log."""

PUSH = b"push"
PULL = b"pull"
DRAINING = b"draining"

EDGES_OF_AUTHORS = """
SELECT followee_id, follower_id FROM follows WHERE followee_id = ANY(%(authors)s::uuid[]) ORDER BY followee_id
"""
ORACLE = "SELECT follower_id FROM follows WHERE followee_id = %(author)s"
THERE = """
SELECT f.follower_id, f.followee_id
FROM unnest(%(followers)s::uuid[], %(followees)s::uuid[]) AS e (follower_id, followee_id)
JOIN follows f ON f.follower_id = e.follower_id AND f.followee_id = e.followee_id
"""

_POSITION = struct.Struct(">QQ")


@dataclass(frozen=True, slots=True)
class Edge:
    """A follow that came or went, with the place of the change in the log."""

    follower: UUID
    followee: UUID
    follows: bool
    partition: int
    position: tuple[int, int]
    ordered: bool = True
    """Whether the partition keeps the order of commits, so that what lies behind its last change is a replay."""

    def now(self, follows: bool) -> "Edge":
        """The follow as a fact of now."""
        return replace(self, follows=follows, position=NOW)


def facts_key(author: UUID) -> bytes:
    """The key of the facts about an author's followers."""
    return generations.key(b"f", MODEL, str(author).encode())


def celebrities_key() -> bytes:
    """The key of the set of authors whose posts are pulled by readers."""
    return generations.key(b"celebrities", MODEL, b"all")


def apply(edge: Edge, chunk_capacity: int) -> Command:
    """Adds or removes a follower, once however often it is repeated.

    The reply is `[changed, followers, state, behind]`; `behind` is 1 if the change lies behind the last one of its
    partition, and has done nothing.
    """
    return call(
        b"follower_apply", [facts_key(edge.followee)],
        edge.follower.bytes, int(edge.follows), edge.partition, _POSITION.pack(*edge.position), chunk_capacity,
    )  # fmt: skip


def drop(author: UUID, index: int, follower: bytes) -> Command:
    """Takes every occurrence of some bytes out of a chunk, whatever the log says: for what does not belong there."""
    return call(b"follower_drop", [facts_key(author)], index, follower)


def change_state(author: UUID, expected: bytes, state: bytes) -> Command:
    """Moves the author to another state; the reply is 1 if the state was the expected one."""
    return call(b"followers_state", [facts_key(author)], expected, state)


def forget(author: UUID) -> Command:
    """Removes everything that is kept of an author's followers."""
    return call(b"followers_forget", [facts_key(author)])


def read_chunk(author: UUID, index: int) -> Command:
    """Reads a chunk; the reply is `[ids, chunks]`."""
    return call(b"followers_chunk", [facts_key(author)], index, read_only=True)


def add_celebrity(author: UUID) -> Command:
    """Makes readers merge the author's recent list."""
    return command(celebrities_key(), b"SADD", author.bytes)


def remove_celebrity(author: UUID) -> Command:
    """Ends the merging of the author's recent list."""
    return command(celebrities_key(), b"SREM", author.bytes)


def split_ids(chunk: bytes) -> list[bytes]:
    """The 16-byte ids in a chunk."""
    return [chunk[at : at + 16] for at in range(0, len(chunk), 16)]


def chunk_index(follower: bytes, chunks: int) -> int:
    """The chunk that a follower belongs to among so many (linear hashing; the same rule as functions/followers.lua)."""
    round_size = 1 << (chunks.bit_length() - 1)
    number = int.from_bytes(follower[12:16])
    index = number % round_size
    return number % (round_size * 2) if index < chunks - round_size else index


def restore(author: UUID, followers: Sequence[bytes], chunk_capacity: int, celebrity: bool) -> list[Command]:
    """Writes an author's followers anew from the database."""
    chunks = max(1, -(-len(followers) // chunk_capacity))
    parts: list[list[bytes]] = [[] for _ in range(chunks)]
    for follower in followers:
        parts[chunk_index(follower, chunks)].append(follower)
    key = facts_key(author)
    state = PULL if celebrity else PUSH
    facts = command(key, b"HSET", b"chunks", chunks, b"followers", len(followers), b"state", state)
    writes = [facts]
    for index, part in enumerate(parts):
        chunk_key = b"%s:%d" % (key, index)
        writes.append(command(chunk_key, b"SET", b"".join(part)) if part else command(chunk_key, b"DEL"))
    if celebrity:
        writes.append(add_celebrity(author))
    return writes
