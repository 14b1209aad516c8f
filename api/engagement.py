"""What people do with a status: favourite, bookmark, pin it, mute its conversation, and take that back.

Everything is idempotent, and answers with the status as the caller now sees it. Of a repost it is done with the
original. An event is written only when something has changed.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

import psycopg
from aiohttp import web

from api.auth.principal import require_user
from api.context import context_of
from api.database import Row, Transaction
from api.errors import not_found, unprocessable
from api.outbox import Engagement, Outbox
from api.post_rows import SELECT_VISIBLE, conversation_of, original_post, original_post_of_anybody, status_id
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity

routes = web.RouteTableDef()

MAX_PINNED = 5

INSERT = "INSERT INTO {table} (user_id, post_id) VALUES (%(user_id)s, %(post_id)s) ON CONFLICT DO NOTHING"
DELETE = "DELETE FROM {table} WHERE user_id = %(user_id)s AND post_id = %(post_id)s"
# Two pins at once must not pass the limit together. Rows that refer to the person are not held up.
LOCK_PERSON = "SELECT id FROM users WHERE id = %(user_id)s FOR NO KEY UPDATE"
OTHER_PINS = "SELECT count(*) AS pinned FROM pins WHERE user_id = %(user_id)s AND post_id <> %(post_id)s"

Change = Callable[[Transaction, Outbox, Row, UUID], Awaitable[object]]
"""What to do on behalf of a person with a post that is no repost; true when something has changed."""


@routes.post("/api/v1/statuses/{id}/favourite")
async def favourite(request: web.Request) -> web.Response:
    """Favourite a status."""
    return await _do(request, "write:favourites", _recorded("likes", "favourite"))


@routes.post("/api/v1/statuses/{id}/unfavourite")
async def unfavourite(request: web.Request) -> web.Response:
    """No longer favourite a status."""
    return await _undo(request, "write:favourites", _taken_back("likes", "favourite"))


@routes.post("/api/v1/statuses/{id}/bookmark")
async def bookmark(request: web.Request) -> web.Response:
    """Bookmark a status; only oneself sees that."""
    return await _do(request, "write:bookmarks", _recorded("bookmarks", "bookmark"))


@routes.post("/api/v1/statuses/{id}/unbookmark")
async def unbookmark(request: web.Request) -> web.Response:
    """No longer bookmark a status."""
    return await _undo(request, "write:bookmarks", _taken_back("bookmarks", "bookmark"))


@routes.post("/api/v1/statuses/{id}/pin")
async def pin(request: web.Request) -> web.Response:
    """Show one's own status at the top of one's profile."""
    return await _do(request, "write:accounts", _pinned)


@routes.post("/api/v1/statuses/{id}/unpin")
async def unpin(request: web.Request) -> web.Response:
    """No longer show a status at the top of one's profile."""
    return await _undo(request, "write:accounts", _taken_back("pins"))


@routes.post("/api/v1/statuses/{id}/mute")
async def mute(request: web.Request) -> web.Response:
    """Be told nothing more of what is said in the status' thread."""
    return await _do(request, "write:mutes", _muted)


@routes.post("/api/v1/statuses/{id}/unmute")
async def unmute(request: web.Request) -> web.Response:
    """Be told again of what is said in the status' thread."""
    return await _undo(request, "write:mutes", _unmuted)


def _recorded(table: str, kind: Engagement) -> Change:
    async def change(transaction: Transaction, outbox: Outbox, post: Row, user_id: UUID) -> object:
        changed = await transaction.execute(INSERT.format(table=table), {"user_id": user_id, "post_id": post["id"]})
        if changed:
            await outbox.engagement(kind, post["id"], post["author_id"], user_id)
        return changed

    return change


def _taken_back(table: str, kind: Engagement | None = None) -> Change:
    async def change(transaction: Transaction, outbox: Outbox, post: Row, user_id: UUID) -> object:
        changed = await transaction.execute(DELETE.format(table=table), {"user_id": user_id, "post_id": post["id"]})
        if changed and kind is not None:
            await outbox.engagement(kind, post["id"], post["author_id"], user_id, undone=True)
        return changed

    return change


async def _pinned(transaction: Transaction, _outbox: Outbox, post: Row, user_id: UUID) -> object:
    if post["author_id"] != user_id:
        raise unprocessable("Validation failed: Someone else's post cannot be pinned")
    if post["visibility"] == "direct":
        raise unprocessable("Validation failed: Posts that are only visible to mentioned users cannot be pinned")
    parameters = {"user_id": user_id, "post_id": post["id"]}
    await transaction.execute(LOCK_PERSON, parameters)
    others = await transaction.row(OTHER_PINS, parameters)
    if others is not None and others["pinned"] >= MAX_PINNED:
        raise unprocessable("Validation failed: You have already pinned the maximum number of posts")
    return await transaction.execute(INSERT.format(table="pins"), parameters)


async def _muted(transaction: Transaction, _outbox: Outbox, post: Row, user_id: UUID) -> object:
    parameters = {"user_id": user_id, "post_id": conversation_of(post)}
    return await transaction.execute(INSERT.format(table="conversation_mutes"), parameters)


async def _unmuted(transaction: Transaction, _outbox: Outbox, post: Row, user_id: UUID) -> object:
    parameters = {"user_id": user_id, "post_id": conversation_of(post)}
    return await transaction.execute(DELETE.format(table="conversation_mutes"), parameters)


async def _do(request: web.Request, scope: str, change: Change) -> web.Response:
    """Make a change with a status that the caller may see."""
    user_id = require_user(request, scope)
    identifier = status_id(request)
    context = context_of(request)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity:
        await change(transaction, outbox, await original_post(transaction, identifier, user_id), user_id)
        return await context.entities.status(transaction, identifier, user_id, fresh=True)

    try:
        return json_response(await write(context, user_id, body))
    except psycopg.errors.ForeignKeyViolation as error:  # it was deleted at the same time
        raise not_found() from error


async def _undo(request: web.Request, scope: str, change: Change) -> web.Response:
    """Take a change back, also of a status that is hidden from the caller by now; it stays hidden (404)."""
    user_id = require_user(request, scope)
    identifier = status_id(request)
    context = context_of(request)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity | None:
        await change(transaction, outbox, await original_post_of_anybody(transaction, identifier), user_id)
        if await transaction.row(SELECT_VISIBLE, {"id": identifier, "viewer": user_id}) is None:
            return None
        return await context.entities.status(transaction, identifier, user_id, fresh=True)

    entity = await write(context, user_id, body)
    if entity is None:
        raise not_found()
    return json_response(entity)
