"""Account and Status entities, a batch at a time: three queries, however many ids; reposts and polls take a few more.

What people have written and what the viewer may see of it come from the database by primary key; what would have to be
counted, and what the viewer has done with it, from Redis (api/counts.py, api/status_flags.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from api.counts import Counts
from api.database import Row, Transaction
from api.errors import not_found
from api.status_flags import StatusFlags
from api.stored_reads import StoredReads
from readmodels.entities import Entity, account_entity, status_entity, status_flags
from readmodels.entity_queries import ACCOUNTS_BY_ID, STATUS_FLAGS_BY_ID, STATUSES_BY_ID
from readmodels.filters import FILTERS_OF, filter_results, parse_filters, text_of
from readmodels.poll_documents import POLL
from readmodels.polls import POLLS_BY_ID, poll_entity, poll_flags

STATUSES_OF_VIEWER = f"SELECT * FROM ({STATUSES_BY_ID}) status JOIN ({STATUS_FLAGS_BY_ID}) flags USING (id)"
"""One statement, for whoever has just written."""


class Entities:
    """Loads entities on a connection; `fresh` belongs into a transaction that has written.

    Without it what is counted comes from Redis, unless the viewer has just written: then it is fresh as well.
    """

    def __init__(self, stored: StoredReads, public_url: str) -> None:
        self._stored = stored
        self._counts, self._flags = Counts(stored), StatusFlags(stored)
        self._public_url = public_url

    async def accounts(
        self, transaction: Transaction, ids: Iterable[UUID], viewer: UUID | None, *, fresh: bool = False
    ) -> dict[UUID, Entity]:
        """The Account entities of those ids that exist."""
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        return await self._accounts(transaction, wanted, fresh or await self._stored.is_behind(viewer))

    async def account_list(self, transaction: Transaction, ids: Sequence[UUID], viewer: UUID | None) -> list[Entity]:
        """The Account entities in the order of the ids; ids that do not exist are left out."""
        accounts = await self.accounts(transaction, ids, viewer)
        return [accounts[identifier] for identifier in ids if identifier in accounts]

    async def status(
        self, transaction: Transaction, identifier: int, viewer: UUID | None, *, fresh: bool = False
    ) -> Entity:
        """The entity of a post; raises `ApiError` 404 when it was deleted meanwhile."""
        entities = await self.statuses(transaction, [identifier], viewer, fresh=fresh)
        if not entities:
            raise not_found()
        return entities[0]

    async def statuses(
        self, transaction: Transaction, ids: Sequence[int], viewer: UUID | None, *, fresh: bool = False
    ) -> list[Entity]:
        """The Status entities in the order of the ids, as the viewer sees them; ids that do not exist are left out.

        Whether the viewer may see them is the caller's question.
        """
        if not ids:
            return []
        fresh = fresh or await self._stored.is_behind(viewer)
        query = STATUSES_OF_VIEWER if fresh and viewer is not None else STATUSES_BY_ID
        parameters: dict[str, Any] = {"ids": list(ids), "viewer": viewer}
        rows = {row["id"]: row for row in await transaction.rows(query, parameters)}
        if originals := {row["repost_of_id"] for row in rows.values()} - {None} - rows.keys():
            rows |= {row["id"]: row for row in await transaction.rows(query, parameters | {"ids": list(originals)})}
        asked = [row["poll_id"] for row in rows.values() if row["poll_id"]]
        polls = await self._polls(transaction, asked, viewer, fresh)
        matching = await _filter_matcher(transaction, viewer)
        flags: Mapping[int, Entity] = {}
        if viewer is not None:
            flags = (
                {identifier: status_flags(row) for identifier, row in rows.items()}
                if fresh
                else await self._flags.of_statuses(transaction, viewer, rows.values())
            )
        counts = await self._counts.of_statuses(transaction, rows.keys(), fresh=fresh)
        accounts = await self._accounts(transaction, list({row["author_id"] for row in rows.values()}), fresh)

        def build(row: Row) -> Entity | None:
            account = accounts.get(row["author_id"])
            if account is None or row["id"] not in counts:  # deleted between two queries
                return None
            entity = status_entity(row, self._public_url) | {"account": account, "reblog": None} | counts[row["id"]]
            if row["poll_id"]:
                entity["poll"] = polls.get(row["poll_id"])
            if viewer is not None:
                entity |= flags[row["id"]]
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

    async def polls(
        self, transaction: Transaction, ids: Sequence[int], viewer: UUID | None, *, fresh: bool = False
    ) -> dict[int, Entity]:
        """The Poll entities of those ids that exist, as the viewer sees them now."""
        return await self._polls(transaction, ids, viewer, fresh or await self._stored.is_behind(viewer))

    async def _accounts(self, transaction: Transaction, ids: Sequence[UUID], fresh: bool) -> dict[UUID, Entity]:
        rows = await transaction.rows(ACCOUNTS_BY_ID, {"ids": ids})
        counts = await self._counts.of_accounts(transaction, [row["id"] for row in rows], fresh=fresh)
        return {
            row["id"]: account_entity(row, self._public_url) | counts[row["id"]] for row in rows if row["id"] in counts
        }

    async def _polls(
        self, transaction: Transaction, ids: Sequence[int], viewer: UUID | None, fresh: bool
    ) -> dict[int, Entity]:
        if not ids:
            return {}
        stored = None if fresh else await self._stored.read(POLL, ids, transaction)
        rows = await transaction.rows(POLLS_BY_ID, {"ids": list(ids)}) if stored is None else _there(stored)
        now = datetime.now(UTC)
        polls = {row["id"]: poll_entity(row, now) for row in rows}
        if viewer is not None:
            votes = await self._flags.votes(transaction, viewer, ids, fresh=fresh)
            for row in rows:
                polls[row["id"]] |= poll_flags(votes.get(row["id"], ()), row["author_id"] == viewer)
        return polls


def _there(polls: Mapping[int, Row | None]) -> list[Row]:
    return [row for row in polls.values() if row is not None]


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
