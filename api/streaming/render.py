"""Payloads: a post is read from the database and encoded once a batch, and shared by all who are told of it.

Only what differs between viewers is encoded apart: what they have done with an edited post or with the original of a
repost, and which of their filters match.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec

from api.database import Database, Row, Transaction
from api.entities import Entities
from api.notification_entities import load_notifications
from readmodels.entities import NO_FLAGS, Entity
from readmodels.filters import NO_FILTERS, Filters, filter_results, text_of
from readmodels.polls import poll_flags

FLAGS_OF_VIEWERS = """
SELECT l.post_id, l.user_id AS viewer, 'favourited' AS flag FROM likes l
WHERE l.post_id = ANY(%(ids)s::bigint[]) AND l.user_id = ANY(%(viewers)s::uuid[])
UNION ALL
SELECT b.post_id, b.user_id, 'bookmarked' FROM bookmarks b
WHERE b.post_id = ANY(%(ids)s::bigint[]) AND b.user_id = ANY(%(viewers)s::uuid[])
UNION ALL
SELECT i.post_id, i.user_id, 'pinned' FROM pins i
WHERE i.post_id = ANY(%(ids)s::bigint[]) AND i.user_id = ANY(%(viewers)s::uuid[])
UNION ALL
SELECT r.repost_of_id, r.author_id, 'reblogged' FROM posts r
WHERE r.repost_of_id = ANY(%(ids)s::bigint[]) AND r.author_id = ANY(%(viewers)s::uuid[])
UNION ALL
SELECT p.id, c.user_id, 'muted' FROM posts p JOIN conversation_mutes c ON c.post_id = coalesce(p.conversation_id, p.id)
WHERE p.id = ANY(%(ids)s::bigint[]) AND c.user_id = ANY(%(viewers)s::uuid[])
"""

STORED = "SELECT id, stored_at FROM notifications WHERE id = ANY(%(ids)s::bigint[])"

ORIGINALS = "SELECT id, author_id, in_reply_to_account_id FROM posts WHERE id = ANY(%(ids)s::bigint[])"

_encode = msgspec.json.Encoder().encode


OWN_VOTES = """
SELECT poll_id, voter_id AS viewer, position FROM poll_votes
WHERE poll_id = ANY(%(ids)s::bigint[]) AND voter_id = ANY(%(viewers)s::uuid[]) ORDER BY position
"""


@dataclass(slots=True)
class Done:
    """What one viewer has done with a post."""

    flags: set[str] = field(default_factory=set)
    votes: list[int] = field(default_factory=list)


class Rendered:
    """A Status of the database, as JSON for everybody and for those to whom it looks different."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        original: Entity | None = entity["reblog"]
        self.original = original or entity
        """The entity that has text, poll and flags: that of the original, of a repost."""
        self.done: dict[UUID, Done] = {}
        self._ids = (int(entity["id"]), int(self.original["id"]))
        self._author = UUID(self.original["account"]["id"])
        self._own: dict[tuple[object, ...], bytes] = {}
        self.shared = self._encode(Done(), False, [], [])

    @property
    def is_limited(self) -> bool:
        """Whether its author is kept out of public timelines."""
        account: Entity = self.entity["account"]
        return bool(account.get("limited") or account.get("suspended"))

    @property
    def tags(self) -> frozenset[str]:
        """Its hashtags, in lower case."""
        return frozenset(tag["name"].lower() for tag in self.entity["tags"])

    def payload(self, viewer: UUID | None, filters: Filters = NO_FILTERS, now_ms: int = 0) -> bytes:
        """The JSON for a viewer."""
        if viewer is None:
            return self.shared
        done = self.done.get(viewer)
        asked = self.original["poll"] is not None and viewer == self._author
        inner: list[Entity] = []
        outer: list[Entity] = []
        if filters:
            text = text_of(self.original)
            inner = filter_results(filters, text, self._ids[1:], now_ms)
            outer = filter_results(filters, text, self._ids, now_ms)
        if done is None and not asked and not outer:
            return self.shared
        done = done or Done()
        key = (*sorted(done.flags), *done.votes, asked, _encode(inner), _encode(outer))
        if key not in self._own:
            self._own[key] = self._encode(done, asked, inner, outer)
        return self._own[key]

    def _encode(self, done: Done, asked: bool, inner: list[Entity], outer: list[Entity]) -> bytes:
        """The JSON with what differs between viewers put in; `asked` says that the poll is the viewer's own."""
        shown = self.original | NO_FLAGS | dict.fromkeys(done.flags, True) | {"filtered": inner}
        if shown["poll"] is not None:
            shown["poll"] = shown["poll"] | poll_flags(done.votes, asked)
        if self.original is not self.entity:
            shown = self.entity | NO_FLAGS | {"reblog": shown, "filtered": outer}
        return _encode(shown)


