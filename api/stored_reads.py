"""What the flows keep in Redis, as every answer but the home timeline reads it: for a viewer, or not at all.

Not at all means that the caller asks the database: Redis does not answer, or the viewer's own write is yet to come.
"""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from api.breaker import Breaker, CircuitOpen
from api.database import Transaction
from api.documents import Documents, Found, key_of
from api.read_your_writes import OwnWrites, read_mark
from api.redis_client import RedisReplyError, RedisUnavailable
from fanline.logging import get_logger
from readmodels.stored import Kind

_log = get_logger(__name__)


class StoredReads:
    """Reads documents and values; one object a process."""

    def __init__(self, documents: Documents, own_writes: OwnWrites) -> None:
        self._documents = documents
        self._own_writes = own_writes
        self._breaker = Breaker(RedisUnavailable)

    async def read(
        self, kind: Kind, ids: Collection[Any], viewer: UUID | None, transaction: Transaction
    ) -> Mapping[Any, Any] | None:
        """Contents (`documents.parse`) by id; what Redis lacks is filled in, so the transaction must not have written.

        Raises `DependencyUnavailable` when the database has to be asked and does not answer.
        """
        if viewer is not None and self._own_writes.is_waiting(viewer):
            return None
        return await self._read(kind, ids, viewer, transaction)

    async def known(self, kind: Kind, ids: Collection[Any]) -> Mapping[Any, Any] | None:
        """The same of what Redis has, which may lack somebody's own write; None when it lacks anything."""
        return await self._read(kind, ids, None, None)

    async def _read(
        self, kind: Kind, ids: Collection[Any], viewer: UUID | None, transaction: Transaction | None
    ) -> Mapping[Any, Any] | None:
        found: Found = {}
        references = {key_of((kind, identifier)): (kind, identifier) for identifier in ids}
        wanted = self._documents.kept(references, found)
        others = [] if viewer is None else [read_mark(viewer)]
        try:
            with self._breaker.guard():
                marks, missing = await self._documents.look([references[key] for key in wanted], found, others)
                if viewer is not None and self._own_writes.is_waiting_for(viewer, marks[0]):
                    return None
                if missing:
                    if transaction is None:
                        return None
                    await self._documents.fill(missing, found, transaction.rows)
        except CircuitOpen:
            return None
        except (RedisUnavailable, RedisReplyError) as error:
            _log.warning("answered from the database", document=kind.name, reason=str(error))
            return None
        return {identifier: found[key] for key, (_, identifier) in references.items()}
