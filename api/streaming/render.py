"""Payloads: a post is read from the database and encoded once a batch, and shared by all who are told of it.

Only what differs between viewers is encoded apart: the flags of those who have done something with an edited post or
with the original of a repost.
"""

from collections.abc import Collection, Iterable
from uuid import UUID

import msgspec

from api.database import Database, Transaction
from api.entities import load_statuses
from api.notification_entities import load_notifications
from fanline.ids import created_ms
from readmodels.entities import NO_FLAGS, Entity

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

ORIGINALS = "SELECT id, author_id, in_reply_to_account_id FROM posts WHERE id = ANY(%(ids)s::bigint[])"

_encode = msgspec.json.Encoder().encode


class Rendered:
    """A Status of the database, as JSON for everybody and for those who have flags on it."""

    def __init__(self, entity: Entity) -> None:
        self.entity = _with_flags(entity, {})
        self.shared = _encode(self.entity)
        self._own: dict[tuple[str, ...], bytes] = {}
        self._flags: dict[UUID, tuple[str, ...]] = {}

    @property
    def is_limited(self) -> bool:
        """Whether its author is kept out of public timelines."""
        account: Entity = self.entity["account"]
        return bool(account.get("limited") or account.get("suspended"))

    @property
    def tags(self) -> frozenset[str]:
        """Its hashtags, in lower case."""
        return frozenset(tag["name"].lower() for tag in self.entity["tags"])

    def flag(self, viewer: UUID, flag: str) -> None:
        """Note what a viewer has done with it (with the original, of a repost)."""
        self._flags[viewer] = tuple(sorted({*self._flags.get(viewer, ()), flag}))

    def payload(self, viewer: UUID | None) -> bytes:
        """The JSON for a viewer."""
        flags = self._flags.get(viewer) if viewer is not None else None
        if not flags:
            return self.shared
        if flags not in self._own:
            self._own[flags] = _encode(_with_flags(self.entity, dict.fromkeys(flags, True)))
        return self._own[flags]


class Renderer:
    """Reads and encodes; every method raises `DependencyUnavailable` when the database does not answer."""

    def __init__(self, database: Database, public_url: str) -> None:
        self._database = database
        self._public_url = public_url

    async def statuses(self, ids: Collection[int], viewers: Collection[UUID]) -> dict[int, Rendered]:
        """The statuses that exist, with the flags of these viewers where there can be any."""
        if not ids:
            return {}

        async def read(transaction: Transaction) -> dict[int, Rendered]:
            entities = await load_statuses(transaction, list(ids), None, self._public_url)
            rendered = {int(entity["id"]): Rendered(entity) for entity in entities}
            flagged: dict[int, list[Rendered]] = {}
            for one in rendered.values():
                original = one.entity["reblog"] or one.entity
                # Nobody has done anything with a post that has just been written.
                if original is not one.entity or one.entity["edited_at"]:
                    flagged.setdefault(int(original["id"]), []).append(one)
            if flagged and viewers:
                parameters = {"ids": list(flagged), "viewers": list(viewers)}
                for row in await transaction.rows(FLAGS_OF_VIEWERS, parameters):
                    for one in flagged[row["post_id"]]:
                        one.flag(row["viewer"], row["flag"])
            return rendered

        return await self._database.read(read)

    async def notifications(self, viewer: UUID, ids: Iterable[int]) -> list[tuple[int, int, bytes]]:
        """Id, time in ms and JSON of those of a viewer's notifications that are to be shown, in the order given."""

        async def read(transaction: Transaction) -> list[Entity]:
            return await load_notifications(transaction, list(ids), viewer, self._public_url)

        entities = await self._database.read(read)
        return [(int(each["id"]), created_ms(int(each["id"])), _encode(each)) for each in entities]

    async def originals(self, ids: Collection[int]) -> dict[int, tuple[bytes, bytes | None]]:
        """Author and answered account of posts that exist, as 16-byte ids."""
        rows = await self._database.rows(ORIGINALS, {"ids": list(ids)})
        return {
            row["id"]: (row["author_id"].bytes, row["in_reply_to_account_id"] and row["in_reply_to_account_id"].bytes)
            for row in rows
        }


def _with_flags(entity: Entity, flags: dict[str, bool]) -> Entity:
    """The status with flags on it, or on what it reposts."""
    original: Entity | None = entity["reblog"]
    if original is None:
        return entity | NO_FLAGS | flags
    return entity | NO_FLAGS | {"reblog": original | NO_FLAGS | flags}
