"""Rows of a post: who may see it, its mentions and hashtags, its events."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web

from api.database import Row, Transaction
from api.errors import not_found
from api.paging import post_id
from api.visibility import listed
from fanline.content import hashtags, mentioned_usernames
from fanline.tracing import current_traceparent

# More would make one post a broadcast to strangers.
MAX_MENTIONS = 50
MAX_HASHTAGS = 50

SELECT_VISIBLE = f"SELECT p.* FROM posts p WHERE p.id = %(id)s AND {listed('p')}"
SELECT_POST = "SELECT * FROM posts WHERE id = %(id)s"
SELECT_OWN = "SELECT * FROM posts WHERE id = %(id)s AND author_id = %(viewer)s"
INSERT_POST = """
INSERT INTO posts (id, author_id, text, spoiler_text, sensitive, visibility, language, in_reply_to_id,
                   in_reply_to_account_id, conversation_id, repost_of_id, application_id, traceparent, created_at)
VALUES (%(id)s, %(author_id)s, %(text)s, %(spoiler_text)s, %(sensitive)s, %(visibility)s, %(language)s,
        %(in_reply_to_id)s, %(in_reply_to_account_id)s, %(conversation_id)s, %(repost_of_id)s, %(application_id)s,
        %(traceparent)s, %(created_at)s)
"""
SELECT_MENTIONED = """
SELECT id FROM users WHERE lower(username) = ANY(%(usernames)s) AND suspended_at IS NULL
"""
INSERT_MENTIONS = "INSERT INTO post_mentions (post_id, account_id) SELECT %(id)s, unnest(%(account_ids)s::uuid[])"
INSERT_HASHTAGS = """
INSERT INTO hashtags (id, name) SELECT unnest(%(ids)s::uuid[]), unnest(%(names)s::text[]) ON CONFLICT (name) DO NOTHING
"""
INSERT_POST_HASHTAGS = """
INSERT INTO post_hashtags (post_id, hashtag_id) SELECT %(id)s, h.id FROM hashtags h WHERE h.name = ANY(%(names)s)
"""


def status_id(request: web.Request) -> int:
    """The post in the path; raises `ApiError` 404, as an id of another form belongs to no post."""
    try:
        return post_id(request.match_info["id"])
    except ValueError as error:
        raise not_found() from error


async def visible_post(transaction: Transaction, identifier: int, viewer: UUID | None) -> Row:
    """The post's row; raises `ApiError` 404 when there is none that the viewer may see."""
    row = await transaction.row(SELECT_VISIBLE, {"id": identifier, "viewer": viewer})
    if row is None:
        raise not_found()
    return row


async def original_post(transaction: Transaction, identifier: int, viewer: UUID | None) -> Row:
    """The row of the post, or of what it reposts; raises `ApiError` 404 when the viewer may not see it."""
    row = await visible_post(transaction, identifier, viewer)
    if row["repost_of_id"] is None:
        return row
    return await visible_post(transaction, row["repost_of_id"], viewer)


async def original_post_of_anybody(transaction: Transaction, identifier: int) -> Row:
    """The row of the post, or of what it reposts, whoever may see it; raises `ApiError` 404 when it is gone."""
    row = await transaction.row(SELECT_POST, {"id": identifier})
    if row is not None and row["repost_of_id"] is not None:
        row = await transaction.row(SELECT_POST, {"id": row["repost_of_id"]})
    if row is None:
        raise not_found()
    return row


async def own_post(transaction: Transaction, identifier: int, author: UUID) -> Row:
    """The row of a post of the author's; raises `ApiError` 404 otherwise."""
    row = await transaction.row(SELECT_OWN, {"id": identifier, "viewer": author})
    if row is None:
        raise not_found()
    return row


def conversation_of(row: Row) -> int:
    """The first post of the thread that a post belongs to."""
    return int(row["conversation_id"] or row["id"])


async def insert_post(transaction: Transaction, row: Row) -> None:
    """Insert a row that has every column of `INSERT_POST` but the trace context, which is the caller's."""
    await transaction.execute(INSERT_POST, {**row, "traceparent": current_traceparent()})


async def insert_links(
    transaction: Transaction, identifier: int, texts: Sequence[str], domain: str
) -> tuple[list[UUID], list[str]]:
    """Insert the mentions and hashtags of a post's texts; returns the people and the tags."""
    text = "\n".join(texts)
    people: list[UUID] = []
    if usernames := mentioned_usernames(text, domain)[:MAX_MENTIONS]:
        people = [row["id"] for row in await transaction.rows(SELECT_MENTIONED, {"usernames": usernames})]
    if people:
        await transaction.execute(INSERT_MENTIONS, {"id": identifier, "account_ids": people})
    names = hashtags(text)[:MAX_HASHTAGS]
    if names:
        # In one order everywhere, so that two posts cannot wait for each other's new tags.
        ordered = sorted(names)
        await transaction.execute(INSERT_HASHTAGS, {"ids": [uuid4() for _ in ordered], "names": ordered})
        await transaction.execute(INSERT_POST_HASHTAGS, {"id": identifier, "names": ordered})
    return people, names


def new_row(**columns: Any) -> Row:
    """A row for `insert_post`: what is not given is empty."""
    return {
        "text": "",
        "spoiler_text": "",
        "sensitive": False,
        "language": None,
        "in_reply_to_id": None,
        "in_reply_to_account_id": None,
        "conversation_id": None,
        "repost_of_id": None,
        **columns,
    }
