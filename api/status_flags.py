"""What a viewer has done with statuses and polls: as the flow keeps it in Redis.

SQL answers for what is older than what is kept, for votes of whoever has just voted, and while Redis does not answer.
"""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from api.database import Row, Transaction
from api.stored_reads import StoredReads
from readmodels.entities import NO_FLAGS, Entity, status_flags
from readmodels.entity_queries import STATUS_FLAGS_BY_ID
from readmodels.flags import FLAGS, Flags, entity_of
from readmodels.polls import OWN_VOTES_BY_POLL


class StatusFlags:
    """Reads flags a batch at a time.

    Every method raises `DependencyUnavailable` when the database does not answer.
    """

    def __init__(self, stored: StoredReads) -> None:
        self._stored = stored

    async def of_statuses(self, transaction: Transaction, viewer: UUID, rows: Collection[Row]) -> Mapping[int, Entity]:
        """The flags of the statuses in rows of `STATUSES_BY_ID`."""
        own = await self._own(transaction, viewer)
        flags: dict[int, Entity] = {}
        older: list[int] = []
        for row in rows:
            if own is None or not own.knows(row["id"], row["conversation_id"]):
                older.append(row["id"])
            else:
                flags[row["id"]] = entity_of(own.bits(row["id"], row["conversation_id"]))
        if older:
            asked = await transaction.rows(STATUS_FLAGS_BY_ID, {"ids": older, "viewer": viewer})
            flags |= dict.fromkeys(older, NO_FLAGS) | {row["id"]: status_flags(row) for row in asked}
        return flags

    async def votes(
        self, transaction: Transaction, viewer: UUID, polls: Collection[int], *, fresh: bool
    ) -> Mapping[int, Sequence[int]]:
        """The positions voted for, of the polls that the viewer has voted in; `fresh` asks the database alone."""
        own = None if fresh else await self._own(transaction, viewer)
        older = [poll for poll in polls if own is None or poll <= own.votes_horizon]
        asked = await transaction.rows(OWN_VOTES_BY_POLL, {"ids": older, "viewer": viewer}) if older else ()
        return {**(own.votes if own is not None else {}), **{row["id"]: row["own_votes"] for row in asked}}

    async def _own(self, transaction: Transaction, viewer: UUID) -> Flags | None:
        stored = await self._stored.read(FLAGS, (viewer,), transaction)
        return None if stored is None else stored[viewer]
