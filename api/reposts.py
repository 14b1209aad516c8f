"""Reposts: POST and its undoing."""

from datetime import UTC, datetime
from functools import partial

import psycopg
from aiohttp import web
from msgspec import Struct

from api.auth.principal import require_application, require_user
from api.body import read_body
from api.context import context_of
from api.database import Transaction
from api.errors import forbidden, not_found, unprocessable
from api.outbox import Outbox
from api.post_rows import (
    SELECT_VISIBLE,
    insert_post,
    new_row,
    original_post,
    original_post_of_anybody,
    status_id,
)
from api.responses import json_response
from api.statuses import DELETE_POST
from api.writes import write
from fanline.ids import created_ms
from readmodels.entities import Entity

routes = web.RouteTableDef()

OPENNESS = {"public": 0, "unlisted": 1, "private": 2, "direct": 3}

SELECT_REPOST = "SELECT * FROM posts WHERE author_id = %(viewer)s AND repost_of_id = %(id)s"


class Repost(Struct):
    """Parameters of POST /api/v1/statuses/:id/reblog."""

    visibility: str | None = None


@routes.post("/api/v1/statuses/{id}/reblog")
async def repost(request: web.Request) -> web.Response:
    """Repost a status; a second time answers with the first repost."""
    user_id = require_user(request, "write:statuses")
    application_id = require_application(request).application_id
    form = await read_body(request, Repost)
    if form.visibility not in (None, "", "public", "unlisted", "private"):
        raise unprocessable("Validation failed: Visibility must be public, unlisted or private")
    context = context_of(request)
    identifier = status_id(request)

    async def body(transaction: Transaction, outbox: Outbox) -> int:
        original = await original_post(transaction, identifier, user_id)
        if original["visibility"] == "direct" or (
            original["visibility"] == "private" and original["author_id"] != user_id
        ):
            raise forbidden()
        earlier = await transaction.row(SELECT_REPOST, {"id": original["id"], "viewer": user_id})
        if earlier is not None:
            return int(earlier["id"])
        asked = form.visibility or "public"
        new_id = context.ids.next()
        row = new_row(
            id=new_id,
            author_id=user_id,
            repost_of_id=original["id"],
            # A repost is never more open than what it shows.
            visibility=max(asked, original["visibility"], key=OPENNESS.__getitem__),
            application_id=application_id,
            created_at=datetime.fromtimestamp(created_ms(new_id) / 1_000, UTC),
        )
        await insert_post(transaction, row)
        await outbox.post_created(row, original=original)
        await outbox.engagement("repost", original["id"], original["author_id"], user_id)
        return new_id

    try:
        made = await write(context, user_id, body)
    except psycopg.errors.UniqueViolation:  # a concurrent request has just made it
        made = await write(context, user_id, body)
    return json_response(await context.database.read(partial(context.entities.status, identifier=made, viewer=user_id)))


@routes.post("/api/v1/statuses/{id}/unreblog")
async def unrepost(request: web.Request) -> web.Response:
    """Take one's repost back; answers with the original, also when there was no repost.

    The original may be hidden from the caller by now; it stays hidden (404).
    """
    user_id = require_user(request, "write:statuses")
    context = context_of(request)
    identifier = status_id(request)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity | None:
        original = await original_post_of_anybody(transaction, identifier)
        row = await transaction.row(SELECT_REPOST, {"id": original["id"], "viewer": user_id})
        if row is not None:
            await outbox.post_deleted(row)
            await outbox.engagement("repost", original["id"], original["author_id"], user_id, undone=True)
            await transaction.execute(DELETE_POST, {"id": row["id"]})
        if await transaction.row(SELECT_VISIBLE, {"id": original["id"], "viewer": user_id}) is None:
            return None
        return await context.entities.status(transaction, original["id"], user_id, fresh=True)

    entity = await write(context, user_id, body)
    if entity is None:
        raise not_found()
    return json_response(entity)
