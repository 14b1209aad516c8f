"""Notifications one by one: Mastodon's /api/v1/notifications."""

from uuid import UUID

from aiohttp import web
from msgspec import Struct

from api.auth.principal import require_user
from api.body import read_query
from api.context import context_of
from api.database import Transaction
from api.errors import not_found
from api.notification_entities import load_notifications, notification_entities
from api.notification_reads import reader_of
from api.notification_unread import unread
from api.outbox import Outbox
from api.paging import link_header, post_id, read_page
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity
from readmodels.home_rules import Page
from readmodels.notification_pages import Wanted
from readmodels.notifications import TYPES

routes = web.RouteTableDef()

DISMISS = """
UPDATE notifications SET dismissed_at = now()
WHERE user_id = %(user_id)s AND id = %(id)s AND dismissed_at IS NULL
"""
CLEAR = """
UPDATE notifications SET dismissed_at = now()
WHERE user_id = %(user_id)s AND dismissed_at IS NULL AND NOT filtered
"""


class Selection(Struct):
    """Which notifications are wanted, besides paging; types that do not exist are ignored."""

    types: list[str] | None = None
    exclude_types: list[str] | None = None
    account_id: str | None = None
    include_filtered: bool = False

    def wanted(self) -> Wanted:
        """The selection; raises `ApiError` 404 for an account that cannot exist."""
        types = set(TYPES if not self.types else self.types) - set(self.exclude_types or ())
        try:
            account = UUID(self.account_id) if self.account_id else None
        except ValueError as error:
            raise not_found() from error
        return Wanted(frozenset(types), account, self.include_filtered)


@routes.get("/api/v1/notifications")
async def notifications(request: web.Request) -> web.Response:
    """The caller's notifications, newest first, with `Link` paging."""
    viewer = require_user(request, "read:notifications")
    asked = read_page(request, 40, 80)
    context, reader = context_of(request), reader_of(request)
    page = Page(asked.limit, asked.max_id or None, asked.since_id, asked.min_id)
    items = await reader.read(viewer, page, read_query(request, Selection).wanted())
    if not items:
        return json_response([])
    rows = await reader.rows(items, viewer)

    async def body(transaction: Transaction) -> list[Entity]:
        return await notification_entities(transaction, rows, viewer, context.entities)

    headers = link_header(request, context.public_url, items[0].id, items[-1].id)
    return json_response(await context.database.read(body), headers=headers)


@routes.get("/api/v1/notifications/unread_count")
async def unread_count(request: web.Request) -> web.Response:
    """How many notifications lie above the caller's marker, up to a limit."""
    viewer = require_user(request, "read:notifications")
    limit = read_page(request, 100, 1_000).limit
    items = await unread(request, viewer, read_query(request, Selection).wanted(), limit)
    return json_response({"count": len(items)})


@routes.get("/api/v1/notifications/{id}")
async def notification(request: web.Request) -> web.Response:
    """One notification of the caller's."""
    viewer = require_user(request, "read:notifications")
    context, identifier = context_of(request), notification_id(request)

    async def body(transaction: Transaction) -> list[Entity]:
        return await load_notifications(transaction, [identifier], viewer, context.entities)

    found = await context.database.read(body)
    if not found:
        raise not_found()
    return json_response(found[0])


@routes.post("/api/v1/notifications/clear")
async def clear(request: web.Request) -> web.Response:
    """Dismiss all of the caller's notifications; requests stay."""
    viewer = require_user(request, "write:notifications")

    async def body(transaction: Transaction, _outbox: Outbox) -> None:
        await transaction.execute(CLEAR, {"user_id": viewer})

    await write(context_of(request), viewer, body)
    return json_response({})


@routes.post("/api/v1/notifications/{id}/dismiss")
async def dismiss(request: web.Request) -> web.Response:
    """Dismiss one notification of the caller's."""
    viewer = require_user(request, "write:notifications")
    parameters = {"user_id": viewer, "id": notification_id(request)}

    async def body(transaction: Transaction, _outbox: Outbox) -> None:
        if not await transaction.execute(DISMISS, parameters):
            raise not_found()

    await write(context_of(request), viewer, body)
    return json_response({})


def notification_id(request: web.Request) -> int:
    """The notification in the path; raises `ApiError` 404, as an id of another form belongs to none."""
    try:
        return post_id(request.match_info["id"])
    except ValueError as error:
        raise not_found() from error
