"""The home timeline as it is read: from Redis where it is warm and complete, from the database otherwise.

A warm read takes one round trip for the list (with the reader's mark and the recent lists of followed celebrities) and
one for the documents that the process does not keep. The whole list is read, as entries arrive nearly in order but not
quite, and no part of it can be known to hold the newest ones; 800 entries cost 0.05 ms (docs/decisions/home-reads.md).
"""

import asyncio
from bisect import bisect_left
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from api.breaker import Breaker, CircuitOpen
from api.database import Database
from api.documents import Documents, Found, Status, load, references_of
from api.effects import run
from api.home_render import needed_for, render
from api.read_your_writes import OwnWrites
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
from readmodels.effects import Effects, command
from readmodels.entries import BUILDING, NO_GENERATION, Entry, complete_above, newest_first
from readmodels.home_rules import Page, Viewer, select_page
from readmodels.relations import OWN_REPOSTS, VIEWER, OwnReposts

# Looked at first for a page, as a multiple of its limit: most entries are visible, some are not.
AHEAD = 2
# At once in a process; a build is one query of up to a cap of rows and must leave connections to the readers.
BUILDS = 4
DAY_MS = 86_400_000

REPOSTED = """
SELECT repost_of_id FROM posts WHERE author_id = %(viewer)s::uuid AND repost_of_id = ANY(%(ids)s::bigint[])
"""

_FROM_REDIS = metrics.HOME_READS.labels("redis", "warm")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HomePage:
    """A page as JSON, and the ids at its ends for paging; None when it is empty."""

    body: bytes
    newest: int | None
    oldest: int | None


