"""What the caller has not read: the notifications above the marker of the timeline `notifications`."""

from uuid import UUID

from aiohttp import web

from api.notification_reads import reader_of, shown_marker
from readmodels.home_rules import Page
from readmodels.inbox import Item
from readmodels.notification_pages import Wanted


async def unread(request: web.Request, viewer: UUID, wanted: Wanted, limit: int) -> list[Item]:
    """The newest unread notifications, at most `limit`, newest first; filtered ones are never unread."""
    reader = reader_of(request)
    shown = Wanted(wanted.types, wanted.account_id)
    inbox = await reader.inbox(viewer)
    marker = await shown_marker(request, viewer) if inbox is None else inbox.marker
    if inbox is None or marker < inbox.floor:
        return await reader.read(viewer, Page(limit, since_id=marker), shown)
    return [item for item in inbox.items if item.id > marker and shown.matches(item)][:limit]
