"""Account and Status entities straight from the database, a batch at a time: three queries, however many ids; reposts
and polls take a few more."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from api.database import Row, Transaction
from readmodels.entities import (
    Entity,
    account_counts,
    account_entity,
    status_counts,
    status_entity,
    status_flags,
)
from readmodels.entity_queries import (
    ACCOUNT_COUNTS_BY_ID,
    ACCOUNTS_BY_ID,
    STATUS_COUNTS_BY_ID,
    STATUS_FLAGS_BY_ID,
    STATUSES_BY_ID,
)
from readmodels.filters import FILTERS_OF, filter_results, parse_filters, text_of
from readmodels.polls import OWN_VOTES_BY_POLL, POLLS_BY_ID, poll_entity, poll_flags

ACCOUNTS = f"SELECT * FROM ({ACCOUNTS_BY_ID}) account JOIN ({ACCOUNT_COUNTS_BY_ID}) counts USING (id)"
STATUSES = f"SELECT * FROM ({STATUSES_BY_ID}) status JOIN ({STATUS_COUNTS_BY_ID}) counts USING (id)"
STATUSES_OF_VIEWER = f"{STATUSES} JOIN ({STATUS_FLAGS_BY_ID}) flags USING (id)"


async def load_accounts(transaction: Transaction, ids: Iterable[UUID], public_url: str) -> dict[UUID, Entity]:
    """The Account entities of those ids that exist."""
    parameters = {"ids": list(dict.fromkeys(ids))}
    if not parameters["ids"]:
        return {}
    rows = await transaction.rows(ACCOUNTS, parameters)
    return {row["id"]: account_entity(row, public_url) | account_counts(row) for row in rows}


async def load_account_list(transaction: Transaction, ids: Sequence[UUID], public_url: str) -> list[Entity]:
    """The Account entities in the order of the ids; ids that do not exist are left out."""
    accounts = await load_accounts(transaction, ids, public_url)
    return [accounts[identifier] for identifier in ids if identifier in accounts]


async def load_polls(transaction: Transaction, ids: Sequence[int], viewer: UUID | None) -> dict[int, Entity]:
    """The Poll entities of those ids that exist, as the viewer sees them now."""
    if not ids:
        return {}
    parameters: dict[str, Any] = {"ids": list(ids), "viewer": viewer}
    now = datetime.now(UTC)
    rows = await transaction.rows(POLLS_BY_ID, parameters)
    polls = {row["id"]: poll_entity(row, now) for row in rows}
    if viewer is not None:
        votes = {row["id"]: row["own_votes"] for row in await transaction.rows(OWN_VOTES_BY_POLL, parameters)}
        for row in rows:
            polls[row["id"]] |= poll_flags(votes.get(row["id"], ()), row["author_id"] == viewer)
    return polls


async def load_statuses(
    transaction: Transaction, ids: Sequence[int], viewer: UUID | None, public_url: str
) -> list[Entity]:
    """The Status entities in the order of the ids, as the viewer sees them; ids that do not exist are left out.

    Whether the viewer may see them is the caller's question.
    """
    if not ids:
        return []
    query = STATUSES if viewer is None else STATUSES_OF_VIEWER
    parameters: dict[str, Any] = {"ids": list(ids), "viewer": viewer}
    rows = {row["id"]: row for row in await transaction.rows(query, parameters)}
    if originals := {row["repost_of_id"] for row in rows.values()} - {None} - rows.keys():
        rows |= {row["id"]: row for row in await transaction.rows(query, parameters | {"ids": list(originals)})}
    polls = await load_polls(transaction, [row["poll_id"] for row in rows.values() if row["poll_id"]], viewer)
    matching = await _filter_matcher(transaction, viewer)
    accounts = await load_accounts(transaction, (row["author_id"] for row in rows.values()), public_url)

    def build(row: Row) -> Entity | None:
        account = accounts.get(row["author_id"])
        if account is None:  # deleted between two queries
            return None
        entity = status_entity(row, public_url) | {"account": account, "reblog": None} | status_counts(row)
        if row["poll_id"]:
            entity["poll"] = polls.get(row["poll_id"])
        if viewer is not None:
            entity |= status_flags(row)
            entity["filtered"] = matching(entity, (row["id"],))
        if row["repost_of_id"] is not None:
            original = rows.get(row["repost_of_id"])
            entity["reblog"] = build(original) if original is not None else None
            if entity["reblog"] is None:
                return None
            if viewer is not None:
                entity["filtered"] = matching(entity["reblog"], (row["id"], row["repost_of_id"]))
        return entity

    built = (build(rows[identifier]) for identifier in ids if identifier in rows)
    return [entity for entity in built if entity is not None]


async def _filter_matcher(
    transaction: Transaction, viewer: UUID | None
) -> Callable[[Entity, tuple[int, ...]], list[Entity]]:
    """Gives the `filtered` member of a Status entity that stands for some posts."""
    row = None if viewer is None else await transaction.row(FILTERS_OF, {"viewer": viewer})
    if row is None or not row["filters"]:
        return lambda _entity, _post_ids: []
    filters = parse_filters(row["filters"])
    now_ms = int(datetime.now(UTC).timestamp() * 1000)

    def matching(entity: Entity, post_ids: tuple[int, ...]) -> list[Entity]:
        return filter_results(filters, text_of(entity), post_ids, now_ms)

    return matching
