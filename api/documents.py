"""Documents (`readmodels/documents.py`) as request handlers read them: from the process, from Redis, or from SQL.

What is kept in the process is taken apart already, so that a hot read parses nothing. A document that is missing in
Redis is read from the database and written there, so that the next reader finds it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from api.database import Database
from api.document_cache import DocumentCache
from api.effects import run
from api.redis_client import RedisClient, Reply
from fanline import metrics
from readmodels import documents
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD, status_card
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.documents import Id, Kind, Reference
from readmodels.effects import Command, Effects
from readmodels.home_rules import PostFacts
from readmodels.relations import OWN_REPOSTS, VIEWER, own_reposts, viewer

GONE = b""
"""Stands for a document of something that does not exist."""

_HITS = metrics.DOCUMENT_READS.labels("process")
_REDIS = metrics.DOCUMENT_READS.labels("redis")
_SQL = metrics.DOCUMENT_READS.labels("sql")


@dataclass(frozen=True, slots=True)
class Status(PostFacts):
    """A status card, and the keys of what else is needed to show the status."""

    original: int = field(kw_only=True)
    members: bytes = field(kw_only=True)
    account: UUID = field(kw_only=True)
    counts_key: bytes = field(kw_only=True)
    account_key: bytes = field(kw_only=True)
    account_counts_key: bytes = field(kw_only=True)


def parse(reference: Reference, body: bytes) -> Any:
    """A document's content: a `Status`, `Viewer` or `OwnReposts`, JSON members for the other kinds, or `GONE`."""
    kind, identifier = reference
    if kind.prefix == STATUS_CARD.prefix:
        return _status(identifier, body) if body else GONE
    if kind.prefix == VIEWER.prefix:
        assert isinstance(identifier, UUID)
        return viewer(identifier, body)
    if kind.prefix == OWN_REPOSTS.prefix:
        return own_reposts(body)
    return body


def _status(identifier: Id, body: bytes) -> Status:
    card = status_card(body)
    account = UUID(bytes=card.author)
    return Status(
        author=card.author,
        in_reply_to_account=card.in_reply_to_account,
        original=card.original,
        members=card.members,
        account=account,
        counts_key=STATUS_COUNTS.key(identifier),
        account_key=ACCOUNT_CARD.key(account),
        account_counts_key=ACCOUNT_COUNTS.key(account),
    )


Found = dict[bytes, Any]
"""Contents by document key."""


class Documents:
    """Reads documents and keeps what it has read."""

    def __init__(self, redis: RedisClient, cache: DocumentCache, database: Database, public_url: str) -> None:
        self._redis = redis
        self._cache = cache
        self._database = database
        self._public_url = public_url

    def kept(self, keys: Sequence[bytes], found: Found) -> list[bytes]:
        """Put what the process has into `found`; the keys that it does not have."""
        get = self._cache.get
        missing = []
        for key in keys:
            if key not in found:
                content = get(key)
                if content is None:
                    missing.append(key)
                else:
                    found[key] = content
        _HITS.inc(len(keys) - len(missing))
        return missing

    async def fetch(
        self, references: Mapping[bytes, Reference], found: Found, others: Sequence[Command] = ()
    ) -> list[Reply]:
        """Read documents by key into `found`, in one round trip with some other commands, whose replies it gives.

        Raises `RedisUnavailable`, `RedisReplyError`, and `DependencyUnavailable` when a missing one cannot be read
        from the database.
        """
        commands = [*others, *(documents.read(reference) for reference in references.values())]
        if not commands:
            return []
        cache = self._cache
        announced = cache.announce(references)
        try:
            replies = await self._redis.execute(commands)
            missing: list[Reference] = []
            for (key, reference), value in zip(references.items(), replies[len(others) :], strict=True):
                body = documents.body(value)
                if body is None:
                    missing.append(reference)
                else:
                    found[key] = content = parse(reference, body)
                    cache.keep(announced, key, content, len(body))
        finally:
            cache.forget(announced, references)
        _REDIS.inc(len(references) - len(missing))
        if missing:
            _SQL.inc(len(missing))
            bodies = await run(documents.fill(missing, self._public_url), self._redis, self._database.rows)
            for reference, body in bodies.items():
                found[_key(reference)] = parse(reference, body)
        return replies[: len(others)]

    async def read(self, wanted: Mapping[bytes, Reference], found: Found) -> None:
        """Put documents by key into `found`, fetching those that the process does not have."""
        missing = self.kept(list(wanted), found)
        if missing:
            await self.fetch({key: wanted[key] for key in missing}, found)


def load(references: Sequence[Reference], found: Found, public_url: str) -> Effects[None]:
    """Put documents into `found` straight from the database: the same contents, without Redis."""
    wanted = {_key(reference): reference for reference in references}
    for key in found.keys() & wanted.keys():
        del wanted[key]
    if wanted:
        bodies = yield from documents.load(list(wanted.values()), public_url)
        for reference, body in bodies.items():
            found[_key(reference)] = parse(reference, body)


def references_of(kind: Kind, identifiers: Iterable[Id]) -> dict[bytes, Reference]:
    """References by key."""
    return {kind.key(identifier): (kind, identifier) for identifier in identifiers}


def _key(reference: Reference) -> bytes:
    return reference[0].key(reference[1])
