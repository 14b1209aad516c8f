"""Statuses, edited: the version before goes into the history; mentions, hashtags and the poll follow the new one."""

from uuid import UUID

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from api.auth.principal import require_user
from api.body import read_body
from api.context import Context, context_of
from api.database import Row, Transaction
from api.errors import not_found
from api.outbox import Outbox
from api.poll_rows import NewPoll, change_poll, checked, is_same, poll_of_post
from api.post_rows import insert_links, own_post, status_id
from api.responses import json_response
from api.status_texts import Language, refuse_missing_features, require_text, texts
from api.writes import write
from readmodels.entities import Entity

routes = web.RouteTableDef()

INSERT_EDIT = """
INSERT INTO post_edits (post_id, created_at, text, spoiler_text, sensitive, language, poll_options)
SELECT id, coalesce(edited_at, created_at), text, spoiler_text, sensitive, language, %(poll_options)s::text[]
FROM posts WHERE id = %(id)s
"""
UPDATE_POST = """
UPDATE posts SET text = %(text)s, spoiler_text = %(spoiler_text)s, sensitive = %(sensitive)s, language = %(language)s,
                 edited_at = clock_timestamp()
WHERE id = %(id)s RETURNING *
"""
LOCK_POST = "SELECT id FROM posts WHERE id = %(id)s FOR UPDATE"
SELECT_MENTIONS = "SELECT account_id FROM post_mentions WHERE post_id = %(id)s"
DELETE_MENTIONS = "DELETE FROM post_mentions WHERE post_id = %(id)s"
DELETE_HASHTAGS = "DELETE FROM post_hashtags WHERE post_id = %(id)s"


class Edit(Struct):
    """Parameters of PUT /api/v1/statuses/:id; what is absent stays, a poll of null is removed."""

    status: str | None = None
    spoiler_text: str | None = None
    sensitive: bool | None = None
    language: Language | None = None
    media_ids: list[str] | None = None
    poll: NewPoll | UnsetType | None = UNSET


@routes.put("/api/v1/statuses/{id}")
async def edit_status(request: web.Request) -> web.Response:
    """Change one's own status; the version before goes into its history."""
    user_id = require_user(request, "write:statuses")
    identifier = status_id(request)
    form = await read_body(request, Edit)
    context = context_of(request)
    refuse_missing_features(form.media_ids, None)
    if isinstance(form.poll, NewPoll):
        form.poll = checked(form.poll)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity:
        await transaction.execute(LOCK_POST, {"id": identifier})
        row = await own_post(transaction, identifier, user_id)
        if row["repost_of_id"] is not None:
            raise not_found()
        await _change(transaction, outbox, context, row, form)
        return await context.entities.status(transaction, identifier, user_id, fresh=True)

    return json_response(await write(context, user_id, body))


async def _change(transaction: Transaction, outbox: Outbox, context: Context, row: Row, form: Edit) -> None:
    """Make the post as the form says; a version and an event come of it only if readers see another post then."""
    parameters = {"id": row["id"]}
    text, spoiler_text = texts(
        row["text"] if form.status is None else form.status,
        row["spoiler_text"] if form.spoiler_text is None else form.spoiler_text,
    )
    require_text(text)
    changed = {
        "text": text,
        "spoiler_text": spoiler_text,
        "sensitive": (row["sensitive"] if form.sensitive is None else form.sensitive) or bool(spoiler_text),
        "language": form.language or row["language"],
    }
    poll = await poll_of_post(transaction, row["id"])
    poll_changed = not isinstance(form.poll, UnsetType) and not is_same(poll, form.poll)
    edited = poll_changed or any(row[column] != value for column, value in changed.items())
    if edited:
        await transaction.execute(INSERT_EDIT, {**parameters, "poll_options": poll and poll["titles"]})
    if not isinstance(form.poll, UnsetType):
        await change_poll(transaction, context.ids, row["id"], poll, form.poll)
    if not edited:
        return
    before: list[UUID] = [each["account_id"] for each in await transaction.rows(SELECT_MENTIONS, parameters)]
    await transaction.execute(DELETE_MENTIONS, parameters)
    await transaction.execute(DELETE_HASHTAGS, parameters)
    mentioned, tags = await insert_links(transaction, row["id"], [spoiler_text, text], context.domain)
    now = await transaction.row(UPDATE_POST, {**parameters, **changed})
    assert now is not None
    await outbox.post_updated(now, mentioned, before, tags, poll_changed=poll_changed)
