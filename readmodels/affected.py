"""Which documents a row change makes stale; the one place where that is decided."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.documents import Reference
from readmodels.poll_documents import POLL
from readmodels.relations import VIEWER

KINDS = (ACCOUNT_CARD, STATUS_CARD, POLL, VIEWER)
"""Every kind of document."""

TABLES = ("users", "posts", "follows", "blocks", "mutes", "media", "polls", "poll_votes", "filters")
"""The tables whose changes have to be read."""


def affected(table: str, row: Mapping[str, Any]) -> set[Reference]:
    """The documents to write again after a row came, changed or went; `row` has its old values if it went."""
    match table:
        case "users":
            user = _uuid(row["id"])
            return {(ACCOUNT_CARD, user), (VIEWER, user)}
        case "posts":
            return {(STATUS_CARD, row["id"])}
        case "follows":
            return {(VIEWER, _uuid(row["follower_id"]))}
        case "blocks":
            return {(VIEWER, _uuid(row["blocker_id"])), (VIEWER, _uuid(row["blocked_id"]))}
        case "mutes":
            return {(VIEWER, _uuid(row["muter_id"]))}
        case "filters":
            # Whoever changes a filter's keywords or posts changes its row as well.
            return {(VIEWER, _uuid(row["user_id"]))}
        case "media":
            # A delete carries the id only; whoever removes media from a post or a profile changes that row as well.
            stale: set[Reference] = {(ACCOUNT_CARD, _uuid(row["owner_id"]))} if row.get("owner_id") else set()
            return stale | ({(STATUS_CARD, row["post_id"])} if row.get("post_id") else set())
        case "polls":
            # A delete carries the id only; whoever takes a poll from a post changes that row as well.
            return {(POLL, row["id"])} | ({(STATUS_CARD, row["post_id"])} if row.get("post_id") else set())
        case "poll_votes":
            return {(POLL, row["poll_id"])}
        case _:
            return set()


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
