"""Statuses, read and deleted: one, its thread, who reposted it, its source and earlier versions."""

from aiohttp import web

from api.auth.principal import require_user, viewer_of
from api.context import context_of
from api.database import Row, Transaction
from api.outbox import Outbox
from api.paging import link_header, post_id, read_page
from api.poll_rows import poll_of_post
from api.post_rows import original_post_of_anybody, own_post, status_id, visible_post
from api.responses import json_response
from api.visibility import unmuted, visible
from api.writes import write
from fanline.content import to_html
from readmodels.entities import Entity, timestamp

routes = web.RouteTableDef()

# Mastodon's own limits of a thread: for those who are signed in, and for everybody else.
MAX_ANCESTORS, MAX_DESCENDANTS, MAX_DEPTH = 4_096, 4_096, 4_096
ANONYMOUS_ANCESTORS, ANONYMOUS_DESCENDANTS, ANONYMOUS_DEPTH = 40, 60, 20

ANCESTORS = f"""
WITH RECURSIVE thread (id, in_reply_to_id, depth) AS (
  SELECT p.id, p.in_reply_to_id, 0 FROM posts p WHERE p.id = %(id)s
  UNION ALL
  SELECT p.id, p.in_reply_to_id, t.depth + 1 FROM thread t JOIN posts p ON p.id = t.in_reply_to_id
  WHERE t.depth < %(limit)s
)
SELECT p.id FROM thread t JOIN posts p ON p.id = t.id
WHERE t.depth > 0 AND {visible("p")} AND {unmuted("p.author_id")}
ORDER BY t.depth DESC
"""
DESCENDANTS = f"""
WITH RECURSIVE thread (id, path, depth) AS (
  SELECT p.id, ARRAY[p.id], 1 FROM posts p WHERE p.in_reply_to_id = %(id)s
  UNION ALL
  SELECT p.id, t.path || p.id, t.depth + 1 FROM thread t JOIN posts p ON p.in_reply_to_id = t.id
  WHERE t.depth < %(depth)s
)
SELECT p.id FROM thread t JOIN posts p ON p.id = t.id
WHERE {visible("p")} AND {unmuted("p.author_id")}
ORDER BY t.path
LIMIT %(limit)s
"""
SELECT_REPOSTS = f"""
SELECT p.id, p.author_id FROM posts p WHERE p.repost_of_id = %(id)s AND {visible("p")} AND {unmuted("p.author_id")}
"""
SELECT_EDITS = "SELECT * FROM post_edits WHERE post_id = %(id)s ORDER BY created_at"
DELETE_POST = "DELETE FROM posts WHERE id = %(id)s"


@routes.get("/api/v1/statuses/{id}")
async def status(request: web.Request) -> web.Response:
    """A status."""
    context = context_of(request)
    viewer, identifier = viewer_of(request), status_id(request)

    async def body(transaction: Transaction) -> Entity:
        await visible_post(transaction, identifier, viewer)
        return await context.entities.status(transaction, identifier, viewer)

    return json_response(await context.database.read(body))


@routes.get("/api/v1/statuses")
async def statuses(request: web.Request) -> web.Response:
    """Several statuses: `id[]=1&id[]=2`, at most 20; those that the viewer may not see are left out."""
    context = context_of(request)
    viewer = viewer_of(request)
    identifiers = [item for text in request.query.getall("id[]", [])[:20] if (item := _number(text)) is not None]
    query = f"SELECT p.id FROM posts p WHERE p.id = ANY(%(ids)s::bigint[]) AND {visible('p')}"

    async def body(transaction: Transaction) -> list[Entity]:
        allowed = {row["id"] for row in await transaction.rows(query, {"ids": identifiers, "viewer": viewer})}
        return await context.entities.statuses(transaction, [item for item in identifiers if item in allowed], viewer)

    return json_response(await context.database.read(body))


@routes.delete("/api/v1/statuses/{id}")
async def delete(request: web.Request) -> web.Response:
    """Delete one's own status; answers with it and its source, so that a client can offer to write it anew."""
    user_id = require_user(request, "write:statuses")
    context = context_of(request)
    identifier = status_id(request)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity:
        row = await own_post(transaction, identifier, user_id)
        entity = await context.entities.status(transaction, identifier, user_id, fresh=True)
        await outbox.post_deleted(row)
        await _take_back(transaction, outbox, row)
        await transaction.execute(DELETE_POST, {"id": identifier})
        return entity | {"text": row["text"]}

    return json_response(await write(context, user_id, body))


