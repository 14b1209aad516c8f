"""What is stored for readers (`readmodels/stored.py`) as handlers read it: from the process, from Redis, or from SQL.

What is kept in the process is taken apart already, so that a hot read parses nothing. A document that is missing in
Redis is read from the database and written there, so that the next reader finds it.

Within the process a status card goes by its post's id and every other document by its Redis key: a page begins as post
ids, and its cards name the keys of the rest.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from api.database import Database
from api.document_cache import DocumentCache
from api.effects import Rows, run
from api.redis_client import RedisClient, Reply
from fanline import metrics
from readmodels import stored
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD, status_card
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS, account_members, status_members
from readmodels.documents import Id
from readmodels.effects import Command, Effects
from readmodels.flags import FLAGS, flags
from readmodels.generations import identifier_of
from readmodels.home_rules import PostFacts
from readmodels.poll_documents import POLL, poll_row
from readmodels.relations import VIEWER, viewer
from readmodels.stored import Reference

_STATUS_CARD_PREFIX = STATUS_CARD.prefix + b":"

_HITS = metrics.DOCUMENT_READS.labels("process")
_REDIS = metrics.DOCUMENT_READS.labels("redis")
_SQL = metrics.DOCUMENT_READS.labels("sql")


@dataclass(frozen=True, slots=True)
class Status(PostFacts):
    """A status card, and the keys of what else is needed to show the status."""

    original: int = field(kw_only=True)
    conversation: int = field(kw_only=True)
    poll: int = field(kw_only=True)
    members: bytes = field(kw_only=True)
    account: UUID = field(kw_only=True)
    counts_key: bytes = field(kw_only=True)
    account_key: bytes = field(kw_only=True)
    account_counts_key: bytes = field(kw_only=True)
    poll_key: bytes | None = field(kw_only=True, default=None)


_PARSERS = {
    STATUS_COUNTS.prefix: status_members,
    ACCOUNT_COUNTS.prefix: account_members,
    FLAGS.prefix: flags,
    POLL.prefix: poll_row,
}


def parse(reference: Reference, body: bytes) -> Any:
    """What was stored: a `Status`, `Viewer`, `Flags` or a poll's row, or JSON members for the other kinds.

    Of what does not exist it is None for a status or poll, and no members for the other kinds.
    """
    kind, identifier = reference
    if kind.prefix == STATUS_CARD.prefix:
        return _status(identifier, body) if body else None
    if kind.prefix == VIEWER.prefix:
        assert isinstance(identifier, UUID)
        return viewer(identifier, body)
    parser = _PARSERS.get(kind.prefix)
    return body if parser is None else parser(body)


def _status(identifier: Id, body: bytes) -> Status:
    card = status_card(body)
    account = UUID(bytes=card.author)
    return Status(
        author=card.author,
        in_reply_to_account=card.in_reply_to_account,
        original=card.original,
        conversation=card.conversation,
        poll=card.poll,
        members=card.members,
        account=account,
        counts_key=STATUS_COUNTS.key(identifier),
        account_key=ACCOUNT_CARD.key(account),
        account_counts_key=ACCOUNT_COUNTS.key(account),
        poll_key=POLL.key(card.poll) if card.poll else None,
    )


Key = int | bytes
Found = dict[Any, Any]
"""Contents by `Key`."""


def key_of(reference: Reference) -> Key:
    """What a document goes by within the process."""
    kind, identifier = reference
    if kind.prefix == STATUS_CARD.prefix:
        assert isinstance(identifier, int)
        return identifier
    return kind.key(identifier)


class TrackedDocuments(DocumentCache):
    """A cache of documents that is told of changes by Redis key."""

    def drop(self, key: Hashable) -> None:
        """The key has changed in Redis."""
        if isinstance(key, bytes) and key.startswith(_STATUS_CARD_PREFIX):
            super().drop(int(identifier_of(key)))
        else:
            super().drop(key)


class Documents:
    """Reads documents and keeps what it has read."""

    def __init__(self, redis: RedisClient, cache: DocumentCache, database: Database, public_url: str) -> None:
        self._redis = redis
        self._cache = cache
        self._database = database
        self._public_url = public_url

    def kept(self, keys: Collection[Key], found: Found) -> list[Any]:
        """Put what the process has into `found`; the keys that it does not have."""
        missing = self._cache.get_many(keys, found)
        _HITS.inc(len(keys) - len(missing))
        return missing

    async def fetch(
        self, references: Collection[Reference], found: Found, others: Sequence[Command] = ()
    ) -> list[Reply]:
        """Read documents into `found`, in one round trip with some other commands, whose replies it gives.

        Raises `RedisUnavailable`, `RedisReplyError`, and `DependencyUnavailable` when a missing one cannot be read
        from the database.
        """
        replies, missing = await self.look(references, found, others)
        if missing:
            await self.fill(missing, found, self._database.rows)
        return replies

    async def look(
        self, references: Collection[Reference], found: Found, others: Sequence[Command] = ()
    ) -> tuple[list[Reply], list[Reference]]:
        """The same without those that Redis lacks, which it gives beside the replies."""
        if not references:
            return (await self._redis.execute(others) if others else []), []
        commands = [*others, *map(stored.read, references)]
        cache = self._cache
        keys = [key_of(reference) for reference in references]
        announced = cache.announce(keys)
        try:
            replies = await self._redis.execute(commands)
            missing: list[Reference] = []
            for key, reference, value in zip(keys, references, replies[len(others) :], strict=True):
                body = stored.body(reference, value)
                if body is None:
                    missing.append(reference)
                else:
                    found[key] = content = parse(reference, body)
                    cache.keep(announced, key, content, len(body))
        finally:
            cache.forget(announced, keys)
        _REDIS.inc(len(references) - len(missing))
        return replies[: len(others)], missing

    async def fill(self, missing: Collection[Reference], found: Found, rows: Rows) -> None:
        """Read documents that Redis lacks from the database, into `found` and into Redis.

        `rows` must see what is committed, and nothing else: what a transaction of one's own has written would be
        counted again when the flows come to it.
        """
        _SQL.inc(len(missing))
        bodies = await run(stored.fill(missing, self._public_url), self._redis, rows)
        for reference, body in bodies.items():
            found[key_of(reference)] = parse(reference, body)


def load(references: Sequence[Reference], found: Found, public_url: str) -> Effects[None]:
    """Put documents into `found` straight from the database: the same contents, without Redis."""
    wanted = [reference for reference in references if key_of(reference) not in found]
    if wanted:
        bodies = yield from stored.load(wanted, public_url)
        for reference, body in bodies.items():
            found[key_of(reference)] = parse(reference, body)
