"""What the flows keep in Redis, as every answer but the home timeline reads it.

None means that the caller asks the database: Redis does not answer, or lacks what may not be filled in.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar
from uuid import UUID

from api.breaker import Breaker, CircuitOpen
from api.database import Transaction
from api.documents import Documents, Found, key_of
from api.read_your_writes import OwnWrites, read_mark
from api.redis_client import RedisReplyError, RedisUnavailable
from fanline.logging import get_logger
from readmodels.stored import Kind

T = TypeVar("T")

_log = get_logger(__name__)


class StoredReads:
    """Reads documents and values; one object a process."""

    def __init__(self, documents: Documents, own_writes: OwnWrites) -> None:
        self._documents = documents
        self._own_writes = own_writes
        self._breaker = Breaker(RedisUnavailable)

    async def is_behind(self, viewer: UUID | None) -> bool:
        """Whether the viewer's own write may be missing from what is kept; also while Redis cannot tell."""
        if viewer is None:
            return False
        if self._own_writes.is_waiting(viewer):
            return True
        replies = await self._ask(lambda: self._documents.fetch((), {}, (read_mark(viewer),)), "mark")
        return replies is None or self._own_writes.is_waiting_for(viewer, replies[0])

    async def read(self, kind: Kind, ids: Collection[Any], transaction: Transaction) -> Mapping[Any, Any] | None:
        """Contents (`documents.parse`) by id; what Redis lacks is filled in, so the transaction must not have written.

        Raises `DependencyUnavailable` when the database has to be asked and does not answer.
        """
        return await self._ask(lambda: self._read(kind, ids, transaction), kind.name)

    async def known(self, kind: Kind, ids: Collection[Any]) -> Mapping[Any, Any] | None:
        """The same of what Redis has; None when it lacks anything."""
        return await self._ask(lambda: self._read(kind, ids, None), kind.name)

    async def _read(
        self, kind: Kind, ids: Collection[Any], transaction: Transaction | None
    ) -> Mapping[Any, Any] | None:
        found: Found = {}
        references = {key_of((kind, identifier)): (kind, identifier) for identifier in ids}
        wanted = self._documents.kept(references, found)
        _, missing = await self._documents.look([references[key] for key in wanted], found)
        if missing:
            if transaction is None:
                return None
            await self._documents.fill(missing, found, transaction.rows)
        return {identifier: found[key] for key, (_, identifier) in references.items()}

    async def _ask(self, question: Callable[[], Awaitable[T]], what: str) -> T | None:
        """The answer; None while Redis does not answer."""
        try:
            with self._breaker.guard():
                return await question()
        except CircuitOpen:
            return None
        except (RedisUnavailable, RedisReplyError) as error:
            _log.warning("answered from the database", document=what, reason=str(error))
            return None
