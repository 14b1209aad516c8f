"""The public timeline and the tags' timelines, straight from the database."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from api.auth.principal import viewer_of
from api.body import read_query
from api.context import context_of
from api.database import Transaction
from api.paging import link_header, read_page
from api.responses import json_response
from api.visibility import unmuted, visible
from readmodels.entities import Entity

routes = web.RouteTableDef()

MAX_TAGS = 4

Tag = Annotated[str, Meta(max_length=100)]

# The condition on in_reply_to_account_id and repost_of_id is that of index posts_public.
PUBLIC = f"""
SELECT p.id FROM posts p JOIN users author ON author.id = p.author_id
WHERE p.visibility = 'public' AND p.repost_of_id IS NULL AND p.in_reply_to_account_id IS NULL
  AND author.silenced_at IS NULL AND {visible("p")} AND {unmuted("p.author_id")}
"""
TAGGED = f"""
SELECT p.id FROM posts p
WHERE p.visibility = 'public' AND p.repost_of_id IS NULL AND {visible("p")} AND {unmuted("p.author_id")}
  AND EXISTS (SELECT 1 FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id
              WHERE ph.post_id = p.id AND h.name = ANY(%(any)s))
  AND NOT EXISTS (SELECT 1 FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id
                  WHERE ph.post_id = p.id AND h.name = ANY(%(none)s))
  AND (SELECT count(*) FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id
       WHERE ph.post_id = p.id AND h.name = ANY(%(all)s)) = %(all_count)s
"""
WITH_MEDIA = " AND EXISTS (SELECT 1 FROM media m WHERE m.post_id = p.id)"


class PublicFilter(Struct):
    """Parameters of GET /api/v1/timelines/public beside those of paging; every post here is local."""

    local: bool = False
    remote: bool = False
    only_media: bool = False


class TagFilter(Struct):
    """Parameters of GET /api/v1/timelines/tag/:hashtag beside those of paging."""

    any: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] = []
    all: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] = []
    none: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] = []
    local: bool = False
    remote: bool = False
    only_media: bool = False


@routes.get("/api/v1/timelines/public")
async def public(request: web.Request) -> web.Response:
    """Public posts of everybody, without replies and reposts."""
    wanted = read_query(request, PublicFilter)
    return await _timeline(request, PUBLIC, {}, wanted.only_media, wanted.remote)


@routes.get("/api/v1/timelines/tag/{hashtag}")
async def tagged(request: web.Request) -> web.Response:
    """Public posts with the hashtag; `any[]`, `all[]` and `none[]` name further ones."""
    wanted = read_query(request, TagFilter)
    every = sorted({name.lower() for name in wanted.all})
    parameters = {
        "any": [request.match_info["hashtag"].lower(), *(name.lower() for name in wanted.any)],
        "all": every,
        "all_count": len(every),
        "none": [name.lower() for name in wanted.none],
    }
    return await _timeline(request, TAGGED, parameters, wanted.only_media, wanted.remote)


async def _timeline(
    request: web.Request, query: str, parameters: dict[str, object], only_media: bool, remote: bool
) -> web.Response:
    context = context_of(request)
    viewer = viewer_of(request)
    page = read_page(request)
    if remote:  # this server knows no other
        return json_response([])
    query += (WITH_MEDIA if only_media else "") + page.sql("p.id")

    async def body(transaction: Transaction) -> list[Entity]:
        rows = await transaction.rows(query, {"viewer": viewer, **parameters, **page.parameters()})
        identifiers = [row["id"] for row in page.newest_first(rows)]
        return await context.entities.statuses(transaction, identifiers, viewer)

    statuses = await context.database.read(body)
    headers = link_header(request, context.public_url, statuses[0]["id"], statuses[-1]["id"]) if statuses else {}
    return json_response(statuses, headers=headers)
