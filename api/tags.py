"""Hashtags: one, following them, and those that are followed."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID, uuid4

from aiohttp import web

from api.auth.principal import require_user, viewer_of
from api.context import context_of
from api.database import Transaction
from api.errors import not_found
from api.outbox import Outbox
from api.paging import link_header, read_account_page
from api.responses import json_response
from api.trend_reads import TRENDS, TrendReads
from api.writes import write
from fanline.content import MAX_HASHTAG_CHARACTERS, hashtag_url, hashtags
from readmodels import trends
from readmodels.entities import Entity

routes = web.RouteTableDef()

INSERT_TAG = "INSERT INTO hashtags (id, name) VALUES (%(id)s, %(name)s) ON CONFLICT (name) DO NOTHING"
INSERT_FOLLOW = """
INSERT INTO hashtag_follows (user_id, hashtag_id) SELECT %(viewer)s, h.id FROM hashtags h WHERE h.name = %(name)s
ON CONFLICT (user_id, hashtag_id) DO NOTHING
"""
DELETE_FOLLOW = """
DELETE FROM hashtag_follows
WHERE user_id = %(viewer)s AND hashtag_id IN (SELECT h.id FROM hashtags h WHERE h.name = %(name)s)
"""
FOLLOWED_AMONG = """
SELECT h.name FROM hashtag_follows f JOIN hashtags h ON h.id = f.hashtag_id
WHERE f.user_id = %(viewer)s AND h.name = ANY(%(names)s)
"""
FOLLOWED = """
SELECT f.hashtag_id AS id, h.name FROM hashtag_follows f JOIN hashtags h ON h.id = f.hashtag_id
WHERE f.user_id = %(viewer)s
"""
ALLOWED = "SELECT subject FROM trend_reviews WHERE kind = 'hashtag' AND subject = ANY(%(names)s) AND allowed"

MAX_FOLLOWED = 200


async def load_tags(
    reads: TrendReads, names: Sequence[str], viewer: UUID | None, *, reviewed: bool = False
) -> list[Entity]:
    """Mastodon's Tag entities in the order of the names; with `reviewed`, only those that a moderator has allowed."""
    if not names:
        return []
    histories = await reads.histories(names)
    today, public_url = reads.today, reads.context.public_url

    async def read(transaction: Transaction) -> list[Entity]:
        parameters = {"names": list(names), "viewer": viewer}
        wanted = list(names)
        if reviewed:
            allowed = {row["subject"] for row in await transaction.rows(ALLOWED, parameters)}
            wanted = [name for name in names if name in allowed]
        followed: set[str] = set()
        if viewer is not None:
            followed = {row["name"] for row in await transaction.rows(FOLLOWED_AMONG, parameters)}
        return [
            {
                "id": name,
                "name": name,
                "url": hashtag_url(public_url, name),
                "history": trends.history_entity(histories.get(name, {}), today),
                **({} if viewer is None else {"following": name in followed, "featuring": False}),
            }
            for name in wanted
        ]

    return await reads.context.database.read(read)


def tag_name(request: web.Request) -> str:
    """The hashtag in the path, in lower case; raises `ApiError` 404 for what can be none."""
    given = request.match_info["tag"].removeprefix("#")
    if len(given) > MAX_HASHTAG_CHARACTERS or hashtags(f"#{given}") != [given.lower()]:
        raise not_found()
    return given.lower()


@routes.get("/api/v1/tags/{tag}")
async def tag(request: web.Request) -> web.Response:
    """A hashtag, used or not."""
    (entity,) = await load_tags(request.app[TRENDS], [tag_name(request)], viewer_of(request))
    return json_response(entity)


@routes.post("/api/v1/tags/{tag}/follow")
async def follow(request: web.Request) -> web.Response:
    """Follow a hashtag."""

    async def change(transaction: Transaction, parameters: dict[str, object]) -> None:
        await transaction.execute(INSERT_TAG, {**parameters, "id": uuid4()})
        await transaction.execute(INSERT_FOLLOW, parameters)

    return await _change(request, change)


@routes.post("/api/v1/tags/{tag}/unfollow")
async def unfollow(request: web.Request) -> web.Response:
    """No longer follow a hashtag."""

    async def change(transaction: Transaction, parameters: dict[str, object]) -> None:
        await transaction.execute(DELETE_FOLLOW, parameters)

    return await _change(request, change)


@routes.get("/api/v1/followed_tags")
async def followed_tags(request: web.Request) -> web.Response:
    """The hashtags that the caller follows, in the order of their ids."""
    viewer = require_user(request, "read:follows")
    context = context_of(request)
    page = read_account_page(request, default=100, maximum=MAX_FOLLOWED)
    rows = await context.database.rows(FOLLOWED + page.sql("f.hashtag_id"), {"viewer": viewer, **page.parameters()})
    rows = page.newest_first(rows)
    headers = link_header(request, context.public_url, rows[0]["id"], rows[-1]["id"]) if rows else {}
    return json_response(await load_tags(request.app[TRENDS], [row["name"] for row in rows], viewer), headers=headers)


async def _change(
    request: web.Request, change: Callable[[Transaction, dict[str, object]], Awaitable[None]]
) -> web.Response:
    viewer = require_user(request, "write:follows")
    name = tag_name(request)
    context = context_of(request)

    async def body(transaction: Transaction, _outbox: Outbox) -> None:
        await change(transaction, {"viewer": viewer, "name": name})

    await write(context, viewer, body)
    (entity,) = await load_tags(request.app[TRENDS], [name], viewer)
    return json_response(entity)
