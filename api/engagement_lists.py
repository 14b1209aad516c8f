"""What the caller has favourited and bookmarked, and who has favourited a status; each by time, newest first."""

from uuid import UUID

from aiohttp import web

from api.auth.principal import require_user, viewer_of
from api.context import context_of
from api.database import Row, Transaction
from api.moment_paging import moment_links, read_moment_page
from api.paging import post_id
from api.post_rows import status_id, visible_post
from api.responses import json_response
from api.visibility import listed, unmuted
from readmodels.entities import Entity

routes = web.RouteTableDef()

# Of these the indexes on (user_id, created_at) and (post_id, created_at) give the order.
DONE_WITH = f"""
SELECT e.created_at AS at, e.post_id AS id FROM {{table}} e JOIN posts p ON p.id = e.post_id
WHERE e.user_id = %(viewer)s AND {listed("p")}
"""
FAVOURITED_BY = f"""
SELECT l.created_at AS at, l.user_id AS id FROM likes l JOIN users u ON u.id = l.user_id
WHERE l.post_id = %(id)s AND u.suspended_at IS NULL AND {unmuted("l.user_id")}
  AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = l.user_id AND b.blocked_id = %(viewer)s::uuid)
"""


@routes.get("/api/v1/favourites")
async def favourites(request: web.Request) -> web.Response:
    """What the caller has favourited, as far as they may still see it."""
    return await _statuses(request, require_user(request, "read:favourites"), "likes")


@routes.get("/api/v1/bookmarks")
async def bookmarks(request: web.Request) -> web.Response:
    """What the caller has bookmarked, as far as they may still see it."""
    return await _statuses(request, require_user(request, "read:bookmarks"), "bookmarks")


@routes.get("/api/v1/statuses/{id}/favourited_by")
async def favourited_by(request: web.Request) -> web.Response:
    """Who has favourited the status, without people who are hidden from the viewer."""
    context = context_of(request)
    viewer, identifier = viewer_of(request), status_id(request)
    page = read_moment_page(request, UUID, 40, 80)
    query = FAVOURITED_BY + page.sql("l.created_at", "l.user_id")
    parameters = {"id": identifier, "viewer": viewer, **page.parameters()}

    async def body(transaction: Transaction) -> tuple[list[Row], list[Entity]]:
        await visible_post(transaction, identifier, viewer)
        rows = page.newest_first(await transaction.rows(query, parameters))
        return rows, await context.entities.account_list(transaction, [row["id"] for row in rows], viewer)

    rows, accounts = await context.database.read(body)
    return json_response(accounts, headers=moment_links(request, context.public_url, rows))


async def _statuses(request: web.Request, viewer: UUID, table: str) -> web.Response:
    context = context_of(request)
    page = read_moment_page(request, post_id)
    query = DONE_WITH.format(table=table) + page.sql("e.created_at", "e.post_id")

    async def body(transaction: Transaction) -> tuple[list[Row], list[Entity]]:
        rows = page.newest_first(await transaction.rows(query, {"viewer": viewer, **page.parameters()}))
        return rows, await context.entities.statuses(transaction, [row["id"] for row in rows], viewer)

    rows, statuses = await context.database.read(body)
    return json_response(statuses, headers=moment_links(request, context.public_url, rows))
