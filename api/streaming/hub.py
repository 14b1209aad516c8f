"""Takes what the log says and hands it to the clients of this process; knows who they are and when to end them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from api.database import Database
from api.entities import Entities
from api.streaming.batch import DISPATCHED, Batch, NewFollow
from api.streaming.client import DELETE, FILTERS_CHANGED, NOTIFICATION, UPDATE, Client, Ended, Happening, Subscription
from api.streaming.matching import hides, home_audience, shows_at_home
from api.streaming.position import Position
from api.streaming.recent import PostEvent, Recent
from api.streaming.render import Rendered, Renderer
from api.streaming.streams import HASHTAG, PUBLIC, USER, Stream
from api.streaming.viewers import Viewers
from fanline import metrics
from fanline.clock import Clock
from fanline.errors import DependencyUnavailable
from fanline.ids import created_ms
from fanline.logging import get_logger
from readmodels.filters import NO_FILTERS, Filters
from readmodels.home_rules import PostFacts
from readmodels.visibility import ALL_RECORDED, ALL_VISIBLE

POSTS = "cdc.posts"
TOPICS = (POSTS, "cdc.follows", "cdc.blocks", "cdc.mutes", "cdc.filters", DISPATCHED)

# A commit is visible within microseconds of its record, unless its process has lost the processor.
VISIBLE_PAUSE_SECONDS = 0.002
# An event whose outbox row is not there after this has lost it to pruning or by hand.
RECORDED_SECONDS = 5.0
YOUNG_MS = 60_000
DATABASE_PAUSE_SECONDS = 0.5

T = TypeVar("T")
_log = get_logger(__name__)


class Hub:
    """The clients of a process, and everything that is needed to decide what they are told."""

    def __init__(self, database: Database, entities: Entities, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.renderer = Renderer(database, entities)
        self.viewers = Viewers(database)
        self.recent = Recent()
        self.clients: set[Client] = set()
        self._by_person: dict[UUID, set[Subscription]] = {}
        self._public: dict[Stream, set[Subscription]] = {}

    def add(self, subscription: Subscription) -> None:
        """Tell this one from now on; its person must be among the viewers."""
        stream = subscription.stream
        if stream.is_personal:
            assert subscription.client.viewer is not None
            self._by_person.setdefault(subscription.client.viewer, set()).add(subscription)
        else:
            self._public.setdefault(stream, set()).add(subscription)
        metrics.STREAM_SUBSCRIPTIONS.labels(stream.name).inc()

    def remove(self, subscription: Subscription) -> None:
        """Tell this one no more."""
        stream = subscription.stream
        where: dict[UUID, set[Subscription]] | dict[Stream, set[Subscription]]
        where, key = (self._by_person, subscription.client.viewer) if stream.is_personal else (self._public, stream)
        subscriptions = where.get(key)  # type: ignore[arg-type]
        if subscriptions and subscription in subscriptions:
            subscriptions.discard(subscription)
            metrics.STREAM_SUBSCRIPTIONS.labels(stream.name).dec()
            if not subscriptions:
                del where[key]  # type: ignore[arg-type]

    def end_session(self, session_id: UUID) -> None:
        """A token was revoked: its streams end."""
        for client in tuple(self.clients):
            if client.principal.session_id == session_id:
                client.end(Ended.REVOKED)

    def end_all(self, why: Ended) -> None:
        """End every stream."""
        for client in tuple(self.clients):
            client.end(why)

    async def take(self, batch: Batch) -> None:
        """Everything that a batch of the log means for the clients; tries until the database answers."""
        events = [event for event in batch.posts if self.recent.add(event)]
        await self._patiently(lambda: self._wait_until_visible(batch))
        if not self.clients:
            return
        await self._patiently(lambda: self.viewers.refresh(self.viewers.connected(batch.related)))
        self._tell_filters(batch.filtered)
        late = self._late(batch.follows, events)
        if events or late:
            await self._patiently(lambda: self._tell_posts(events, late))
        if batch.notifications:
            await self._patiently(lambda: self._tell_notifications(batch.notifications))

    def note_seen(self, stream: Stream, viewer: UUID | None, position: Position) -> None:
        """Put the posts of the last moments that somebody who connects now can have read already into a position."""
        relations = self.viewers.get(viewer) if viewer is not None else None
        for event in self.recent:
            if event.event != UPDATE or event.entry.id <= position.posts.floor:
                continue
            if stream.name != USER or (
                relations is not None and (event.author in relations.followees or event.author == relations.id)
            ):
                position.posts.add(event.entry.id)

    async def facts_of(self, events: Iterable[PostEvent]) -> dict[int, PostFacts | None]:
        """What the rules need of the reposted posts; None for those that are gone."""
        ids = {each.entry.original for each in events if each.entry.original != each.entry.id and each.event != DELETE}
        if not ids:
            return {}
        found = await self.renderer.originals(ids)
        return {identifier: PostFacts(*found[identifier]) if identifier in found else None for identifier in ids}

    def filters(self, person: UUID | None) -> Filters:
        """The filters of somebody who is connected."""
        relations = self.viewers.get(person) if person is not None else None
        return NO_FILTERS if relations is None else relations.filters

    def now_ms(self) -> int:
        """The time by which mutes end."""
        return self._clock.now_ms()

    async def _wait_until_visible(self, batch: Batch) -> None:
        now_ms = time.time_ns() // 1_000_000
        young = {outbox for outbox, ms in batch.recorded if now_ms - ms < YOUNG_MS}
        if batch.transactions:
            await self._until(ALL_VISIBLE, "all_visible", {"transactions": list(batch.transactions)})
        if young:
            await self._until(ALL_RECORDED, "all_recorded", {"events": list(young)}, RECORDED_SECONDS)

    async def _until(
        self, query: str, column: str, parameters: Mapping[str, object], seconds: float = float("inf")
    ) -> None:
        """Ask until the answer is yes, so long at most."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            row = await self._database.row(query, parameters)
            if row is not None and row[column]:
                return
            await asyncio.sleep(VISIBLE_PAUSE_SECONDS)

    def _tell_filters(self, people: Collection[UUID]) -> None:
        """Their filters have changed; as in Mastodon, clients ask what they are now."""
        for person in people:
            for subscription in self._by_person.get(person, ()):
                if subscription.stream.name == USER:
                    subscription.offer(Happening(FILTERS_CHANGED, 0, b"undefined"))

    def _late(self, follows: Collection[NewFollow], events: Collection[PostEvent]) -> list[tuple[UUID, PostEvent]]:
        """Posts that came out of the log before the follow that was committed before them."""
        now = set(map(id, events))
        found = []
        for follow in follows:
            if self.viewers.get(follow.follower) is not None:
                posts = self.recent.by_author(follow.author, follow.position)
                found += [(follow.follower, post) for post in posts if id(post) not in now]
        return found

    async def _tell_posts(self, events: list[PostEvent], late: list[tuple[UUID, PostEvent]]) -> None:
        now_ms = self.now_ms()
        told = [*events, *(event for _, event in late)]
        originals = await self.facts_of(told)
        audience: dict[int, set[UUID]] = {}
        for index, event in enumerate(told):
            people = home_audience(event, self.viewers, originals, now_ms)
            audience[index] = {person for person in people if person in self._by_person}
        for index, (follower, _) in enumerate(late, len(events)):
            audience[index] &= {follower}
        await self._recheck(told, audience, originals, now_ms)
        wanted = {
            event.entry.id
            for index, event in enumerate(told)
            if event.event != DELETE and (audience[index] or (self._public and event.is_tagged))
        }
        everybody: set[UUID] = set().union(*audience.values())
        for subscriptions in self._public.values():
            everybody |= {each.client.viewer for each in subscriptions if each.client.viewer is not None}
        rendered = await self.renderer.statuses(wanted, everybody)
        for index, event in enumerate(told):
            status = rendered.get(event.entry.id)
            if event.event != DELETE and status is None:
                continue
            self._tell_home(event, audience[index], status, now_ms)
            if self._public and event.is_tagged and index < len(events):
                self._tell_public(event, status, now_ms)

    async def _recheck(
        self,
        events: list[PostEvent],
        audience: dict[int, set[UUID]],
        originals: Mapping[int, PostFacts | None],
        now_ms: int,
    ) -> None:
        """Take those out of the audience to whom the database would not show the posts by now."""
        viewers: set[UUID] = set().union(*audience.values())
        facts = [event.facts for event in events] + [each for each in originals.values() if each is not None]
        people = {each.author for each in facts}
        people |= {each.in_reply_to_account for each in facts if each.in_reply_to_account is not None}
        now = await self.viewers.among(viewers, people)
        for index, event in enumerate(events):
            audience[index] = {one for one in audience[index] if shows_at_home(event, now[one], originals, now_ms)}

    def _tell_home(self, event: PostEvent, people: Iterable[UUID], status: Rendered | None, now_ms: int) -> None:
        shared: dict[bytes, Happening] = {}
        for person in people:
            subscriptions = self._by_person.get(person)
            if not subscriptions:
                continue
            payload = b"%d" % event.entry.id if status is None else status.payload(person, self.filters(person), now_ms)
            happening = shared.get(payload)
            if happening is None:
                happening = shared[payload] = Happening(event.event, event.entry.id, payload, event.log_ms)
            for subscription in subscriptions:
                if subscription.stream.name == USER:
                    self._offer(subscription, happening)

    def _tell_public(self, event: PostEvent, status: Rendered | None, now_ms: int) -> None:
        shared = Happening(event.event, event.entry.id, b"%d" % event.entry.id, event.log_ms)
        if status is not None:
            shared.payload = status.shared
        for stream, subscriptions in self._public.items():
            if not shows_in(stream, event, status):
                continue
            for subscription in subscriptions:
                viewer = subscription.client.viewer
                relations = self.viewers.get(viewer) if viewer is not None else None
                if hides(relations, event.author, now_ms):
                    continue
                happening = shared
                if status is not None and relations is not None:
                    payload = status.payload(viewer, relations.filters, now_ms)
                    if payload is not status.shared:
                        happening = replace(shared, payload=payload)
                self._offer(subscription, happening)

    async def _tell_notifications(self, dispatched: Mapping[UUID, list[int]]) -> None:
        for person, ids in dispatched.items():
            if not any(each.notifications for each in self._by_person.get(person, ())):
                continue
            for identifier, stored_ms, payload in await self.renderer.notifications(person, ids):
                happening = Happening(NOTIFICATION, identifier, payload, created_ms(identifier), stored_ms)
                for subscription in self._by_person.get(person, ()):
                    if subscription.notifications:
                        self._offer(subscription, happening)

    @staticmethod
    def _offer(subscription: Subscription, happening: Happening) -> None:
        subscription.offer(happening)
        if happening.event == UPDATE:
            metrics.STREAM_SECONDS.observe(max(0.0, time.time() - happening.log_ms / 1_000))

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """What follows from the log waits for the database as long as it takes; the streams stay open."""
        waiting = False
        while True:
            try:
                return await work()
            except DependencyUnavailable as error:
                if not waiting:
                    waiting = True
                    _log.warning("streams wait", reason=str(error))
                await asyncio.sleep(DATABASE_PAUSE_SECONDS)


def shows_in(stream: Stream, event: PostEvent, status: Rendered | None) -> bool:
    """Whether a public stream or a hashtag's shows the post, blocks aside; deletes go to all that may have shown it."""
    if stream.name in HASHTAG:
        return event.event == DELETE or (status is not None and stream.tag in status.tags)
    if stream.name not in PUBLIC or not event.is_listed:
        return False
    if event.event == DELETE:
        return True
    if status is None or status.is_limited:
        return False
    return "media" not in stream.name or bool(status.entity["media_attachments"])
