"""Notifications as they are read: from the inbox in Redis where it is complete, from the database otherwise."""

from collections.abc import AsyncIterator
from uuid import UUID

from aiohttp import web

from api.breaker import Breaker, CircuitOpen
from api.context import CONTEXT, Context, context_of
from api.database import Row
from api.effects import run
from api.read_your_writes import read_mark
from api.redis_client import RedisReplyError, RedisUnavailable
from fanline import metrics
from fanline.logging import get_logger
from readmodels import inbox
from readmodels.home_rules import Page
from readmodels.inbox import Inbox, Item
from readmodels.notification_pages import Wanted, items_of, page_query, rest, select
from readmodels.notifications import NOTIFICATIONS_BY_ID, SUSPENDED

DAY_MS = 86_400_000

# Of these an inbox does not hold all that their entities show.
WITH_DETAILS = frozenset({"admin.report", "moderation_warning"})

_log = get_logger(__name__)


class NotificationReader:
    """Reads inboxes, and fills those that are not there."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._breaker = Breaker(RedisUnavailable)
        settings = context.settings
        self._cap, self._warm_seconds = settings.notifications_cap, settings.timeline_warm_days * 86_400
        self._touched: set[UUID] = set()
        self._touched_day = 0

    async def read(self, viewer: UUID, page: Page, wanted: Wanted) -> list[Item]:
        """One page of the viewer's notifications, newest first.

        Raises `DependencyUnavailable` when the database does not answer where it is needed.
        """
        found = None if wanted.filtered else await self.inbox(viewer)
        if found is None:
            return await self._rows(viewer, page, wanted)
        items = select(found, page, wanted)
        if items is None:
            return await self._rows(viewer, page, wanted)
        left = rest(found, page, len(items))
        return items if left is None else items + await self._rows(viewer, left, wanted)

    async def inbox(self, viewer: UUID) -> Inbox | None:
        """What is shown of the viewer's inbox, filled if it was not there; None where the database has to answer."""
        found = await self._inbox(viewer)
        senders = {item.from_account_id for item in found.items} - {None} if found is not None else set()
        if found is None or not senders:
            return found
        rows = await self._context.database.rows(SUSPENDED, {"ids": list(senders)})
        suspended = {row["id"] for row in rows}
        return found._replace(items=[item for item in found.items if item.from_account_id not in suspended])

    async def _inbox(self, viewer: UUID) -> Inbox | None:
        context = self._context
        reason: str
        if context.own_writes.is_waiting(viewer):
            reason = "own_write"
        else:
            try:
                with self._breaker.guard():
                    members, mark = await context.redis.execute([inbox.read(viewer), read_mark(viewer)])
                    if context.own_writes.is_waiting_for(viewer, mark):
                        reason = "own_write"
                    else:
                        return await self._found(viewer, inbox.parse(members))
            except CircuitOpen:
                reason = "circuit_open"
            except (RedisUnavailable, RedisReplyError) as error:
                reason = "redis_unavailable" if isinstance(error, RedisUnavailable) else "redis_error"
                _log.warning("notifications answered from the database", reason=str(error))
        metrics.NOTIFICATION_READS.labels("sql", reason).inc()
        return None

    async def rows(self, items: list[Item], viewer: UUID) -> list[Row]:
        """What the entities of notifications are made of (`notification_entities`)."""
        ids = [item.id for item in items if item.type in WITH_DETAILS]
        details = await self._context.database.rows(NOTIFICATIONS_BY_ID, {"ids": ids}) if ids else []
        by_id = {row["id"]: row for row in details}
        return [by_id.get(item.id) or _row(item, viewer) for item in items]

    async def _found(self, viewer: UUID, found: Inbox | None) -> Inbox:
        context = self._context
        if found is None:
            metrics.NOTIFICATION_READS.labels("sql", "cold").inc()
            return await run(inbox.fill(viewer, self._cap, self._warm_seconds), context.redis, context.database.rows)
        metrics.NOTIFICATION_READS.labels("redis", "warm").inc()
        await self._touch(viewer)
        return found

    async def _rows(self, viewer: UUID, page: Page, wanted: Wanted) -> list[Item]:
        query = page_query(viewer, page, wanted)
        return items_of(await self._context.database.rows(query.sql, query.parameters))

    async def _touch(self, viewer: UUID) -> None:
        """Keep the inbox; once a day is often enough, as it stays for many."""
        day = self._context.clock.now_ms() // DAY_MS
        if day != self._touched_day:
            self._touched_day = day
            self._touched.clear()
        if viewer not in self._touched:
            self._touched.add(viewer)
            await self._context.redis.execute([inbox.touch(viewer, self._warm_seconds)])


READER = web.AppKey("notification reader", NotificationReader)


def reader_of(request: web.Request) -> NotificationReader:
    """The application's reader of notifications."""
    reader: NotificationReader = request.config_dict[READER]
    return reader


async def serve_notifications(app: web.Application) -> AsyncIterator[None]:
    """For `cleanup_ctx`, after the context is there."""
    app[READER] = NotificationReader(app[CONTEXT])
    yield


async def shown_marker(request: web.Request, viewer: UUID) -> int:
    """The last notification that the viewer has read, by the database."""
    rows = await context_of(request).database.rows(inbox.MARKERS, {"users": [viewer]})
    return rows[0]["last_read_id"] if rows else 0


def _row(item: Item, viewer: UUID) -> Row:
    return {
        "id": item.id,
        "user_id": viewer,
        "type": item.type,
        "from_account_id": item.from_account_id,
        "post_id": item.post_id,
        "report_id": None,
        "moderation_action_id": None,
        "group_key": item.group_key,
        "created_at": item.created_at,
    }
