"""The counts that entities show: as the flows keep them in Redis, and from SQL for whoever has just written.

Counting in SQL takes as long as there is to count, so it ends at `FEW`: what is beyond comes from Redis, where one's
own write may be missing for a moment. Only without Redis everything is counted.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from api.database import Row, Transaction
from api.stored_reads import StoredReads
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.entities import Entity, account_counts, status_counts
from readmodels.entity_queries import (
    ACCOUNT_COUNTS_BY_ID,
    FEW_ACCOUNT_COUNTS_BY_ID,
    FEW_STATUS_COUNTS_BY_ID,
    STATUS_COUNTS_BY_ID,
)
from readmodels.incremental import Kind

FEW = 1_000
"""A tenth of a millisecond of Postgres' work, as 100,000 likes are 6 to 9 (docs/decisions/0006-counts.md)."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """What is counted, and how."""

    kind: Kind
    few: str
    """Counts up to `%(few)s` of everything."""
    all: str
    entity: Callable[[Row], Entity]


_OF_STATUSES = _Counted(STATUS_COUNTS, FEW_STATUS_COUNTS_BY_ID, STATUS_COUNTS_BY_ID, status_counts)
_OF_ACCOUNTS = _Counted(ACCOUNT_COUNTS, FEW_ACCOUNT_COUNTS_BY_ID, ACCOUNT_COUNTS_BY_ID, account_counts)


class Counts:
    """Reads counts; `fresh` asks the database for those of a viewer who has written and may not have committed yet.

    Every method raises `DependencyUnavailable` when the database does not answer.
    """

    def __init__(self, stored: StoredReads) -> None:
        self._stored = stored

    async def of_statuses(self, transaction: Transaction, ids: Collection[int], *, fresh: bool) -> Mapping[int, Entity]:
        """The members of `entities.status_counts` of those statuses that exist."""
        return await self._read(_OF_STATUSES, transaction, ids, fresh)

    async def of_accounts(
        self, transaction: Transaction, ids: Collection[UUID], *, fresh: bool
    ) -> Mapping[UUID, Entity]:
        """The members of `entities.account_counts` of those accounts that exist."""
        return await self._read(_OF_ACCOUNTS, transaction, ids, fresh)

    async def _read(
        self, counted: _Counted, transaction: Transaction, ids: Collection[Any], fresh: bool
    ) -> Mapping[Any, Entity]:
        if not ids:
            return {}
        if not fresh and (stored := await self._stored.read(counted.kind, ids, transaction)) is not None:
            return _entities(stored)
        counts = await _from_sql(counted, transaction, counted.few, ids)
        if many := [identifier for identifier, entity in counts.items() if FEW in entity.values()]:
            known = await self._stored.known(counted.kind, many)
            counts |= await _from_sql(counted, transaction, counted.all, many) if known is None else _entities(known)
        return counts


def _entities(members: Mapping[Any, bytes]) -> dict[Any, Entity]:
    return {identifier: msgspec.json.decode(b"{%b}" % each) for identifier, each in members.items() if each}


async def _from_sql(counted: _Counted, transaction: Transaction, query: str, ids: Collection[Any]) -> dict[Any, Entity]:
    rows = await transaction.rows(query, {"ids": list(ids), "few": FEW})
    return {row["id"]: counted.entity(row) for row in rows}
