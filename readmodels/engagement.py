"""What a row change does to counts and flags: the one place where that is decided."""

from collections.abc import Mapping, Sequence
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
_WHAT = {
    (field, adds): incremental.what(field, adds) for field in range(max(BOOKMARKS, VOTES) + 1) for adds in (False, True)
}
_COUNTED = ("public", "unlisted")


class Effect(NamedTuple):
    """What a change does to one value: a change of a field (`incremental.change`), or one of the fates.

    `GONE`: the thing does not exist any more; `FORGET`: the value has to be loaded again; `PRESENT`: it must be there.
    """

    kind: Kind
    identifier: int | str
    does: bytes | str


class EffectColumn(NamedTuple):
    """Changes of values of one kind, in their order: a column for each part of an `Effect`."""

    kind: Kind
    identifiers: Sequence[int | str]
    does: Sequence[bytes]


def effects_of(change: RowChange) -> list[Effect]:
    """The effects of a change; raises `LookupError` or `ValueError` for a row that is not as it should be."""
    if change.op == "u":
        return []
    row = change.row
    # A row that a scan of CockroachDB has read has the scan's time: whether a value has it already, only a load tells.
    if change.position == _SNAPSHOT or change.op == "r":
        return [_once_more(effect, change.op) for effect in _effects(change, row, adds=True)]
    return _effects(change, row, adds=change.op != "d")


def _once_more(effect: Effect, op: str) -> Effect:
    """A row of a snapshot, or one whose change comes late: others may have been missed with it."""
    if op == "d" and effect.does == PRESENT:
        return effect._replace(does=GONE)
    return effect._replace(does=FORGET)


def _effects(change: RowChange, row: Mapping[str, Any], *, adds: bool) -> list[Effect]:
    when = incremental.when(change.position, change.transaction)
    match change.table:
        case "likes":
            user, post = row["user_id"], row["post_id"]
            return [
                Effect(STATUS_COUNTS, post, when + _short(user) + _WHAT[LIKES, adds]),
                Effect(FLAGS, user, when + post.to_bytes(8) + _WHAT[FAVOURITED, adds]),
            ]
        case "bookmarks":
            user, post = row["user_id"], row["post_id"]
            return [
                Effect(STATUS_COUNTS, post, when + _short(user) + _WHAT[BOOKMARKS, adds]),
                Effect(FLAGS, user, when + post.to_bytes(8) + _WHAT[BOOKMARKED, adds]),
            ]
        case "pins":
            return [Effect(FLAGS, row["user_id"], when + row["post_id"].to_bytes(8) + _WHAT[PINNED, adds])]
        case "conversation_mutes":
            return [Effect(FLAGS, row["user_id"], when + row["post_id"].to_bytes(8) + _WHAT[MUTED, adds])]
        case "poll_votes":
            chosen = vote(row["poll_id"], row["position"])
            return [Effect(FLAGS, row["voter_id"], when + chosen.to_bytes(8) + _WHAT[VOTES, adds])]
        case "follows":
            follower, followee = row["follower_id"], row["followee_id"]
            # Two people who follow each other may share a place in the log.
            other = bytes(255 - byte for byte in _short(followee))
            return [
                Effect(ACCOUNT_COUNTS, followee, when + _short(follower) + _WHAT[FOLLOWERS, adds]),
                Effect(ACCOUNT_COUNTS, follower, when + other + _WHAT[FOLLOWING, adds]),
            ]
        case "posts":
            return _of_post(row, when, adds=adds)
        case "users" if change.op == "d":
            return [Effect(ACCOUNT_COUNTS, row["id"], GONE), Effect(FLAGS, row["id"], GONE)]
        case _:
            return []


def _of_post(row: Mapping[str, Any], when: bytes, *, adds: bool) -> list[Effect]:
    post, author, original, parent = row["id"], row["author_id"], row["repost_of_id"], row["in_reply_to_id"]
    row_id = post.to_bytes(8)
    # New posts are read at once by many, so their counts are loaded before anybody asks.
    effects = [Effect(STATUS_COUNTS, post, PRESENT if adds else GONE)]
    if row["visibility"] != "direct":
        what = incremental.what(STATUSES, adds, day_of_text(row["created_at"]))
        effects.append(Effect(ACCOUNT_COUNTS, author, when + row_id + what))
    if original:
        effects.append(Effect(STATUS_COUNTS, original, when + row_id + _WHAT[REPOSTS, adds]))
        # A later repost of the same post may be in another partition, and have come before this one's end.
        does = _WHAT[REBLOGGED, True] if adds else incremental.unsure(REBLOGGED)
        effects.append(Effect(FLAGS, author, when + original.to_bytes(8) + does))
    if parent and row["visibility"] in _COUNTED:
        effects.append(Effect(STATUS_COUNTS, parent, when + row_id + _WHAT[REPLIES, adds]))
    return effects


def _short(user: str) -> bytes:
    """Eight bytes that tell a user from the others whose rows share a place in the log: the random end of the id."""
    return bytes.fromhex(user[19:23] + user[24:])
