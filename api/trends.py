"""What trends, and what moderators think of it."""

from collections.abc import Mapping, Sequence
from typing import Annotated
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from api.auth.principal import viewer_of
from api.auth.roles import require_moderator
from api.body import read_query
from api.context import context_of
from api.database import Transaction
from api.errors import not_found
from api.outbox import Outbox
from api.post_rows import status_id
from api.responses import json_response
from api.tags import load_tags, tag_name
from api.trend_reads import TRENDS, TrendReads
from api.visibility import unmuted, visible
from api.writes import write
from readmodels import trends
from readmodels.entities import Entity
from readmodels.trend_ranking import KEPT, Ranking

routes = web.RouteTableDef()

MAX_TAGS, MAX_STATUSES = 20, 40
_KINDS = {trends.TAGS: "hashtag", trends.POSTS: "post"}

REVIEWS = "SELECT subject, allowed FROM trend_reviews WHERE kind = %(kind)s AND subject = ANY(%(subjects)s)"
REVIEW = """
INSERT INTO trend_reviews (kind, subject, allowed, moderator_id) VALUES (%(kind)s, %(subject)s, %(allowed)s, %(by)s)
ON CONFLICT (kind, subject)
DO UPDATE SET allowed = excluded.allowed, moderator_id = excluded.moderator_id, reviewed_at = now()
"""
# What a ranking says may be some seconds old.
SHOWN = f"""
SELECT p.id FROM posts p JOIN users author ON author.id = p.author_id
WHERE p.id = ANY(%(ids)s::bigint[]) AND p.visibility = 'public' AND p.repost_of_id IS NULL
  AND author.discoverable AND author.silenced_at IS NULL AND {visible("p")} AND {unmuted("p.author_id")}
"""


class TrendQuery(Struct):
    """Parameters of the lists."""

    limit: Annotated[int, Meta(ge=1)] = 10
    offset: Annotated[int, Meta(ge=0)] = 0


@routes.get("/api/v1/trends")
@routes.get("/api/v1/trends/tags")
async def trending_tags(request: web.Request) -> web.Response:
    """Hashtags whose use rises, the strongest first."""
    wanted = read_query(request, TrendQuery)
    reads = request.app[TRENDS]
    names = await _shown(reads, trends.TAGS)
    page = names[wanted.offset : wanted.offset + min(wanted.limit, MAX_TAGS)]
    return json_response(await load_tags(reads, page, viewer_of(request)))


@routes.get("/api/v1/trends/statuses")
async def trending_statuses(request: web.Request) -> web.Response:
    """Statuses that more and more people do something with, the strongest first."""
    wanted = read_query(request, TrendQuery)
    context, viewer = context_of(request), viewer_of(request)
    ids = [int(subject) for subject in await _shown(request.app[TRENDS], trends.POSTS)]

    async def read(transaction: Transaction) -> list[Entity]:
        rows = await transaction.rows(SHOWN, {"ids": ids, "viewer": viewer})
        allowed = {row["id"] for row in rows}
        shown = [identifier for identifier in ids if identifier in allowed]
        page = shown[wanted.offset : wanted.offset + min(wanted.limit, MAX_STATUSES)]
        return await context.entities.statuses(transaction, page, viewer)

    return json_response(await context.database.read(read))


@routes.get("/api/v1/trends/links")
async def trending_links(request: web.Request) -> web.Response:
    """Always empty: links have no cards here, and what has none cannot trend."""
    read_query(request, TrendQuery)
    return json_response([])


@routes.get("/api/v1/admin/trends/tags")
async def reviewed_tags(request: web.Request) -> web.Response:
    """Every hashtag that trends, with what moderators have said of it."""
    viewer = await require_moderator(request, "read")
    reads = request.app[TRENDS]
    ranking = await reads.ranking(trends.TAGS)
    return json_response(await _admin_tags(reads, [entry.subject for entry in ranking.entries], viewer))


@routes.get("/api/v1/admin/trends/statuses")
async def reviewed_statuses(request: web.Request) -> web.Response:
    """Every status that trends, with what moderators have said of it."""
    viewer = await require_moderator(request, "read")
    reads = request.app[TRENDS]
    ranking = await reads.ranking(trends.POSTS)
    return json_response(await _admin_statuses(reads, [int(entry.subject) for entry in ranking.entries], viewer))


