"""The home timeline as it is read: from Redis where it is warm and complete, from the database otherwise.

A warm read takes one round trip for the list (with the reader's mark and the recent lists of followed celebrities) and
one for the documents that the process does not keep. The whole list is read: entries arrive nearly in order but not
quite, and no part of it can be known to hold the newest ones (docs/decisions/0002-home-reads.md).
"""

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from api.breaker import Breaker, CircuitOpen
from api.database import Database
from api.documents import Documents, Found, key_of, load
from api.effects import run
from api.home_filters import filtered, filters_of
from api.home_flags import ViewerFlags
from api.home_render import keys_for, references_for, render
from api.read_your_writes import OwnWrites, read_mark
from api.redis_client import RedisClient, RedisReplyError, RedisUnavailable
from api.shared_facts import SharedFacts, SharedFactsReader
from fanline import metrics
from fanline.clock import Clock
from fanline.errors import DependencyUnavailable
from fanline.ids import MAX_ID, pack_id
from fanline.logging import get_logger
from fanline.settings import Settings
from readmodels import recents, timelines
from readmodels.cards import STATUS_CARD
from readmodels.counts import STATUS_COUNTS
from readmodels.effects import Command, Effects, Query, command
from readmodels.entries import BUILDING, NO_GENERATION, Entry, complete_above, newest_first
from readmodels.flags import FLAGS, Flags
from readmodels.home_rules import Page, Viewer, select_page
from readmodels.relations import VIEWER
from readmodels.stored import Reference

# Looked at first for a page, beyond its limit: this part of the limit. Most entries are visible, some are not.
AHEAD = 3
# At once in a process; a build is one query of up to a cap of rows and must leave connections to the readers.
BUILDS = 4
DAY_MS = 86_400_000

_FROM_REDIS = metrics.HOME_READS.labels("redis", "warm")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HomePage:
    """A page as JSON, and the ids at its ends for paging; None when it is empty."""

    body: bytes
    newest: int | None
    oldest: int | None


@dataclass(frozen=True, slots=True)
class _Person:
    """What a read of one viewer begins with."""

    first_trip: tuple[Command, Command]
    """The list, and the mark of the viewer's own writes."""
    documents: tuple[Reference, Reference]
    """The viewer's relations, and what the viewer has done with posts."""
    relations: bytes
    flags: bytes
    """Keys of the two documents."""


@lru_cache(maxsize=10_000)
def _person(viewer_id: UUID) -> _Person:
    return _Person(
        (command(timelines.timeline_key(viewer_id), b"LRANGE", 0, -1), read_mark(viewer_id)),
        ((VIEWER, viewer_id), (FLAGS, viewer_id)),
        VIEWER.key(viewer_id),
        FLAGS.key(viewer_id),
    )