@dataclass(slots=True)
class _Chosen:
    """What is on a page: entries newest first, the statuses and documents that it takes, the viewer's reposts."""

    entries: list[Entry]
    statuses: dict[int, Status | None]
    found: Found

    def post_ids(self) -> list[int]:
        """The posts shown, originals included."""
        return [post_id for entry in self.entries for post_id in {entry.id, entry.original}]


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
        self._own_writes = own_writes
        self._cap = settings.timeline_cap
        self._warm_seconds = settings.timeline_warm_days * 86_400
        self._public_url = public_url
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
        chosen = await self._database.read(
            lambda transaction: run(self._from_sql(viewer_id, page), None, transaction.rows)
        )
        return await self._show(viewer_id, chosen)

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
        wanted = {VIEWER.key(viewer_id): (VIEWER, viewer_id), OWN_REPOSTS.key(viewer_id): (OWN_REPOSTS, viewer_id)}
        viewer_key = VIEWER.key(viewer_id)
        missing = self._documents.kept(list(wanted), found)
        pulled = self._pulled(found[viewer_key], facts) if viewer_key in found else []
        commands = [
            command(timelines.timeline_key(viewer_id), b"LRANGE", 0, -1),
            self._own_writes.read_mark(viewer_id),
            *map(recents.read, pulled),
        ]
        items, mark, *lists = await self._documents.fetch({key: wanted[key] for key in missing}, found, commands)
        if self._own_writes.is_waiting_for(viewer_id, mark):
            return "own_write"
        floor = complete_above(items[0] if items else None, facts.generation)
        if floor is None:
            if items and items[0][:1] == BUILDING and items[0].endswith(facts.generation):
                return "building"
            self._start_build(viewer_id, facts.generation)
            return "cold"
        viewer: Viewer = found[viewer_key]
        if viewer_key in missing and (pulled := self._pulled(viewer, facts)):
            lists = await self._redis.execute([recents.read(author) for author in pulled])
        del items[0]
        for recent in lists:
            if recent:
                floor = max(floor, complete_above(recent[0], NO_GENERATION) or 0)
                items += recent[1:]
        self._touch(viewer_id)
        return await self._show(viewer_id, await self._choose(items, floor, page, viewer, found))

    @staticmethod
    def _pulled(viewer: Viewer, facts: SharedFacts) -> list[UUID]:
        return [UUID(bytes=author) for author in viewer.followees & facts.celebrities] if facts.celebrities else []

    async def _choose(self, items: list[bytes], floor: int, page: Page, viewer: Viewer, found: Found) -> _Chosen:
        """Chooses the page from a list that is complete above its floor, and goes on in the database below it."""
        chosen = _Chosen([], {}, found)
        if page.min_id is not None and page.above < floor:
            metrics.HOME_READS.labels("sql", "past_floor").inc()
            chosen.entries = await self._rows(UUID(bytes=viewer.id), page)
            await self._facts_of(chosen.post_ids(), chosen)
            return chosen
        items.sort()
        low = bisect_left(items, pack_id(max(floor, page.above) + 1))
        high = len(items) if page.max_id is None else bisect_left(items, pack_id(page.max_id))
        start = low if page.min_id is not None else max(low, high - AHEAD * page.limit)
        while True:
            rules = select_page(newest_first(items[start:]), page, viewer, self._clock.now_ms())
            try:
                needed = next(rules)
                while True:
                    await self._facts_of(needed, chosen)
                    needed = rules.send(chosen.statuses)
            except StopIteration as stop:
                chosen.entries = stop.value
            if len(chosen.entries) == page.limit or start == low:
                break
            start = low
        if len(chosen.entries) < page.limit and page.min_id is None and floor > page.above:
            metrics.HOME_READS.labels("sql", "past_floor").inc()
            below = min(page.max_id or MAX_ID, floor + 1)
            rest = Page(page.limit - len(chosen.entries), max_id=below, since_id=page.above)
            chosen.entries += await self._rows(UUID(bytes=viewer.id), rest)
            await self._facts_of(chosen.post_ids(), chosen)
        return chosen

    async def _rows(self, viewer_id: UUID, page: Page) -> list[Entry]:
        query = timelines.home_query(
            viewer_id, page.limit, max_id=page.max_id, since_id=page.since_id, min_id=page.min_id
        )
        return _entries(await self._database.rows(query.sql, query.parameters))

    async def _facts_of(self, post_ids: Sequence[int] | set[int], chosen: _Chosen) -> None:
        """Put the posts' statuses into `chosen`; counts that the process lacks come in the same round trip."""
        wanted = {STATUS_CARD.key(post_id): post_id for post_id in post_ids if post_id not in chosen.statuses}
        found = chosen.found
        missing = self._documents.kept(list(wanted), found)
        if missing:
            ids = [wanted[key] for key in missing]
            references = references_of(STATUS_CARD, ids)
            counts = references_of(STATUS_COUNTS, ids)
            references |= {key: counts[key] for key in self._documents.kept(list(counts), found)}
            await self._documents.fetch(references, found)
        for key, post_id in wanted.items():
            chosen.statuses[post_id] = found[key] or None

    def _from_sql(self, viewer_id: UUID, page: Page) -> Effects[_Chosen]:
        """The same page and documents, with no Redis."""
        query = timelines.home_query(
            viewer_id, page.limit, max_id=page.max_id, since_id=page.since_id, min_id=page.min_id
        )
        chosen = _Chosen(_entries((yield query)), {}, {})
        post_ids = chosen.post_ids()
        cards = references_of(STATUS_CARD, post_ids)
        yield from load([*cards.values(), (OWN_REPOSTS, viewer_id)], chosen.found, self._public_url)
        for key, (_, post_id) in cards.items():
            assert isinstance(post_id, int)
            chosen.statuses[post_id] = chosen.found[key] or None
        yield from load([*needed_for(post_ids, chosen.statuses).values()], chosen.found, self._public_url)
        return chosen

    async def _show(self, viewer_id: UUID, chosen: _Chosen) -> HomePage:
        entries, found = chosen.entries, chosen.found
        post_ids = chosen.post_ids()
        await self._documents.read(needed_for(post_ids, chosen.statuses), found)
        own: OwnReposts = found[OWN_REPOSTS.key(viewer_id)]
        reposted = own.originals
        older = [post_id for post_id in post_ids if post_id <= own.horizon]
        if older:
            rows = await self._database.rows(REPOSTED, {"viewer": viewer_id, "ids": older})
            reposted = reposted.union(row["repost_of_id"] for row in rows)
        body = render(entries, chosen.statuses, found, reposted)
        return HomePage(body, entries[0].id if entries else None, entries[-1].id if entries else None)

    def _touch(self, viewer_id: UUID) -> None:
        """Keep the timeline warm; once a day is often enough, as it stays warm for many."""
        day = self._clock.now_ms() // DAY_MS
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


def _entries(rows: Sequence[dict[str, Any]]) -> list[Entry]:
    """Entries newest first from rows of `timelines.home_query`."""
    return sorted((Entry(row["id"], row["repost_of_id"] or row["id"]) for row in rows), reverse=True)