@routes.post("/api/v1/admin/trends/tags/{tag}/approve")
async def approve_tag(request: web.Request) -> web.Response:
    """Let the hashtag trend."""
    return await _review_tag(request, allowed=True)


@routes.post("/api/v1/admin/trends/tags/{tag}/reject")
async def reject_tag(request: web.Request) -> web.Response:
    """Never let the hashtag trend."""
    return await _review_tag(request, allowed=False)


@routes.post("/api/v1/admin/trends/statuses/{id}/approve")
async def approve_status(request: web.Request) -> web.Response:
    """Let the status trend."""
    return await _review_status(request, allowed=True)


@routes.post("/api/v1/admin/trends/statuses/{id}/reject")
async def reject_status(request: web.Request) -> web.Response:
    """Never let the status trend."""
    return await _review_status(request, allowed=False)


async def _shown(reads: TrendReads, kind: bytes) -> list[str]:
    """What trends and may be shown, the strongest first."""
    ranking: Ranking = await reads.ranking(kind)
    subjects = [entry.subject for entry in ranking.entries[:KEPT]]
    reviews = await _reviews(reads, kind, subjects)
    unreviewed = reads.context.settings.trends_show_unreviewed
    return [subject for subject in subjects if reviews.get(subject, unreviewed)]


async def _reviews(reads: TrendReads, kind: bytes, subjects: Sequence[str]) -> Mapping[str, bool]:
    if not subjects:
        return {}
    parameters = {"kind": _KINDS[kind], "subjects": list(subjects)}
    rows = await reads.context.database.rows(REVIEWS, parameters)
    return {row["subject"]: row["allowed"] for row in rows}


async def _review_tag(request: web.Request, *, allowed: bool) -> web.Response:
    moderator = await require_moderator(request, "write")
    name = tag_name(request)
    await _review(request, moderator, trends.TAGS, name, allowed=allowed)
    (entity,) = await _admin_tags(request.app[TRENDS], [name], moderator)
    return json_response(entity)


async def _review_status(request: web.Request, *, allowed: bool) -> web.Response:
    moderator = await require_moderator(request, "write")
    identifier = status_id(request)
    reads = request.app[TRENDS]
    if not await _admin_statuses(reads, [identifier], moderator):
        raise not_found()
    await _review(request, moderator, trends.POSTS, str(identifier), allowed=allowed)
    (entity,) = await _admin_statuses(reads, [identifier], moderator)
    return json_response(entity)


async def _review(request: web.Request, moderator: UUID, kind: bytes, subject: str, *, allowed: bool) -> None:
    parameters = {"kind": _KINDS[kind], "subject": subject, "allowed": allowed, "by": moderator}

    async def body(transaction: Transaction, _outbox: Outbox) -> None:
        await transaction.execute(REVIEW, parameters)

    await write(context_of(request), moderator, body)


async def _admin_tags(reads: TrendReads, names: Sequence[str], viewer: UUID) -> list[Entity]:
    """Mastodon's Admin::Tag: the Tag with `trendable`, `usable` and `requires_review`."""
    reviews = await _reviews(reads, trends.TAGS, names)
    return [
        entity | _verdict(reads, reviews.get(entity["name"])) | {"usable": True}
        for entity in await load_tags(reads, names, viewer)
    ]


async def _admin_statuses(reads: TrendReads, ids: Sequence[int], viewer: UUID) -> list[Entity]:
    """Statuses with `requires_review` and `trendable`, those that others may see."""
    context = reads.context

    async def read(transaction: Transaction) -> list[Entity]:
        rows = await transaction.rows(SHOWN, {"ids": list(ids), "viewer": None})
        allowed = {row["id"] for row in rows}
        shown = [identifier for identifier in ids if identifier in allowed]
        return await context.entities.statuses(transaction, shown, viewer)

    entities = await context.database.read(read)
    reviews = await _reviews(reads, trends.POSTS, [entity["id"] for entity in entities])
    return [entity | _verdict(reads, reviews.get(entity["id"])) for entity in entities]


def _verdict(reads: TrendReads, allowed: bool | None) -> Entity:
    trendable = reads.context.settings.trends_show_unreviewed if allowed is None else allowed
    return {"trendable": trendable, "requires_review": allowed is None}
