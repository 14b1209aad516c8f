"""What a viewer has done with posts: liked, reposted, bookmarked, pinned or muted them, or voted in their polls.

Kept by adding row changes (readmodels/incremental.py), only for people who read. Payload of `e:{<user id>}`: six sets
of ids (8 bytes each) in the order of `SETS`, each as

    horizon (8), a number (4), the ids above the horizon, ascending

At or below its horizon a set knows nothing and the database has to be asked. The ids are those of posts (of a thread's
first post for mutes); a vote is the poll's id and the option's position in the lowest five bits.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from readmodels.entities import NO_FLAGS
from readmodels.incremental import SNAPSHOT, Kind, Row

SETS = ("reblogged", "favourited", "bookmarked", "pinned", "muted", "votes")
REBLOGGED, FAVOURITED, BOOKMARKED, PINNED, MUTED, VOTES = range(len(SETS))
KEPT = 2_000
"""Ids of a set that are kept at least: more than a timeline has posts."""
OPTION_BITS = 5

_HEAD = struct.Struct(">QI")


def _newest(column: str, table: str, condition: str) -> str:
    return f"ARRAY(SELECT {column} FROM {table} WHERE {condition} ORDER BY 1 DESC LIMIT {KEPT + 1})"


FLAGS_BY_ID = f"""
SELECT u.id,
       {_newest("repost_of_id", "posts", "author_id = u.id AND repost_of_id IS NOT NULL")} AS reblogged,
       {_newest("post_id", "likes", "user_id = u.id")} AS favourited,
       {_newest("post_id", "bookmarks", "user_id = u.id")} AS bookmarked,
       {_newest("post_id", "pins", "user_id = u.id")} AS pinned,
       {_newest("post_id", "conversation_mutes", "user_id = u.id")} AS muted,
       {_newest(f"poll_id * {1 << OPTION_BITS} + position", "poll_votes", "voter_id = u.id")} AS votes,
       {SNAPSHOT}
FROM users u
WHERE u.id = ANY(%(ids)s::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Flags:
    """A viewer's flags, as far as ids above the horizons go."""

    horizon: int
    """At or below this id of a post or thread the database has to be asked."""
    of_post: Mapping[int, int]
    """For each post with any flag, a bit (`1 << REBLOGGED`, ...) a flag; for mutes, by the thread's first post."""
    votes_horizon: int
    """At or below this poll's id the database has to be asked."""
    votes: Mapping[int, list[int]]
    """The positions of the options that were voted for, by poll."""

    def knows(self, post_id: int, conversation: int) -> bool:
        """Whether `bits` is the truth about a post of a thread."""
        return conversation > self.horizon and post_id > self.horizon

    def bits(self, post_id: int, conversation: int) -> int:
        """The flags of a post of a thread."""
        of_post = self.of_post
        if conversation == post_id:
            return of_post.get(post_id, 0)
        return of_post.get(post_id, 0) & ~_MUTED | of_post.get(conversation, 0) & _MUTED


_MUTED = 1 << MUTED
NO_BITS = Flags(0, {}, 0, {})


def vote(poll_id: int, position: int) -> int:
    """What stands for a vote in a set; raises `ValueError` for an option that a set cannot hold."""
    if not 0 <= position < 1 << OPTION_BITS:
        raise ValueError(f"A poll has at most {1 << OPTION_BITS} options, this vote is for number {position + 1}.")
    return poll_id << OPTION_BITS | position


def bits_of(row: Row) -> int:
    """The bits of a row of `STATUS_FLAGS_BY_ID`."""
    return sum(1 << number for number, name in enumerate(SETS[:VOTES]) if row[name])


def entity_of(bits: int) -> dict[str, bool]:
    """The flags of a Status entity, in its order."""
    return {name: bool(bits >> SETS.index(name) & 1) for name in NO_FLAGS}


def _payload(row: Row) -> bytes:
    parts: list[bytes] = []
    for name in SETS:
        ids: list[int] = row[name]
        kept = ids[:KEPT]
        horizon = ids[KEPT] if len(ids) > KEPT else 0
        parts.append(_HEAD.pack(horizon, len(kept)) + struct.pack(f">{len(kept)}Q", *reversed(kept)))
    return b"".join(parts)


def sets(payload: bytes) -> list[tuple[int, tuple[int, ...]]]:
    """The horizon and the ids of each set, in the order of `SETS`; none for an empty payload."""
    found = []
    at = 0
    while at < len(payload):
        horizon, number = _HEAD.unpack_from(payload, at)
        found.append((horizon, struct.unpack_from(f">{number}Q", payload, at + _HEAD.size)))
        at += _HEAD.size + 8 * number
    return found


def flags(payload: bytes) -> Flags:
    """The flags in a payload."""
    if not payload:
        return NO_BITS
    *of_posts, (votes_horizon, votes) = sets(payload)
    bits: dict[int, int] = {}
    for number, (_, ids) in enumerate(of_posts):
        for post_id in ids:
            bits[post_id] = bits.get(post_id, 0) | 1 << number
    return Flags(max(horizon for horizon, _ in of_posts), bits, votes_horizon >> OPTION_BITS, by_poll(votes))


def by_poll(votes: Iterable[int]) -> dict[int, list[int]]:
    """The positions voted for, by poll, of votes in ascending order."""
    polls: dict[int, list[int]] = {}
    for each in votes:
        polls.setdefault(each >> OPTION_BITS, []).append(each & (1 << OPTION_BITS) - 1)
    return polls


FLAGS = Kind("flags", b"e", FLAGS_BY_ID, _payload, b"S", sparse=True, kept=KEPT)
