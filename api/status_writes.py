"""Statuses, written: posts and replies."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import psycopg
from aiohttp import web
from msgspec import Struct

from api.auth.principal import require_application, require_user
from api.body import read_body
from api.context import Context, context_of
from api.database import Row, Transaction
from api.errors import ApiError, bad_request, not_found, unprocessable
from api.outbox import Outbox
from api.paging import post_id
from api.poll_rows import NewPoll, checked, insert_poll
from api.post_rows import conversation_of, insert_links, insert_post, new_row, visible_post
from api.responses import json_response
from api.status_texts import Language, refuse_missing_features, require_text, texts
from api.writes import write
from fanline.ids import created_ms

routes = web.RouteTableDef()

MAX_KEY = 255
VISIBILITIES = ("public", "unlisted", "private", "direct")
# Two processes can make the same identifier in the same millisecond; the primary key tells.
ID_ATTEMPTS = 3

# The author's defaults, and the earlier post with the idempotency key, if there is one.
SELECT_AUTHOR = """
SELECT u.default_visibility, u.default_sensitive, u.default_language, k.key IS NOT NULL AS repeated, k.post_id
FROM users u LEFT JOIN idempotency_keys k
  ON k.user_id = u.id AND k.key = %(key)s AND k.created_at > now() - interval '1 hour'
WHERE u.id = %(user_id)s
"""
# An expired key is taken over. A concurrent request with the same key waits here for the first one's commit.
INSERT_KEY = """
INSERT INTO idempotency_keys (user_id, key, post_id) VALUES (%(user_id)s, %(key)s, %(post_id)s)
ON CONFLICT (user_id, key) DO UPDATE SET post_id = excluded.post_id, created_at = now()
WHERE idempotency_keys.created_at <= now() - interval '1 hour'
"""


class NewStatus(Struct):
    """Parameters of POST /api/v1/statuses."""

    status: str | None = None
    in_reply_to_id: str | int | None = None
    sensitive: bool | None = None
    spoiler_text: str | None = None
    visibility: str | None = None
    language: Language | None = None
    media_ids: list[str] | None = None
    poll: NewPoll | None = None
    scheduled_at: str | None = None


class _Repeated(Exception):
    """The idempotency key was used by a request that has committed since."""


@routes.post("/api/v1/statuses")
async def post_status(request: web.Request) -> web.Response:
    """Post a status. A repeated `Idempotency-Key` (kept one hour) gives the first request's status."""
    user_id = require_user(request, "write:statuses")
    application_id = require_application(request).application_id
    form = await read_body(request, NewStatus)
    context = context_of(request)
    key = request.headers.get("Idempotency-Key")
    if key is not None and len(key) > MAX_KEY:
        raise bad_request(f"Idempotency-Key is longer than {MAX_KEY} characters")
    text, spoiler_text = texts(form.status, form.spoiler_text)
    refuse_missing_features(form.media_ids, form.scheduled_at)
    require_text(text)
    if form.poll is not None:
        form.poll = checked(form.poll)

    async def body(transaction: Transaction, outbox: Outbox) -> int:
        author = await _author(transaction, user_id, key)
        if (done := _earlier(author)) is not None:
            return done
        row = await _new_post(transaction, outbox, context, author, user_id, application_id, form, text, spoiler_text)
        if key is not None:
            taken = await transaction.execute(INSERT_KEY, {"user_id": user_id, "key": key, "post_id": row["id"]})
            if not taken:
                raise _Repeated
        return int(row["id"])

    identifier = await _until_unique(context, body, user_id, key)
    # Read after the commit, which thereby starts on its way to the followers some queries earlier.
    return json_response(
        await context.database.read(partial(context.entities.status, identifier=identifier, viewer=user_id))
    )


async def _new_post(
    transaction: Transaction,
    outbox: Outbox,
    context: Context,
    defaults: Row,
    user_id: UUID,
    application_id: UUID,
    form: NewStatus,
    text: str,
    spoiler_text: str,
) -> Row:
    """Insert the post, its mentions, hashtags, poll and event."""
    visibility = form.visibility or defaults["default_visibility"]
    if visibility not in VISIBILITIES:
        raise unprocessable("Validation failed: Visibility must be public, unlisted, private or direct")
    parent = await _parent(transaction, form.in_reply_to_id, user_id)
    sensitive = defaults["default_sensitive"] if form.sensitive is None else form.sensitive
    identifier = context.ids.next()
    row = new_row(
        id=identifier,
        author_id=user_id,
        text=text,
        spoiler_text=spoiler_text,
        sensitive=sensitive or bool(spoiler_text),
        visibility=visibility,
        language=form.language or defaults["default_language"],
        in_reply_to_id=None if parent is None else parent["id"],
        in_reply_to_account_id=None if parent is None else parent["author_id"],
        conversation_id=None if parent is None else conversation_of(parent),
        application_id=application_id,
        created_at=datetime.fromtimestamp(created_ms(identifier) / 1_000, UTC),
    )
    await insert_post(transaction, row)
    mentioned, tags = await insert_links(transaction, identifier, [spoiler_text, text], context.domain)
    if form.poll is not None:
        await insert_poll(transaction, context.ids, identifier, form.poll)
    await outbox.post_created(row, mentioned, tags)
    if parent is not None:
        await outbox.engagement("reply", parent["id"], parent["author_id"], user_id)
    return row


async def _parent(transaction: Transaction, given: str | int | None, viewer: UUID) -> Row | None:
    if given is None or given == "":
        return None
    missing = "The post you are trying to reply to does not appear to exist."
    try:
        row = await visible_post(transaction, post_id(str(given)), viewer)
    except (ValueError, ApiError) as error:
        raise not_found(missing) from error
    if row["repost_of_id"] is not None:  # an answer to a repost answers what it reposts
        return await visible_post(transaction, row["repost_of_id"], viewer)
    return row


async def _author(transaction: Transaction, user_id: UUID, key: str | None) -> Row:
    """The row of `SELECT_AUTHOR`; raises `ApiError` 404 when the account is gone."""
    row = await transaction.row(SELECT_AUTHOR, {"user_id": user_id, "key": key})
    if row is None:
        raise not_found()
    return row


def _earlier(author: Row) -> int | None:
    """The post of an earlier request with the key; raises `ApiError` 404 when it has been deleted since."""
    if not author["repeated"]:
        return None
    if author["post_id"] is None:
        raise not_found()
    return int(author["post_id"])


async def _until_unique(
    context: Context, body: Callable[[Transaction, Outbox], Awaitable[int]], user_id: UUID, key: str | None
) -> int:
    for attempt in range(ID_ATTEMPTS):
        try:
            return await write(context, user_id, body)
        except _Repeated:
            assert key is not None
            earlier = _earlier(await context.database.read(partial(_author, user_id=user_id, key=key)))
            if earlier is not None:
                return earlier
        except psycopg.errors.UniqueViolation:
            if attempt == ID_ATTEMPTS - 1:
                raise
    raise ApiError(409, "Another request with this Idempotency-Key is under way")
