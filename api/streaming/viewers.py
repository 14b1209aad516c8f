"""The people who are connected to this process, their relations, and who of them follows an author."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import count
from uuid import UUID

from api.database import Database
from readmodels.home_rules import Viewer
from readmodels.relations import VIEWER, VIEWERS_BY_ID, viewer

_NOBODY: frozenset[UUID] = frozenset()


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