class Renderer:
    """Reads and encodes; every method raises `DependencyUnavailable` when the database does not answer."""

    def __init__(self, database: Database, entities: Entities) -> None:
        self._database = database
        self._entities = entities

    async def statuses(self, ids: Collection[int], viewers: Collection[UUID]) -> dict[int, Rendered]:
        """The statuses that exist, with the flags of these viewers where there can be any."""
        if not ids:
            return {}

        async def read(transaction: Transaction) -> dict[int, Rendered]:
            # Nothing has counted a new post yet, and filling in what it has is more work than counting it.
            entities = await self._entities.statuses(transaction, list(ids), None, fresh=True)
            rendered = {int(entity["id"]): Rendered(entity) for entity in entities}
            # Nobody has done anything with a post that has just been written.
            old = [one for one in rendered.values() if one.original is not one.entity or one.entity["edited_at"]]
            if old and viewers:
                await _look_up(transaction, old, viewers)
            return rendered

        return await self._database.read(read)

    async def notifications(self, viewer: UUID, ids: Collection[int]) -> list[tuple[int, int, bytes]]:
        """Id, when it was stored in ms and JSON of those of a viewer's notifications that are to be shown, in order."""

        async def read(transaction: Transaction) -> list[tuple[int, int, bytes]]:
            entities = await load_notifications(transaction, list(ids), viewer, self._entities)
            rows = await transaction.rows(STORED, {"ids": list(ids)}) if entities else []
            stored = {row["id"]: stored_ms(row) for row in rows}
            # One without a time has been deleted between the two queries.
            found = [(int(each["id"]), _encode(each)) for each in entities]
            return [(each, stored[each], payload) for each, payload in found if each in stored]

        return await self._database.read(read)

    async def originals(self, ids: Collection[int]) -> dict[int, tuple[bytes, bytes | None]]:
        """Author and answered account of posts that exist, as 16-byte ids."""
        rows = await self._database.rows(ORIGINALS, {"ids": list(ids)})
        return {
            row["id"]: (row["author_id"].bytes, row["in_reply_to_account_id"] and row["in_reply_to_account_id"].bytes)
            for row in rows
        }


def stored_ms(row: Row) -> int:
    """When a notification was stored, in whole milliseconds."""
    moment: datetime = row["stored_at"]
    return round(moment.timestamp() * 1_000_000) // 1_000


async def _look_up(transaction: Transaction, statuses: Collection[Rendered], viewers: Collection[UUID]) -> None:
    """Note what these viewers have done with what the statuses show."""
    posts: dict[int, list[Rendered]] = {}
    polls: dict[int, list[Rendered]] = {}
    for one in statuses:
        posts.setdefault(int(one.original["id"]), []).append(one)
        if one.original["poll"] is not None:
            polls.setdefault(int(one.original["poll"]["id"]), []).append(one)
    for row in await transaction.rows(FLAGS_OF_VIEWERS, {"ids": list(posts), "viewers": list(viewers)}):
        for one in posts[row["post_id"]]:
            one.done.setdefault(row["viewer"], Done()).flags.add(row["flag"])
    if polls:
        for row in await transaction.rows(OWN_VOTES, {"ids": list(polls), "viewers": list(viewers)}):
            for one in polls[row["poll_id"]]:
                one.done.setdefault(row["viewer"], Done()).votes.append(row["position"])
