"""What a row change does to counts and flags: the one place where that is decided."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fanline.changes import RowChange
from readmodels import incremental
from readmodels.counts import (
    ACCOUNT_COUNTS,
    BOOKMARKS,
    FOLLOWERS,
    FOLLOWING,
    LIKES,
    REPLIES,
    REPOSTS,
    STATUS_COUNTS,
    STATUSES,
    day_of_text,
)
from readmodels.flags import BOOKMARKED, FAVOURITED, FLAGS, MUTED, PINNED, REBLOGGED, VOTES, vote
from readmodels.incremental import Kind

# The numbers are part of the layout of values: they never change their meaning.
TOPICS = {
    "posts": 1,
    "likes": 2,
    "bookmarks": 3,
    "pins": 4,
    "conversation_mutes": 5,
    "poll_votes": 6,
    "follows": 7,
    "users": 8,
}
"""The tables whose changes have to be read, with the number that stands for each in a value's places."""

KINDS = (STATUS_COUNTS, ACCOUNT_COUNTS, FLAGS)
"""Every kind of value."""

GONE = "gone"
FORGET = "forget"
PRESENT = "present"

_SNAPSHOT = (0, 0)
_ALL_BITS = (1 << 64) - 1
_COUNTED = ("public", "unlisted")


class Effect(NamedTuple):
    """What a change does to one value: a change of a field (`incremental.change`), or one of the fates.

    `GONE`: the thing does not exist any more; `FORGET`: the value has to be loaded again; `PRESENT`: it must be there.
    """

    kind: Kind
    identifier: int | str
    does: bytes | str


def effects_of(change: RowChange) -> list[Effect]:
    """The effects of a change; raises `LookupError` or `ValueError` for a row that is not as it should be."""
    if change.op == "u":
        return []
    row = change.row
    if change.position == _SNAPSHOT:
        return [_once_more(effect, change.op) for effect in _effects(change, row, adds=True)]
    return _effects(change, row, adds=change.op != "d")


def _once_more(effect: Effect, op: str) -> Effect:
    """A row of a snapshot, or one whose change comes late: others may have been missed with it."""
    if op == "d" and effect.does == PRESENT:
        return effect._replace(does=GONE)
    return effect._replace(does=FORGET)


def _effects(change: RowChange, row: Mapping[str, Any], *, adds: bool) -> list[Effect]:
    position, transaction = change.position, change.transaction

    def counts(kind: Kind, identifier: int | str, row_id: int, field: int, day: int = 0) -> Effect:
        return Effect(kind, identifier, incremental.change(position, transaction, row_id, field, adds, day))

    match change.table:
        case "likes":
            user, post = row["user_id"], row["post_id"]
            return [
                counts(STATUS_COUNTS, post, _short(user), LIKES),
                counts(FLAGS, user, post, FAVOURITED),
            ]
        case "bookmarks":
            user, post = row["user_id"], row["post_id"]
            return [
                counts(STATUS_COUNTS, post, _short(user), BOOKMARKS),
                counts(FLAGS, user, post, BOOKMARKED),
            ]
        case "pins":
            return [counts(FLAGS, row["user_id"], row["post_id"], PINNED)]
        case "conversation_mutes":
            return [counts(FLAGS, row["user_id"], row["post_id"], MUTED)]
        case "poll_votes":
            return [counts(FLAGS, row["voter_id"], vote(row["poll_id"], row["position"]), VOTES)]
        case "follows":
            follower, followee = row["follower_id"], row["followee_id"]
            return [
                counts(ACCOUNT_COUNTS, followee, _short(follower), FOLLOWERS),
                # Two people who follow each other may share a place in the log.
                counts(ACCOUNT_COUNTS, follower, ~_short(followee) & _ALL_BITS, FOLLOWING),
            ]
        case "posts":
            return _of_post(change, row, counts, adds=adds)
        case "users" if change.op == "d":
            return [Effect(ACCOUNT_COUNTS, row["id"], GONE), Effect(FLAGS, row["id"], GONE)]
        case _:
            return []


def _of_post(change: RowChange, row: Mapping[str, Any], counts: Any, *, adds: bool) -> list[Effect]:
    post, author, original, parent = row["id"], row["author_id"], row["repost_of_id"], row["in_reply_to_id"]
    # New posts are read at once by many, so their counts are loaded before anybody asks.
    effects = [Effect(STATUS_COUNTS, post, PRESENT if adds else GONE)]
    if row["visibility"] != "direct":
        effects.append(counts(ACCOUNT_COUNTS, author, post, STATUSES, day_of_text(row["created_at"])))
    if original:
        effects.append(counts(STATUS_COUNTS, original, post, REPOSTS))
        effects.append(counts(FLAGS, author, original, REBLOGGED))
    if parent and row["visibility"] in _COUNTED:
        effects.append(counts(STATUS_COUNTS, parent, post, REPLIES))
    return effects


def _short(user: str) -> int:
    """Eight bytes that tell a user from the others whose rows share a place in the log: the random end of the id."""
    return int(user[19:23] + user[24:], 16)
