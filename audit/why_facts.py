"""What the database and Redis know of a post and a viewer: the facts that `fanline why` explains by."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from audit.stores import Stores
from fanline.errors import ConfigurationError
from readmodels import documents, followers, readiness, recents, relations, timelines
from readmodels.cards import STATUS_CARD, status_card
from readmodels.documents import Reference
from readmodels.effects import Query, command
from readmodels.entries import Entry, complete_above, newest_first
from readmodels.home_rules import PostFacts, Viewer

_POST_URL = re.compile(r"^https?://[^/]+/(?:@[^/]+|(?:web/)?statuses|users/[^/]+/statuses)/(\d+)/?$")

ACCOUNTS = "SELECT id, username FROM users WHERE id = ANY(%(ids)s::uuid[])"
BY_NAME = "SELECT id FROM users WHERE lower(username) = lower(%(name)s)"
POST = """
SELECT p.id, p.author_id, p.visibility, p.repost_of_id, p.in_reply_to_account_id, p.created_at,
       o.author_id AS original_author_id
FROM posts p LEFT JOIN posts o ON o.id = p.repost_of_id
WHERE p.id = %(id)s
"""
FOLLOW = """
SELECT created_at, show_reblogs FROM follows WHERE follower_id = %(viewer)s AND followee_id = %(other)s
"""
BLOCKS = """
SELECT blocker_id, blocked_id, created_at FROM blocks
WHERE (blocker_id = %(viewer)s AND blocked_id = ANY(%(others)s::uuid[]))
   OR (blocked_id = %(viewer)s AND blocker_id = ANY(%(others)s::uuid[]))
"""
MUTES = """
SELECT muted_id, created_at, expires_at FROM mutes
WHERE muter_id = %(viewer)s AND muted_id = ANY(%(others)s::uuid[])
  AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""
NEWER_REPOSTS = """
SELECT id, author_id, created_at FROM posts
WHERE repost_of_id = %(original)s AND id > %(id)s AND author_id = ANY(%(authors)s::uuid[])
ORDER BY id DESC
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that decides; times are the database's."""

    viewer: UUID
    post: Mapping[str, Any] | None
    """The post's row; None when there is none (any more)."""
    relations: Viewer
    posts: Mapping[int, PostFacts | None]
    follow: Mapping[str, Any] | None
    blocks: list[Mapping[str, Any]]
    mutes: list[Mapping[str, Any]]
    newer_reposts: list[Mapping[str, Any]]
    in_oracle: bool
    """Whether the query that defines home timelines shows the post."""
    names: Mapping[UUID, str] = field(default_factory=dict)

    def name(self, account: UUID) -> str:
        """The handle of an account, or its id when it is gone."""
        return f"@{self.names[account]}" if account in self.names else str(account)


@dataclass(frozen=True, slots=True)
class Kept:
    """What Redis has of the viewer's timeline."""

    ready: bool
    """Whether timelines can be kept now."""
    floor: int | None
    """The floor of a warm list; None: it is cold or being built."""
    has: bool = False
    """Whether the post is in the list."""
    celebrity: bool = False
    """Whether readers merge the author's recent list."""
    in_recents: bool = False


def post_id_of(text: str) -> int:
    """The id in a decimal id or an address of a post; raises `ConfigurationError` for anything else."""
    found = _POST_URL.match(text)
    number = found[1] if found else text
    if not re.fullmatch(r"[0-9]{1,19}", number) or int(number) >= 2**63:
        raise ConfigurationError(f"{text!r} is no post: give its decimal id or its address.")
    return int(number)


def viewer_of(stores: Stores, text: str) -> UUID:
    """The person with an id or a handle; raises `ConfigurationError` when there is none."""
    try:
        query = Query(ACCOUNTS, {"ids": [UUID(text)]})
    except ValueError:
        query = Query(BY_NAME, {"name": text.removeprefix("@").partition("@")[0]})
    rows = stores.rows(query)
    if not rows:
        raise ConfigurationError(f"There is nobody here with the handle or id {text!r}.")
    found: UUID = rows[0]["id"]
    return found


def gather(stores: Stores, post_id: int, viewer: UUID) -> Facts:
    """The facts as the database has them now."""
    rows = stores.rows(Query(POST, {"id": post_id}))
    post = rows[0] if rows else None
    body = stores.drive(documents.load([(relations.VIEWER, viewer)], ""))[relations.VIEWER, viewer]
    known = relations.viewer(viewer, body)
    ids = {post_id} if post is None else {post_id, post["repost_of_id"] or post_id}
    author = None if post is None else post["author_id"]
    others = [each for each in (author, post and post["original_author_id"]) if each is not None]
    people = {"viewer": viewer, "others": others}
    newer: list[Mapping[str, Any]] = []
    follow: list[Any] = []
    if post is not None:
        follow = stores.rows(Query(FOLLOW, {"viewer": viewer, "other": author}))
        authors = [viewer, *(UUID(bytes=each) for each in known.followees)]
        wanted = {"original": post["repost_of_id"] or post_id, "id": post_id, "authors": authors}
        newer = [*stores.rows(Query(NEWER_REPOSTS, wanted))]
    answered = post["in_reply_to_account_id"] if post else None
    everybody = [viewer, *others, *([answered] if answered else []), *(row["author_id"] for row in newer)]
    return Facts(
        viewer=viewer,
        post=post,
        relations=known,
        posts=_posts(stores, ids | {row["id"] for row in newer}),
        follow=follow[0] if follow else None,
        blocks=[*stores.rows(Query(BLOCKS, people))] if others else [],
        mutes=[*stores.rows(Query(MUTES, people))] if others else [],
        newer_reposts=newer,
        in_oracle=bool(stores.rows(timelines.home_query(viewer, 1, max_id=post_id + 1, since_id=post_id - 1))),
        names={row["id"]: row["username"] for row in stores.rows(Query(ACCOUNTS, {"ids": everybody}))},
    )


def kept(stores: Stores, post_id: int, viewer: UUID, author: UUID | None) -> Kept:
    """The state of the viewer's timeline in Redis."""
    generation = stores.drive(readiness.generation())
    header, items = stores.redis(timelines.read(viewer))
    floor = complete_above(header[0] if header else None, generation or b"")
    celebrity = in_recents = False
    if author is not None and author != viewer:
        celebrity = bool(stores.redis([command(followers.celebrities_key(), b"SISMEMBER", author.bytes)])[0])
        in_recents = _has(stores.redis([recents.read(author)])[0], post_id)
    return Kept(generation is not None, floor, _has(items, post_id), celebrity, in_recents)


def _has(items: list[bytes], post_id: int) -> bool:
    return any(entry.id == post_id for entry in newest_first(items))


def _posts(stores: Stores, ids: set[int]) -> dict[int, PostFacts | None]:
    references: list[Reference] = [(STATUS_CARD, post) for post in ids]
    found: dict[int, PostFacts | None] = {}
    for (_, post), body in stores.drive(documents.load(references, "")).items():
        card = status_card(body) if body else None
        found[int(str(post))] = None if card is None else PostFacts(card.author, card.in_reply_to_account)
    return found


def entry_of(post: Mapping[str, Any]) -> Entry:
    """The entry of a post's row."""
    return Entry(post["id"], post["repost_of_id"] or post["id"])