@routes.get("/api/v1/statuses/{id}/context")
async def thread(request: web.Request) -> web.Response:
    """What the status answers, and what answers it."""
    context = context_of(request)
    viewer, identifier = viewer_of(request), status_id(request)
    known = viewer is not None
    up = {"id": identifier, "viewer": viewer, "limit": MAX_ANCESTORS if known else ANONYMOUS_ANCESTORS}
    down = {
        "id": identifier,
        "viewer": viewer,
        "limit": MAX_DESCENDANTS if known else ANONYMOUS_DESCENDANTS,
        "depth": MAX_DEPTH if known else ANONYMOUS_DEPTH,
    }

    async def body(transaction: Transaction) -> dict[str, list[Entity]]:
        await visible_post(transaction, identifier, viewer)
        ancestors = [row["id"] for row in await transaction.rows(ANCESTORS, up)]
        descendants = [row["id"] for row in await transaction.rows(DESCENDANTS, down)]
        loaded = await context.entities.statuses(transaction, [*ancestors, *descendants], viewer)
        before = {str(item) for item in ancestors}
        return {
            "ancestors": [entity for entity in loaded if entity["id"] in before],
            "descendants": [entity for entity in loaded if entity["id"] not in before],
        }

    return json_response(await context.database.read(body))


@routes.get("/api/v1/statuses/{id}/reblogged_by")
async def reblogged_by(request: web.Request) -> web.Response:
    """Who reposted the status, the newest repost first; cursors are the reposts' ids."""
    context = context_of(request)
    viewer, identifier = viewer_of(request), status_id(request)
    page = read_page(request, 40, 80)
    parameters = {"id": identifier, "viewer": viewer, **page.parameters()}

    async def body(transaction: Transaction) -> tuple[list[Row], list[Entity]]:
        await visible_post(transaction, identifier, viewer)
        rows = page.newest_first(await transaction.rows(SELECT_REPOSTS + page.sql("p.id"), parameters))
        return rows, await context.entities.account_list(transaction, [row["author_id"] for row in rows], viewer)

    rows, accounts = await context.database.read(body)
    headers = link_header(request, context.public_url, rows[0]["id"], rows[-1]["id"]) if rows else {}
    return json_response(accounts, headers=headers)


@routes.get("/api/v1/statuses/{id}/source")
async def source(request: web.Request) -> web.Response:
    """The text of one's own status as it was written."""
    user_id = require_user(request, "read:statuses")
    identifier = status_id(request)
    row = await context_of(request).database.read(lambda transaction: own_post(transaction, identifier, user_id))
    return json_response({"id": str(row["id"]), "text": row["text"], "spoiler_text": row["spoiler_text"]})


@routes.get("/api/v1/statuses/{id}/history")
async def history(request: web.Request) -> web.Response:
    """The status' versions, the oldest first."""
    context = context_of(request)
    viewer, identifier = viewer_of(request), status_id(request)

    async def body(transaction: Transaction) -> list[Entity]:
        row = await visible_post(transaction, identifier, viewer)
        edits = await transaction.rows(SELECT_EDITS, {"id": identifier})
        accounts = await context.entities.accounts(transaction, [row["author_id"]], viewer)
        poll = await poll_of_post(transaction, identifier)
        latest = {
            **row,
            "created_at": row["edited_at"] or row["created_at"],
            "poll_options": poll and poll["titles"],
        }
        return [_version(version, accounts[row["author_id"]], context.public_url) for version in [*edits, latest]]

    return json_response(await context.database.read(body))


async def _take_back(transaction: Transaction, outbox: Outbox, row: Row) -> None:
    """Record that what the post did with another one is undone by its deletion."""
    if row["in_reply_to_id"] is not None:
        author = row["in_reply_to_account_id"]
        await outbox.engagement("reply", row["in_reply_to_id"], author, row["author_id"], undone=True)
    if row["repost_of_id"] is not None:
        original = await original_post_of_anybody(transaction, row["repost_of_id"])
        await outbox.engagement("repost", original["id"], original["author_id"], row["author_id"], undone=True)


def _number(text: str) -> int | None:
    try:
        return post_id(text)
    except ValueError:
        return None


def _version(row: Row, account: Entity, public_url: str) -> Entity:
    return {
        "content": to_html(row["text"], public_url, {}),
        "spoiler_text": row["spoiler_text"],
        "sensitive": row["sensitive"],
        "created_at": timestamp(row["created_at"]),
        "account": account,
        "media_attachments": [],
        "emojis": [],
        "poll": {"options": [{"title": title} for title in titles]} if (titles := row["poll_options"]) else None,
    }
