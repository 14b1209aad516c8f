"""The social graph: follow, block and mute, and who follows whom."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from api import follow_requests
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
from fanline.content import clean
from readmodels.entities import Entity

routes = web.RouteTableDef()

# A century: longer than anybody waits, and within what a timestamp holds.
MAX_MUTE_SECONDS = 100 * 366 * 86_400

IS_BLOCKED = """
SELECT 1 FROM blocks WHERE (blocker_id = %(me)s AND blocked_id = %(them)s)
                        OR (blocker_id = %(them)s AND blocked_id = %(me)s)
"""
INSERT = """
INSERT INTO {table} (follower_id, followee_id, show_reblogs, notify, languages)
VALUES (%(me)s, %(them)s, coalesce(%(reblogs)s, true), coalesce(%(notify)s, false), %(languages)s::text[])
ON CONFLICT (follower_id, followee_id) DO NOTHING
"""
UPDATE = """
UPDATE {table}
SET show_reblogs = coalesce(%(reblogs)s, show_reblogs), notify = coalesce(%(notify)s, notify),
    languages = coalesce(%(languages)s::text[], languages)
WHERE follower_id = %(me)s AND followee_id = %(them)s
"""
DELETE_FOLLOW = "DELETE FROM follows WHERE follower_id = %(me)s AND followee_id = %(them)s"
INSERT_BLOCK = "INSERT INTO blocks (blocker_id, blocked_id) VALUES (%(me)s, %(them)s) ON CONFLICT DO NOTHING"
DELETE_BLOCK = "DELETE FROM blocks WHERE blocker_id = %(me)s AND blocked_id = %(them)s"
UPSERT_MUTE = """
INSERT INTO mutes (muter_id, muted_id, hide_notifications, expires_at)
VALUES (%(me)s, %(them)s, %(hide)s, %(expires_at)s)
ON CONFLICT (muter_id, muted_id) DO UPDATE SET hide_notifications = %(hide)s, expires_at = %(expires_at)s
"""
DELETE_MUTE = "DELETE FROM mutes WHERE muter_id = %(me)s AND muted_id = %(them)s"

UPSERT_NOTE = """
INSERT INTO account_notes (user_id, target_id, comment) VALUES (%(me)s, %(them)s, %(comment)s)
ON CONFLICT (user_id, target_id) DO UPDATE SET comment = excluded.comment, updated_at = now()
"""
DELETE_NOTE = "DELETE FROM account_notes WHERE user_id = %(me)s AND target_id = %(them)s"

Change = Callable[[Transaction, Outbox, UUID, UUID], Awaitable[None]]
"""What to do in the transaction on behalf of the first person with regard to the second."""


def _offers(path: str, scope: str) -> Callable[[Change], Change]:
    """Serve a change between the caller and the account in the path; the answer is their relationship."""

    def serve(change: Change) -> Change:
        @routes.post(path)
        async def handler(request: web.Request) -> web.Response:
            return await _changed(request, scope, change)

        return change

    return serve


class Follow(Struct):
    """Parameters of POST /api/v1/accounts/:id/follow; what is absent stays as it is."""

    reblogs: bool | None = None
    notify: bool | None = None
    languages: Annotated[list[Annotated[str, Meta(max_length=35)]], Meta(max_length=100)] | None = None


class Mute(Struct):
    """Parameters of POST /api/v1/accounts/:id/mute; a duration of 0 seconds has no end."""

    notifications: bool = True
    duration: Annotated[int, Meta(ge=0, le=MAX_MUTE_SECONDS)] = 0


class Note(Struct):
    """Parameters of POST /api/v1/accounts/:id/note."""

    comment: Annotated[str, Meta(max_length=2_000)] = ""


@routes.post("/api/v1/accounts/{id}/follow")
async def follow(request: web.Request) -> web.Response:
    """Follow, change how one follows, or ask: a locked account, or, being limited oneself, anybody."""
    form = await read_body(request, Follow)

    async def change(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
        parameters = {
            "me": me,
            "them": them,
            "reblogs": form.reblogs,
            "notify": form.notify,
            "languages": form.languages,
        }
        target = await require_account(transaction, them)
        if target["suspended_at"] is not None or await transaction.row(IS_BLOCKED, parameters):
            raise forbidden()
        if await transaction.execute(UPDATE.format(table="follows"), parameters):
            return
        # Whoever moderators have limited asks everybody.
        if target["locked"] or (await require_account(transaction, me))["silenced_at"] is not None:
            if await transaction.execute(INSERT.format(table="follow_requests"), parameters):
                await outbox.follow_requested(me, them)
            else:
                await transaction.execute(UPDATE.format(table="follow_requests"), parameters)
            return
        # What they asked for when the account was locked, they now have.
        await follow_requests.grant(transaction, outbox, them, me)
        if await transaction.execute(UPDATE.format(table="follows"), parameters):
            return
        if await transaction.execute(INSERT.format(table="follows"), parameters):
            await outbox.follow_created(me, them)

    return await _changed(request, "write:follows", change)


@_offers("/api/v1/accounts/{id}/unfollow", "write:follows")
async def unfollow(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
    """No longer follow, and take a request back."""
    await follow_requests.end(transaction, outbox, me, them)
    await _end_follow(transaction, outbox, me, them)


@_offers("/api/v1/accounts/{id}/remove_from_followers", "write:follows")
async def remove_from_followers(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
    """Make somebody no longer follow oneself."""
    await _end_follow(transaction, outbox, them, me)


@_offers("/api/v1/accounts/{id}/block", "write:blocks")
async def block(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
    """Block; nobody of the two follows the other any longer, or asks to."""
    await transaction.execute(INSERT_BLOCK, {"me": me, "them": them})
    for follower, followee in ((me, them), (them, me)):
        await follow_requests.end(transaction, outbox, follower, followee)
        await _end_follow(transaction, outbox, follower, followee)


@_offers("/api/v1/accounts/{id}/unblock", "write:blocks")
async def unblock(transaction: Transaction, _outbox: Outbox, me: UUID, them: UUID) -> None:
    """No longer block."""
    await transaction.execute(DELETE_BLOCK, {"me": me, "them": them})


@routes.post("/api/v1/accounts/{id}/mute")
async def mute(request: web.Request) -> web.Response:
    """Mute, for a while or for good."""
    form = await read_body(request, Mute)
    expires_at = datetime.now(UTC) + timedelta(seconds=form.duration) if form.duration else None

    async def change(transaction: Transaction, _outbox: Outbox, me: UUID, them: UUID) -> None:
        parameters = {"me": me, "them": them, "hide": form.notifications, "expires_at": expires_at}
        await transaction.execute(UPSERT_MUTE, parameters)

    return await _changed(request, "write:mutes", change)


@_offers("/api/v1/accounts/{id}/unmute", "write:mutes")
async def unmute(transaction: Transaction, _outbox: Outbox, me: UUID, them: UUID) -> None:
    """No longer mute."""
    await transaction.execute(DELETE_MUTE, {"me": me, "them": them})


@routes.post("/api/v1/accounts/{id}/note")
async def note(request: web.Request) -> web.Response:
    """Note something about somebody, for oneself alone; an empty comment removes the note."""
    form = await read_body(request, Note)

    async def change(transaction: Transaction, _outbox: Outbox, me: UUID, them: UUID) -> None:
        parameters = {"me": me, "them": them, "comment": clean(form.comment)}
        await transaction.execute(UPSERT_NOTE if parameters["comment"] else DELETE_NOTE, parameters)

    return await _changed(request, "write:accounts", change)


@_offers("/api/v1/follow_requests/{id}/authorize", "write:follows")
async def authorize_request(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
    """Let somebody follow who asked to."""
    if not await follow_requests.grant(transaction, outbox, me, them):
        raise not_found()


@_offers("/api/v1/follow_requests/{id}/reject", "write:follows")
async def reject_request(transaction: Transaction, outbox: Outbox, me: UUID, them: UUID) -> None:
    """Do not let somebody follow who asked to."""
    if not await follow_requests.end(transaction, outbox, them, me):
        raise not_found()


async def _end_follow(transaction: Transaction, outbox: Outbox, follower: UUID, followee: UUID) -> None:
    if await transaction.execute(DELETE_FOLLOW, {"me": follower, "them": followee}):
        await outbox.follow_deleted(follower, followee)


async def _changed(request: web.Request, scope: str, change: Change) -> web.Response:
    """Make a change between the caller and the account in the path; answers with their relationship."""
    me, them = require_user(request, scope), account_id(request)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity:
        await require_account(transaction, them)
        if me == them:
            raise forbidden()
        await change(transaction, outbox, me, them)
        return await relationship(transaction, me, them)

    return json_response(await write(context_of(request), me, body))
