"""The people who are connected to this process, their relations, and who of them follows an author."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import count
from uuid import UUID

from api.database import Database
from readmodels.home_rules import Viewer
from readmodels.relations import VIEWER, VIEWERS_BY_ID, viewer

_NOBODY: frozenset[UUID] = frozenset()

RELATIONS_AMONG = """
SELECT f.follower_id AS viewer, f.followee_id AS other, true AS follows, f.show_reblogs, 0::bigint AS ends_ms
FROM follows f WHERE f.followee_id = ANY(%(people)s::uuid[]) AND f.follower_id = ANY(%(viewers)s::uuid[])
UNION ALL
SELECT b.blocker_id, b.blocked_id, false, false, 0 FROM blocks b
WHERE b.blocker_id = ANY(%(viewers)s::uuid[]) AND b.blocked_id = ANY(%(people)s::uuid[])
UNION ALL
SELECT b.blocked_id, b.blocker_id, false, false, 0 FROM blocks b
WHERE b.blocked_id = ANY(%(viewers)s::uuid[]) AND b.blocker_id = ANY(%(people)s::uuid[])
UNION ALL
SELECT m.muter_id, m.muted_id, false, false, coalesce((extract(epoch FROM m.expires_at) * 1000)::bigint, 0)
FROM mutes m WHERE m.muter_id = ANY(%(viewers)s::uuid[]) AND m.muted_id = ANY(%(people)s::uuid[])
"""


@dataclass(slots=True)
class _Known:
    relations: Viewer
    connections: int = 0
    loaded: int = -1


class Viewers:
    """Relations as the database has them, read when somebody connects and when the log says that they changed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[UUID, _Known] = {}
        self._followers: dict[bytes, set[UUID]] = {}
        self._loads = count()

    async def add(self, identifier: UUID) -> None:
        """Somebody has connected; their relations are there when this returns. Raises `DependencyUnavailable`."""
        known = self._known.get(identifier)
        if known is None:
            known = self._known[identifier] = _Known(Viewer(identifier.bytes, frozenset()))
        known.connections += 1
        if known.loaded < 0:
            try:
                await self._load([identifier])
            except BaseException:
                self.remove(identifier)
                raise

    def remove(self, identifier: UUID) -> None:
        """One of their connections has ended."""
        known = self._known.get(identifier)
        if known is None:
            return
        known.connections -= 1
        if known.connections <= 0:
            self._index(identifier, known.relations.followees, frozenset())
            del self._known[identifier]

    def get(self, identifier: UUID) -> Viewer | None:
        """The relations of somebody who is connected."""
        known = self._known.get(identifier)
        return None if known is None else known.relations

    def connected(self, identifiers: Iterable[UUID]) -> set[UUID]:
        """Those of some people who are connected."""
        return {identifier for identifier in identifiers if identifier in self._known}

    def followers(self, author: bytes) -> Collection[UUID]:
        """The connected people who follow the author."""
        return self._followers.get(author, _NOBODY)

    async def refresh(self, identifiers: Collection[UUID]) -> None:
        """Read the relations of connected people again; raises `DependencyUnavailable`."""
        if identifiers:
            await self._load(identifiers)

    async def among(self, viewers: Collection[UUID], people: Collection[bytes]) -> dict[UUID, Viewer]:
        """What the database says now of viewers and these accounts (16-byte ids), and of nobody else.

        The log has the tables in topics of their own, so an unfollow may come out of it after a post that was written
        later. Raises `DependencyUnavailable`.
        """
        parameters = {"viewers": list(viewers), "people": [UUID(bytes=person) for person in people]}
        followees: dict[UUID, set[bytes]] = {}
        without_reposts: dict[UUID, set[bytes]] = {}
        hidden: dict[UUID, dict[bytes, int]] = {}
        for row in await self._database.rows(RELATIONS_AMONG, parameters) if viewers else ():
            one, other = row["viewer"], row["other"].bytes
            if row["follows"]:
                followees.setdefault(one, set()).add(other)
                if not row["show_reblogs"]:
                    without_reposts.setdefault(one, set()).add(other)
            else:
                ends = hidden.setdefault(one, {})
                # A block never ends, whatever a mute of the same account says.
                ends[other] = 0 if 0 in (row["ends_ms"], ends.get(other)) else row["ends_ms"]
        return {
            one: Viewer(
                one.bytes,
                frozenset(followees.get(one, ())),
                frozenset(without_reposts.get(one, ())),
                hidden.get(one, {}),
            )
            for one in viewers
        }

    async def _load(self, identifiers: Collection[UUID]) -> None:
        # Two reads may overtake each other: the one that began later knows better.
        load = next(self._loads)
        rows = await self._database.rows(VIEWERS_BY_ID, {"ids": list(identifiers)})
        found = {row["id"]: viewer(row["id"], VIEWER.encode(row, "")) for row in rows}
        for identifier in identifiers:
            known = self._known.get(identifier)
            if known is None or known.loaded > load:
                continue
            # Without a row the person is gone; they see nothing any more.
            relations = found.get(identifier) or Viewer(identifier.bytes, frozenset())
            self._index(identifier, known.relations.followees, relations.followees)
            known.relations, known.loaded = relations, load

    def _index(self, identifier: UUID, before: frozenset[bytes], after: frozenset[bytes]) -> None:
        for author in before - after:
            followers = self._followers.get(author)
            if followers is not None:
                followers.discard(identifier)
                if not followers:
                    del self._followers[author]
        for author in after - before:
            self._followers.setdefault(author, set()).add(identifier)
