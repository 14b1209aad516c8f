"""Sends a client what it has missed: first from the read models, then what the log has shown since, then live.

The client is subscribed before anything is read, and what happens meanwhile waits behind it. A read model may lack what
the log has shown lately; `Recent` has that, as long as the flows are not further behind than it reaches back. If they
are, the database is asked instead.
"""

import asyncio
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from api.database import Database, Transaction
from api.entities import Entities
from api.home import HomeTimelines
from api.paging import Page as TimelinePage
from api.public_timelines import PUBLIC, TAGGED
from api.streaming.client import DELETE, NOTIFICATION, UPDATE, Happening, Subscription
from api.streaming.hub import POSTS, Hub, shows_in
from api.streaming.matching import hides, shows_at_home
from api.streaming.position import KEPT_ARRIVALS, Position
from api.streaming.recent import PostEvent
from api.streaming.render import stored_ms
from api.streaming.streams import HASHTAG, NOTIFICATIONS, USER
from api.streaming.streams import PUBLIC as PUBLIC_STREAMS
from connectors.applied import AppliedOffsets, Offsets
from connectors.flows import group_of
from fanline import metrics
from fanline.errors import DependencyUnavailable
from fanline.ids import created_ms, first_id_at
from fanline.settings import Settings
from readmodels.home_rules import Page
from readmodels.notifications import SHOWN
from readmodels.timelines import home_query

PAGE = 40
# Kafka is asked for the flow's place once for all who come back within this time.
APPLIED_SECONDS = 1.0
# Commits carry the clock of the database, and events of one moment come in any order.
LOG_MARGIN_MS = 2_000

# A notification that is stored later than this after its cause is not looked for: a flow that was down for a day.
LAG_MS = 86_400_000

# Ids carry the time of the cause, so that the index finds those that can have been stored since.
_STORED = f"""
SELECT n.id, n.stored_at FROM notifications n
WHERE {SHOWN} AND n.id > %(above)s AND (n.stored_at, n.id) > (%(since)s, %(after)s)
"""
# In the order in which they were stored, as the client's position goes on by it. The index has another order, so that
# each page reads all of them.
MISSED_NOTIFICATIONS = f"{_STORED} ORDER BY n.stored_at, n.id LIMIT {25 * PAGE}"
STORED_LATELY = f"{_STORED} ORDER BY n.stored_at DESC, n.id DESC LIMIT {KEPT_ARRIVALS}"


class _Shown(msgspec.Struct):
    id: str
    reblog: "_Shown | None" = None


