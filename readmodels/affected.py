"""Which documents a row change makes stale; the one place where that is decided."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.documents import Reference
from readmodels.relations import OWN_REPOSTS, VIEWER

KINDS = (ACCOUNT_CARD, ACCOUNT_COUNTS, STATUS_CARD, STATUS_COUNTS, VIEWER, OWN_REPOSTS)
"""Every kind of document."""

TABLES = ("users", "posts", "follows", "blocks", "mutes", "media")
"""The tables whose changes have to be read."""


def affected(table: str, row: Mapping[str, Any]) -> set[Reference]:
    """The documents to write again after a row came, changed or went; `row` has its old values if it went."""
    match table:
        case "users":
            user = _uuid(row["id"])
            return {(ACCOUNT_CARD, user), (ACCOUNT_COUNTS, user), (VIEWER, user), (OWN_REPOSTS, user)}
        case "posts":
            return _of_post(row)
        case "follows":
            follower, followee = _uuid(row["follower_id"]), _uuid(row["followee_id"])
            return {(ACCOUNT_COUNTS, follower), (ACCOUNT_COUNTS, followee), (VIEWER, follower)}
        case "blocks":
            return {(VIEWER, _uuid(row["blocker_id"])), (VIEWER, _uuid(row["blocked_id"]))}
        case "mutes":
            return {(VIEWER, _uuid(row["muter_id"]))}
        case "media":
            # A delete carries the id only; whoever removes media from a post or a profile changes that row as well.
            stale: set[Reference] = {(ACCOUNT_CARD, _uuid(row["owner_id"]))} if row.get("owner_id") else set()
            return stale | ({(STATUS_CARD, row["post_id"])} if row.get("post_id") else set())
        case _:
            return set()


def _of_post(row: Mapping[str, Any]) -> set[Reference]:
    post_id, author = row["id"], _uuid(row["author_id"])
    stale: set[Reference] = {(STATUS_CARD, post_id), (STATUS_COUNTS, post_id), (ACCOUNT_COUNTS, author)}
    if row["repost_of_id"]:
        stale |= {(STATUS_COUNTS, row["repost_of_id"]), (OWN_REPOSTS, author)}
    if row["in_reply_to_id"]:
        stale.add((STATUS_COUNTS, row["in_reply_to_id"]))
    return stale


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
