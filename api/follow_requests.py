"""Requests to follow a locked account: listed, granted and refused."""

from uuid import UUID

from aiohttp import web

from api.auth.principal import require_user
from api.context import context_of
from api.database import Row, Transaction
from api.moment_paging import moment_links, read_moment_page
from api.outbox import Outbox
from api.responses import json_response
from readmodels.entities import Entity

routes = web.RouteTableDef()

SELECT = "SELECT r.created_at AS at, r.follower_id AS id FROM follow_requests r WHERE r.followee_id = %(owner)s"
DELETE = "DELETE FROM follow_requests WHERE follower_id = %(follower)s AND followee_id = %(followee)s"
GRANT = """
WITH request AS (
  DELETE FROM follow_requests WHERE followee_id = %(followee)s AND (%(all)s OR follower_id = %(follower)s)
  RETURNING follower_id, followee_id, show_reblogs, notify, languages
)
INSERT INTO follows (follower_id, followee_id, show_reblogs, notify, languages) SELECT * FROM request
ON CONFLICT (follower_id, followee_id) DO NOTHING RETURNING follower_id
"""


@routes.get("/api/v1/follow_requests")
async def follow_requests(request: web.Request) -> web.Response:
    """Who asks to follow the caller, the newest request first."""
    owner = require_user(request, "read:follows")
    context = context_of(request)
    page = read_moment_page(request, UUID, 40, 80)
    query = SELECT + page.sql("r.created_at", "r.follower_id")

    async def body(transaction: Transaction) -> tuple[list[Row], list[Entity]]:
        rows = page.newest_first(await transaction.rows(query, {"owner": owner, **page.parameters()}))
        return rows, await context.entities.account_list(transaction, [row["id"] for row in rows], owner)

    rows, accounts = await context.database.read(body)
    return json_response(accounts, headers=moment_links(request, context.public_url, rows))


async def grant(transaction: Transaction, outbox: Outbox, followee: UUID, follower: UUID | None) -> bool:
    """Turn somebody's request into a follow, or with None everybody's; whether there was any."""
    parameters = {"followee": followee, "follower": follower, "all": follower is None}
    rows = await transaction.rows(GRANT, parameters)
    for row in rows:
        await outbox.follow_created(row["follower_id"], followee)
    return bool(rows)


async def end(transaction: Transaction, outbox: Outbox, follower: UUID, followee: UUID) -> bool:
    """Remove a request that was not granted; whether there was one."""
    ended = await transaction.execute(DELETE, {"follower": follower, "followee": followee}) > 0
    if ended:
        await outbox.follow_requested(follower, followee, undone=True)
    return ended
