"""How a handler writes: one transaction with its events, then the mark that lets the writer read it back at once."""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from api.context import Context
from api.database import Transaction
from api.outbox import Outbox
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger

T = TypeVar("T")

_log = get_logger(__name__)


async def write(context: Context, writer: UUID, body: Callable[[Transaction, Outbox], Awaitable[T]]) -> T:
    """Run `body` in one transaction on behalf of the writer; the result counts once it is committed.

    `body` may run again after a serialisation failure, so it must have no effect outside the transaction.
    """
    encoder = await context.events.encoder()

    async def run(transaction: Transaction) -> T:
        return await body(transaction, Outbox(transaction, encoder))

    result = await context.database.transaction(run)
    try:
        await context.own_writes.mark(writer)
    except DependencyUnavailable as error:
        # It is committed: to fail the request now would make the client write it twice.
        _log.warning("a write was not marked as its author's own", reason=str(error))
    return result