class CatchUp:
    """Catches subscriptions up; one object a process."""

    def __init__(
        self, hub: Hub, home: HomeTimelines, database: Database, settings: Settings, entities: Entities
    ) -> None:
        self._hub, self._home, self._database = hub, home, database
        self._settings, self._entities = settings, entities
        self._applied: AppliedOffsets | None = None
        self._asked_at = float("-inf")
        self._joins = False
        self._asking = asyncio.Lock()

    async def run(self, subscription: Subscription) -> None:
        """Send what was missed and let the subscription go live; raises `DependencyUnavailable`."""
        position = subscription.position
        since_ms = position.log_ms
        missing_above = position.posts.floor
        sent = {*position.posts.ids, *position.notifications.ids}
        name = subscription.stream.name
        if name == USER:
            await self._home_posts(subscription, missing_above, sent)
        elif name in HASHTAG or name in PUBLIC_STREAMS:
            await self._public_posts(subscription, missing_above, sent)
        if subscription.notifications:
            await self._notifications(subscription, position.notifications.floor_ms, sent)
        if since_ms and subscription.stream.name != NOTIFICATIONS:
            await self._changes(subscription, since_ms - LOG_MARGIN_MS)
        subscription.go_live(sent)

    async def _home_posts(self, subscription: Subscription, above: int, sent: set[int]) -> None:
        viewer = subscription.client.viewer
        assert viewer is not None
        originals: dict[int, int] = {}
        pages = self._home_pages if await self._reads_join_the_log() else self._sql_pages
        at = above
        while page := await pages(viewer, at):
            for identifier, original, payload in page:
                at = max(at, identifier)
                originals[original] = max(identifier, originals.get(original, 0))
                await self._send(subscription, identifier, payload, sent)
        missing = [
            event
            for event in self._hub.recent
            if event.event == UPDATE
            and event.entry.id > above
            and event.entry.id not in sent
            # Home shows a newer repost of it instead.
            and originals.get(event.entry.original, 0) < event.entry.id
        ]
        await self._recent_posts(subscription, missing, sent)

    async def _home_pages(self, viewer: UUID, above: int) -> list[tuple[int, int, bytes]]:
        """The next page of the home timeline, oldest first: id, id of the original, JSON."""
        home = await self._home.read(viewer, Page(PAGE, min_id=above))
        raw = msgspec.json.decode(home.body, type=list[msgspec.Raw])
        shown = [(msgspec.json.decode(each, type=_Shown), bytes(each)) for each in reversed(raw)]
        return [(int(one.id), int((one.reblog or one).id), payload) for one, payload in shown]

    async def _sql_pages(self, viewer: UUID, above: int) -> list[tuple[int, int, bytes]]:
        """The same straight from the database."""
        query = home_query(viewer, PAGE, min_id=above)

        async def read(transaction: Transaction) -> list[tuple[int, int, bytes]]:
            rows = await transaction.rows(query.sql, query.parameters)
            ids = sorted(row["id"] for row in rows)
            statuses = await self._entities.statuses(transaction, ids, viewer)
            return [
                (int(each["id"]), int((each["reblog"] or each)["id"]), msgspec.json.encode(each)) for each in statuses
            ]

        return await self._database.read(read)

    async def _public_posts(self, subscription: Subscription, above: int, sent: set[int]) -> None:
        stream, viewer = subscription.stream, subscription.client.viewer
        query = TAGGED if stream.name in HASHTAG else PUBLIC
        parameters = {"viewer": viewer, "any": [stream.tag], "all": [], "all_count": 0, "none": []}
        at = above
        while True:
            page = TimelinePage(PAGE, min_id=at)

            async def ids(transaction: Transaction, page: TimelinePage[int] = page) -> list[int]:
                rows = await transaction.rows(query + page.sql("p.id"), {**parameters, **page.parameters()})
                return [row["id"] for row in rows]

            found = await self._database.read(ids)
            if not found:
                return
            rendered = await self._hub.renderer.statuses(found, {viewer} - {None})  # type: ignore[arg-type]
            for identifier in found:
                at = max(at, identifier)
                status = rendered.get(identifier)
                if status is not None and ("media" not in stream.name or status.entity["media_attachments"]):
                    await self._send(
                        subscription,
                        identifier,
                        status.payload(viewer, self._hub.filters(viewer), self._hub.now_ms()),
                        sent,
                    )

    async def _recent_posts(self, subscription: Subscription, events: list[PostEvent], sent: set[int]) -> None:
        """Those of some posts of the log that home shows or is about to show."""
        viewer = subscription.client.viewer
        shown = await self._shown(viewer, events)
        rendered = await self._hub.renderer.statuses({event.entry.id for event in shown}, {viewer} - {None})  # type: ignore[arg-type]
        for event in sorted(shown, key=lambda each: each.entry.id):
            status = rendered.get(event.entry.id)
            if status is not None:
                await self._send(
                    subscription,
                    event.entry.id,
                    status.payload(viewer, self._hub.filters(viewer), self._hub.now_ms()),
                    sent,
                )

    async def _shown(self, viewer: UUID | None, events: Collection[PostEvent]) -> list[PostEvent]:
        relations = self._hub.viewers.get(viewer) if viewer is not None else None
        if relations is None or not events:
            return []
        mine = [event for event in events if event.author in relations.followees or event.author == relations.id]
        originals = await self._hub.facts_of(mine)
        now_ms = self._hub.now_ms()
        return [event for event in mine if shows_at_home(event, relations, originals, now_ms)]

    async def _changes(self, subscription: Subscription, since_ms: int) -> None:
        """Deletes and edits of the last minutes, which no read model remembers; a repeated one does no harm."""
        events = [event for event in self._hub.recent if event.event != UPDATE and event.log_ms >= since_ms]
        viewer, stream = subscription.client.viewer, subscription.stream
        if stream.name == USER:
            events = await self._shown(viewer, events)
        edited = {event.entry.id for event in events if event.event != DELETE}
        rendered = await self._hub.renderer.statuses(edited, {viewer} - {None})  # type: ignore[arg-type]
        relations = self._hub.viewers.get(viewer) if viewer is not None else None
        for event in events:
            status = rendered.get(event.entry.id)
            if event.event != DELETE and status is None:
                continue
            if stream.name != USER and (
                not event.is_tagged
                or not shows_in(stream, event, status)
                or hides(relations, event.author, self._hub.now_ms())
            ):
                continue
            payload = (
                b"%d" % event.entry.id
                if status is None
                else status.payload(viewer, self._hub.filters(viewer), self._hub.now_ms())
            )
            happening = Happening(event.event, event.entry.id, payload, event.log_ms)
            await subscription.client.put_patiently(subscription, happening)

    async def note_stored(self, viewer: UUID, position: Position) -> None:
        """Put the notifications of the last moments that somebody who connects now can have read into a position.

        Raises `DependencyUnavailable`.
        """
        for row in await self._database.rows(STORED_LATELY, _stored(viewer, position.notifications.floor_ms)):
            position.notifications.add(row["id"], stored_ms(row))

    async def _notifications(self, subscription: Subscription, since_ms: int, sent: set[int]) -> None:
        viewer = subscription.client.viewer
        assert viewer is not None
        parameters = _stored(viewer, since_ms)
        while rows := await self._database.rows(MISSED_NOTIFICATIONS, parameters):
            parameters |= {"since": rows[-1]["stored_at"], "after": rows[-1]["id"]}
            missed = [row["id"] for row in rows if row["id"] not in sent]
            for start in range(0, len(missed), PAGE):
                page = missed[start : start + PAGE]
                for identifier, ms, payload in await self._hub.renderer.notifications(viewer, page):
                    sent.add(identifier)
                    metrics.STREAM_CAUGHT_UP.inc()
                    happening = Happening(NOTIFICATION, identifier, payload, created_ms(identifier), ms)
                    await subscription.client.put_patiently(subscription, happening)

    async def _send(self, subscription: Subscription, identifier: int, payload: bytes, sent: set[int]) -> None:
        if identifier in sent:
            return
        sent.add(identifier)
        metrics.STREAM_CAUGHT_UP.inc()
        happening = Happening(UPDATE, identifier, payload, created_ms(identifier))
        await subscription.client.put_patiently(subscription, happening)

    async def _reads_join_the_log(self) -> bool:
        """Whether what the timelines flow has applied reaches up to what `Recent` has."""
        async with self._asking:
            if time.monotonic() - self._asked_at > APPLIED_SECONDS:
                try:
                    self._joins = self._hub.recent.joins(await asyncio.to_thread(self._ask))
                except DependencyUnavailable:
                    self._joins = False
                self._asked_at = time.monotonic()
            return self._joins

    def _ask(self) -> Offsets:
        if self._applied is None:
            self._applied = AppliedOffsets(self._settings, "fanline-streams-applied")
        group = group_of("timelines")
        return self._applied.committed({group: self._applied.partitions([POSTS])}).get(group, {})


def _stored(viewer: UUID, since_ms: int) -> dict[str, object]:
    return {
        "user_id": viewer,
        "above": first_id_at(max(0, since_ms - LAG_MS)),
        "since": datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=since_ms),
        "after": 0,
    }
