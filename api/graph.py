"""The social graph: follow, block and mute, and who follows whom."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from api.accounts import account_id, require_account
from api.auth.principal import require_user
from api.body import read_body
from api.context import context_of
from api.database import Transaction
from api.errors import forbidden, not_found
from api.outbox import Outbox
from api.relationships import relationship
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity

routes = web.RouteTableDef()

# A century: longer than anybody waits, and within what a timestamp holds.
MAX_MUTE_SECONDS = 100 * 366 * 86_400

IS_BLOCKED = """
SELECT 1 FROM blocks WHERE (blocker_id = %(me)s AND blocked_id = %(them)s)
                        OR (blocker_id = %(them)s AND blocked_id = %(me)s)
"""
IS_FOLLOWING = "SELECT 1 FROM follows WHERE follower_id = %(me)s AND followee_id = %(them)s"
UPSERT = """
INSERT INTO {table} (follower_id, followee_id, show_reblogs, notify, languages)
VALUES (%(me)s, %(them)s, coalesce(%(reblogs)s, true), coalesce(%(notify)s, false), %(languages)s::text[])
ON CONFLICT (follower_id, followee_id) DO UPDATE
SET show_reblogs = coalesce(%(reblogs)s, {table}.show_reblogs),
    notify = coalesce(%(notify)s, {table}.notify),
    languages = coalesce(%(languages)s::text[], {table}.languages)