class HomeTimelines:
    """Reads home timelines, and makes cold ones warm in the background."""

    def __init__(
        self,
        redis: RedisClient,
        documents: Documents,
        facts: SharedFactsReader,
        database: Database,
        own_writes: OwnWrites,
        settings: Settings,
        public_url: str,
        clock: Clock,
    ) -> None:
        self._redis = redis
        self._documents = documents
        self._facts = facts
        self._database = database
        self._flags = ViewerFlags(database, clock)
        self._own_writes = own_writes
        self._cap = settings.timeline_cap
        self._warm_seconds = settings.timeline_warm_days * 86_400
        self.public_url = public_url
        self._clock = clock
        self._breaker = Breaker(RedisUnavailable)
        self._building: set[UUID] = set()
        self._builds = asyncio.Semaphore(BUILDS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._touched: set[UUID] = set()
        self._touched_day = 0

    async def read(self, viewer_id: UUID, page: Page) -> HomePage:
        """One page of the viewer's home timeline; raises `DependencyUnavailable` when the database does not answer."""
        reason: str
        if self._own_writes.is_waiting(viewer_id):
            reason = "own_write"
        else:
            try:
                with self._breaker.guard():
                    answer = await self._from_redis(viewer_id, page)
                if isinstance(answer, HomePage):
                    _FROM_REDIS.inc()
                    return answer
                reason = answer
            except CircuitOpen:
                reason = "circuit_open"
            except RedisUnavailable as error:
                reason = "redis_unavailable"
                _log.warning("home timeline answered from the database", reason=str(error))
            except RedisReplyError as error:
                reason = "redis_error"
                _log.error("home timeline answered from the database", reason=str(error))
        metrics.HOME_READS.labels("sql", reason).inc()
        found: Found = {}
        entries = await self._database.read(
            lambda transaction: run(self._from_sql(viewer_id, page, found), None, transaction.rows)
        )
        return await self._show(viewer_id, entries, found)

    def forget_keys(self) -> None:
        """Keys are made anew: another generation of a read model serves."""
        _person.cache_clear()

    async def close(self) -> None:
        """Stop what runs in the background; an abandoned build is forgotten by Redis."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until nothing runs in the background."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _from_redis(self, viewer_id: UUID, page: Page) -> HomePage | str:
        """The page, or why Redis cannot give it."""
        facts = await self._facts.read()
        if facts.generation is None:
            return "not_ready"
        found: Found = {}
        person = _person(viewer_id)
        missing = self._documents.kept((person.relations, person.flags), found)
        viewer: Viewer | None = found.get(person.relations)
        pulled = self._pulled(viewer, facts) if viewer is not None else []
        items, mark, *lists = await self._documents.fetch(
            [reference for reference in person.documents if key_of(reference) in missing] if missing else (),
            found,
            (*person.first_trip, *map(recents.read, pulled)),
        )
        if self._own_writes.is_waiting_for(viewer_id, mark):
            return "own_write"
        floor = complete_above(items[0] if items else None, facts.generation)
        if floor is None:
            if items and items[0][:1] == BUILDING and items[0].endswith(facts.generation):
                return "building"
            self._start_build(viewer_id, facts.generation)
            return "cold"
        if viewer is None:
            viewer = found[person.relations]
            if pulled := self._pulled(viewer, facts):
                lists = await self._redis.execute([recents.read(author) for author in pulled])
        del items[0]
        for recent in lists:
            if recent:
                floor = max(floor, complete_above(recent[0], NO_GENERATION) or 0)
                items += recent[1:]
        now_ms = self._clock.now_ms()
        self._touch(viewer_id, now_ms)
        entries = await self._choose(items, floor, page, viewer, found, now_ms)
        return await self._show(viewer_id, entries, found)

    @staticmethod
    def _pulled(viewer: Viewer, facts: SharedFacts) -> list[UUID]:
        return [UUID(bytes=author) for author in viewer.followees & facts.celebrities] if facts.celebrities else []

    async def _choose(
        self, items: list[bytes], floor: int, page: Page, viewer: Viewer, found: Found, now_ms: int
    ) -> list[Entry]:
        """Chooses the page from a list that is complete above its floor, and goes on in the database below it."""
        above = page.above
        if page.min_id is not None and above < floor:
            return await self._rows(UUID(bytes=viewer.id), page, found)
        items.sort()
        low = bisect_left(items, pack_id(max(floor, above) + 1))
        high = len(items) if page.max_id is None else bisect_left(items, pack_id(page.max_id))
        start = low if page.min_id is not None else max(low, high - page.limit - page.limit // AHEAD - 1)
        while True:
            rules = select_page(newest_first(items[start:]), page, viewer, now_ms)
            try:
                needed = next(rules)
                while True:
                    await self._read_cards(needed, found)
                    needed = rules.send(found)
            except StopIteration as stop:
                entries: list[Entry] = stop.value
            if len(entries) == page.limit or start == low:
                break
            start = low
        if len(entries) < page.limit and page.min_id is None and floor > above:
            below = min(page.max_id or MAX_ID, floor + 1)
            rest = Page(page.limit - len(entries), max_id=below, since_id=above)
            entries += await self._rows(UUID(bytes=viewer.id), rest, found)
        return entries

    async def _rows(self, viewer_id: UUID, page: Page, found: Found) -> list[Entry]:
        """The page as the database has it, for what the list has not."""
        metrics.HOME_READS.labels("sql", "past_floor").inc()
        query = _query(viewer_id, page)
        entries = _entries(await self._database.rows(query.sql, query.parameters))
        await self._read_cards(_post_ids(entries), found)
        return entries

    async def _read_cards(self, post_ids: Collection[int], found: Found) -> None:
        """Put cards into `found`; counts that the process lacks come in the same round trip."""
        missing: list[int] = self._documents.kept(post_ids, found)
        if missing:
            references: list[Reference] = [(STATUS_CARD, post_id) for post_id in missing]
            counts = {STATUS_COUNTS.key(post_id): (STATUS_COUNTS, post_id) for post_id in missing}
            references += [counts[key] for key in self._documents.kept(tuple(counts), found)]
            await self._documents.fetch(references, found)

    def _from_sql(self, viewer_id: UUID, page: Page, found: Found) -> Effects[list[Entry]]:
        """The same page and documents, with no Redis."""
        entries = _entries((yield _query(viewer_id, page)))
        post_ids = _post_ids(entries)
        cards: list[Reference] = [(STATUS_CARD, post_id) for post_id in post_ids]
        yield from load([*cards, (FLAGS, viewer_id)], found, self.public_url)
        yield from load([*references_for(post_ids, found).values()], found, self.public_url)
        return entries

    async def _show(self, viewer_id: UUID, entries: list[Entry], found: Found) -> HomePage:
        """The page's JSON; reads what is still missing for it."""
        post_ids = _post_ids(entries)
        keys = [key for key in keys_for(post_ids, found) if key not in found]
        missing = self._documents.kept(keys, found)
        if missing:
            references = references_for(post_ids, found)
            await self._documents.fetch([references[key] for key in dict.fromkeys(missing)], found)
        own: Flags = found[_person(viewer_id).flags]
        bits = await self._flags.bits(viewer_id, own, post_ids, found)
        polls = await self._flags.polls(viewer_id, own, post_ids, found)
        viewer: Viewer | None = found.get(_person(viewer_id).relations)
        filters = viewer.filters if viewer is not None else await filters_of(self._database, viewer_id)
        matched = filtered(filters, entries, found, self._clock.now_ms()) if filters else {}
        body = render(entries, found, bits, polls, matched)
        return HomePage(body, entries[0].id if entries else None, entries[-1].id if entries else None)

    def _touch(self, viewer_id: UUID, now_ms: int) -> None:
        """Keep the timeline warm; once a day is often enough, as it stays warm for many."""
        day = now_ms // DAY_MS
        if day != self._touched_day:
            self._touched_day = day
            self._touched.clear()
        if viewer_id not in self._touched:
            self._touched.add(viewer_id)
            self._in_background(self._keep_warm(viewer_id))

    async def _keep_warm(self, viewer_id: UUID) -> None:
        await self._redis.execute([timelines.touch(viewer_id, self._warm_seconds)])

    def _start_build(self, viewer_id: UUID, generation: bytes) -> None:
        if viewer_id not in self._building:
            self._building.add(viewer_id)
            self._in_background(self._build(viewer_id, generation))

    async def _build(self, viewer_id: UUID, generation: bytes) -> None:
        try:
            async with self._builds:
                build = timelines.build(viewer_id, generation, self._cap, self._warm_seconds)
                if await run(build, self._redis, self._database.rows):
                    metrics.HOME_BUILDS.inc()
        finally:
            self._building.discard(viewer_id)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _logged(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (DependencyUnavailable, RedisReplyError) as error:
            # The next read answers from the database and tries again.
            _log.warning("a home timeline was not kept warm", reason=str(error))


def _query(viewer_id: UUID, page: Page) -> Query:
    return timelines.home_query(viewer_id, page.limit, max_id=page.max_id, since_id=page.since_id, min_id=page.min_id)


def _entries(rows: Sequence[dict[str, Any]]) -> list[Entry]:
    """Entries newest first from rows of `timelines.home_query`."""
    return sorted((Entry(row["id"], row["repost_of_id"] or row["id"]) for row in rows), reverse=True)


def _post_ids(entries: Sequence[Entry]) -> list[int]:
    """The posts shown, originals included."""
    ids = []
    for entry in entries:
        ids.append(entry.id)
        if entry.original != entry.id:
            ids.append(entry.original)
    return ids
