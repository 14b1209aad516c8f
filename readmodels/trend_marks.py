"""Whether Redis holds what trends count, and how they are counted again from the database where it does not.

Layout: `trend_ready:{<n>}` for n below 64, spread over the nodes of a cluster, as in readmodels/readiness.py:

    generation (8 random bytes)   everything is counted
    b"B" + generation             it is being counted

If one is missing, a node has lost its data. Rows are then counted like those of a snapshot in the log, a chunk at a
time, so that the flow goes on between two chunks. Between reading a chunk and writing it the flow applies nothing, and
what it applies afterwards has changed later or not at all: the same sets come of it as of reading the whole log. Two
things escape, for the audit to repair: what another instance takes back just while the first one counts it, and what
loses a hashtag after the node with its `tag_post` was lost and before it is counted.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from fanline.ids import first_id_at
from readmodels import readiness, trends
from readmodels.effects import Effects, Query, Redis, call, command
from readmodels.readiness import BUILDING, GENERATION_BYTES, NODES
from readmodels.trend_uses import POST, TAG
from readmodels.trends import Changes, fact

NOBODY = UUID(int=0)
ROWS = 1_000
"""Rows of a chunk."""
SPAN = timedelta(minutes=5)
"""Likes are looked for in spans of time: their index by time (BRIN, in Postgres) finds spans, and no order."""

POSTS_AFTER = """
SELECT p.id, p.author_id, p.visibility, p.repost_of_id, p.in_reply_to_id FROM posts p
WHERE p.id > %(after)s AND p.visibility IN ('public', 'unlisted')
  AND (p.id >= %(uses)s AND (p.repost_of_id IS NOT NULL OR p.in_reply_to_id IS NOT NULL)
       OR EXISTS (SELECT 1 FROM post_hashtags h WHERE h.post_id = p.id))
ORDER BY p.id LIMIT %(limit)s
"""

LIKES_AFTER = """
SELECT l.created_at, l.user_id, l.post_id FROM likes l
WHERE l.created_at >= %(moment)s AND l.created_at < %(until)s
  AND (l.created_at, l.user_id, l.post_id) > (%(moment)s, %(user)s::uuid, %(post)s::bigint)
ORDER BY l.created_at, l.user_id, l.post_id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a count has come: after this post, then after this like."""

    generation: bytes
    post: int
    moment: datetime
    user: UUID = NOBODY
    liked: int = 0
    posts_done: bool = False


def mark_keys() -> list[bytes]:
    """The keys of the marks."""
    return [b"trend_ready:{%d}" % number for number in range(NODES)]


def are_counted() -> Effects[bool]:
    """Whether everything is counted in every node."""
    values = yield Redis([readiness.read(key) for key in mark_keys()])
    return readiness.generation_of(values) is not None


def are_being_counted() -> Effects[bool]:
    """Whether somebody has begun to count, or is done: any mark is there."""
    values = yield Redis([readiness.read(key) for key in mark_keys()])
    return any(values)


def begin(now_ms: int) -> Effects[Place]:
    """Begins to count everything again."""
    generation = secrets.token_bytes(GENERATION_BYTES)
    yield Redis([command(key, b"SET", BUILDING + generation) for key in mark_keys()])
    since = datetime.fromtimestamp((now_ms - POST.kept_ms) / 1_000, UTC)
    return Place(generation, first_id_at(now_ms - TAG.kept_ms) - 1, since)


def go_on(place: Place, now_ms: int) -> Effects[Place | None]:
    """Counts the next chunk; where to go on, None after the last one. Anew if Redis has lost data meanwhile."""
    if not place.posts_done:
        return (yield from _count_posts(place, now_ms))
    if place.moment.timestamp() * 1_000 <= now_ms:
        return (yield from _count_likes(place, now_ms))
    expected = BUILDING + place.generation
    done = yield Redis([call(b"ready_set", [key], expected, place.generation) for key in mark_keys()])
    return None if all(done) else (yield from begin(now_ms))


def _count_posts(place: Place, now_ms: int) -> Effects[Place]:
    uses = first_id_at(now_ms - POST.kept_ms)
    rows = yield Query(POSTS_AFTER, {"after": place.post, "uses": uses, "limit": ROWS})
    yield from _count("posts", rows, now_ms)
    return replace(place, posts_done=True) if len(rows) < ROWS else replace(place, post=rows[-1]["id"])


def _count_likes(place: Place, now_ms: int) -> Effects[Place]:
    until = place.moment + SPAN
    place_in = {"moment": place.moment, "user": place.user, "post": place.liked}
    rows = yield Query(LIKES_AFTER, {**place_in, "until": until, "limit": ROWS})
    yield from _count("likes", rows, now_ms)
    if len(rows) < ROWS:
        return replace(place, moment=until, user=NOBODY, liked=0)
    last = rows[-1]
    return replace(place, moment=last["created_at"], user=last["user_id"], liked=last["post_id"])


def _count(table: str, rows: Sequence[Mapping[str, Any]], now_ms: int) -> Effects[None]:
    logged = ({name: _logged(value) for name, value in row.items()} for row in rows)
    yield from trends.apply(Changes((fact(table, "r", row, now_ms) for row in logged), now_ms))


def _logged(value: object) -> object:
    """A column's value as the log has it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