"""
UPSERT_FOLLOW = UPSERT.format(table="follows")
UPSERT_REQUEST = UPSERT.format(table="follow_requests")
DELETE_FOLLOW = "DELETE FROM follows WHERE follower_id = %(me)s AND followee_id = %(them)s"
DELETE_REQUEST = "DELETE FROM follow_requests WHERE follower_id = %(me)s AND followee_id = %(them)s"
DELETE_REQUEST_TO_ME = "DELETE FROM follow_requests WHERE follower_id = %(them)s AND followee_id = %(me)s"
ACCEPT_REQUEST = """
WITH request AS (
  DELETE FROM follow_requests WHERE follower_id = %(them)s AND followee_id = %(me)s
  RETURNING follower_id, followee_id, show_reblogs, notify, languages
)
INSERT INTO follows (follower_id, followee_id, show_reblogs, notify, languages) SELECT * FROM request
ON CONFLICT (follower_id, followee_id) DO NOTHING
"""
INSERT_BLOCK = "INSERT INTO blocks (blocker_id, blocked_id) VALUES (%(me)s, %(them)s) ON CONFLICT DO NOTHING"
DELETE_BLOCK = "DELETE FROM blocks WHERE blocker_id = %(me)s AND blocked_id = %(them)s"
UPSERT_MUTE = """
INSERT INTO mutes (muter_id, muted_id, hide_notifications, expires_at)
VALUES (%(me)s, %(them)s, %(hide)s, %(expires_at)s)
ON CONFLICT (muter_id, muted_id) DO UPDATE SET hide_notifications = %(hide)s, expires_at = %(expires_at)s
"""
DELETE_MUTE = "DELETE FROM mutes WHERE muter_id = %(me)s AND muted_id = %(them)s"

Change = Callable[[Transaction, Outbox, UUID, UUID], Awaitable[None]]
"""What to do in the transaction on behalf of the first person with regard to the second."""


class Follow(Struct):
    """Parameters of POST /api/v1/accounts/:id/follow; what is absent stays as it is."""

    reblogs: bool | None = None
    notify: bool | None = None
    languages: Annotated[list[Annotated[str, Meta(max_length=35)]], Meta(max_length=100)] | None = None


class Mute(Struct):
    """Parameters of POST /api/v1/accounts/:id/mute; a duration of 0 seconds has no end."""

    notifications: bool = True
    duration: Annotated[int, Meta(ge=0, le=MAX_MUTE_SECONDS)] = 0


@routes.post("/api/v1/accounts/{id}/follow")
async def follow(request: web.Request) -> web.Response:
    """Follow, change how one follows, or ask a locked account."""
    me, them = _pair(request, "write:follows")
    form = await read_body(request, Follow)
    context = context_of(request)
    parameters = {
        "me": me,
        "them": them,
        "reblogs": form.reblogs,
        "notify": form.notify,
        "languages": form.languages,
    }

    async def body(transaction: Transaction, outbox: Outbox) -> Entity:
        target = await require_account(transaction, them)
        if me == them or target["suspended_at"] is not None or await transaction.row(IS_BLOCKED, parameters):
            raise forbidden()
        if await transaction.row(IS_FOLLOWING, parameters):
            await transaction.execute(UPSERT_FOLLOW, parameters)
        elif target["locked"]:
            await transaction.execute(UPSERT_REQUEST, parameters)
        else:
            await transaction.execute(UPSERT_FOLLOW, parameters)
            await transaction.execute(DELETE_REQUEST, parameters)
            await outbox.follow_created(me, them)
        return await relationship(transaction, me, them)

    return json_response(await write(context, me, body))


@routes.post("/api/v1/accounts/{id}/unfollow")
async def unfollow(request: web.Request) -> web.Response:
    """No longer follow, and take a request back."""

    async def change(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
        await transaction.execute(DELETE_REQUEST, {"me": me, "them": them})
        await _end_follow(transaction, outbox, me, them)

    return await _changed(request, "write:follows", change)


@routes.post("/api/v1/accounts/{id}/remove_from_followers")
async def remove_from_followers(request: web.Request) -> web.Response:
    """Make somebody no longer follow oneself."""

    async def change(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
        await _end_follow(transaction, outbox, them, me)

    return await _changed(request, "write:follows", change)


@routes.post("/api/v1/accounts/{id}/block")
async def block(request: web.Request) -> web.Response:
    """Block; both stop following each other."""

    async def change(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
        parameters = {"me": me, "them": them}
        await transaction.execute(INSERT_BLOCK, parameters)
        await transaction.execute(DELETE_REQUEST, parameters)
        await transaction.execute(DELETE_REQUEST_TO_ME, parameters)
        await _end_follow(transaction, outbox, me, them)
        await _end_follow(transaction, outbox, them, me)

    return await _changed(request, "write:blocks", change)


@routes.post("/api/v1/accounts/{id}/unblock")
async def unblock(request: web.Request) -> web.Response:
    """No longer block."""

    async def change(transaction: Transaction, _outbox: Outbox, me: UUID, them: UUID) -> None:
        await transaction.execute(DELETE_BLOCK, {"me": me, "them": them})

    return await _changed(request, "write:blocks", change)


@routes.post("/api/v1/accounts/{id}/mute")
async def mute(request: web.Request) -> web.Response:
    """Mute, for a while or for good."""
    form = await read_body(request, Mute)
    expires_at = datetime.now(UTC) + timedelta(seconds=form.duration) if form.duration else None

    async def change(transaction: Transaction, _outbox: Outbox, me: UUID, them: UUID) -> None:
        parameters = {"me": me, "them": them, "hide": form.notifications, "expires_at": expires_at}
        await transaction.execute(UPSERT_MUTE, parameters)

    return await _changed(request, "write:mutes", change)


@routes.post("/api/v1/accounts/{id}/unmute")
async def unmute(request: web.Request) -> web.Response:
    """No longer mute."""

    async def change(transaction: Transaction, _outbox: Outbox, me: UUID, them: UUID) -> None:
        await transaction.execute(DELETE_MUTE, {"me": me, "them": them})

    return await _changed(request, "write:mutes", change)


@routes.post("/api/v1/follow_requests/{id}/authorize")
async def authorize_request(request: web.Request) -> web.Response:
    """Let somebody follow who asked to."""

    async def change(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
        if not await transaction.execute(ACCEPT_REQUEST, {"me": me, "them": them}):
            raise not_found()
        await outbox.follow_created(them, me)

    return await _changed(request, "write:follows", change)


@routes.post("/api/v1/follow_requests/{id}/reject")
async def reject_request(request: web.Request) -> web.Response:
    """Do not let somebody follow who asked to."""

    async def change(transaction: Transaction, _outbox: Outbox, me: UUID, them: UUID) -> None:
        if not await transaction.execute(DELETE_REQUEST_TO_ME, {"me": me, "them": them}):
            raise not_found()

    return await _changed(request, "write:follows", change)


def _pair(request: web.Request, scope: str) -> tuple[UUID, UUID]:
    return require_user(request, scope), account_id(request)


async def _end_follow(transaction: Transaction, outbox: Outbox, follower: UUID, followee: UUID) -> None:
    if await transaction.execute(DELETE_FOLLOW, {"me": follower, "them": followee}):
        await outbox.follow_deleted(follower, followee)


async def _changed(request: web.Request, scope: str, change: Change) -> web.Response:
    """Make a change between the caller and the account in the path; answers with their relationship."""
    me, them = _pair(request, scope)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity:
        await require_account(transaction, them)
        if me == them:
            raise forbidden()
        await change(transaction, outbox, me, them)
        return await relationship(transaction, me, them)

    return json_response(await write(context_of(request), me, body))
