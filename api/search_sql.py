"""Search in the database: rules that hold whatever the index says, own and exact matches, and what serves without it.

An index is seconds behind, so what it finds is looked at once more before it is shown, and a person's own newest posts
and whatever is called exactly so are looked for here as well. While OpenSearch is away all comes from here: people by
the beginning of their handle, hashtags by theirs, posts among the newest public ones.
"""

from typing import Any
from uuid import UUID

from api.database import Row, Transaction
from api.visibility import listed, unmuted, visible
from fanline.clock import Clock
from fanline.ids import first_id_at
from readmodels.search_queries import Page
from readmodels.search_text import SearchText

OWN_SECONDS = 900
"""How long a person's posts are looked for here as well: longer than the index is ever behind unless it is away."""
NEWEST = 2_000
"""Public posts and answers that are searched without an index."""
MOST_HIDDEN = 5_000
"""People whom a search leaves out in the index; further ones are left out when the results are looked at."""
MOST_FOLLOWED = 10_000

_UNBLOCKED = """NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = u.id AND b.blocked_id = %(viewer)s::uuid)"""
_UNBLOCKING = """NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = %(viewer)s::uuid AND b.blocked_id = u.id)"""
_USED = f"""EXISTS (SELECT 1 FROM post_hashtags ph JOIN posts p ON p.id = ph.post_id
              WHERE ph.hashtag_id = h.id AND p.visibility = 'public' AND {visible("p")})"""
_FOLLOWED = " AND EXISTS (SELECT 1 FROM follows f WHERE f.follower_id = %(viewer)s::uuid AND f.followee_id = u.id)"

FOUND_USERS = f"""
SELECT u.id FROM users u WHERE u.id = ANY(%(ids)s::uuid[]) AND u.suspended_at IS NULL AND {_UNBLOCKED} AND {_UNBLOCKING}
"""
USERS_BY_HANDLE = f"""
SELECT u.id FROM users u WHERE lower(u.username) = %(handle)s AND u.suspended_at IS NULL AND {_UNBLOCKED}
"""
# The range serves the index; it is by bytes, as usernames are.
USERS_BY_PREFIX = f"""
SELECT u.id FROM users u
WHERE lower(u.username) >= %(handle)s AND lower(u.username) < %(handle)s || chr(1114109)
  AND left(lower(u.username), char_length(%(handle)s::text)) = %(handle)s AND u.suspended_at IS NULL
  AND {_UNBLOCKED} AND {_UNBLOCKING}
  AND (u.silenced_at IS NULL OR lower(u.username) = %(handle)s)
"""
BLOCKED = """
SELECT blocked_id AS id FROM blocks WHERE blocker_id = %(viewer)s
UNION SELECT blocker_id FROM blocks WHERE blocked_id = %(viewer)s
LIMIT %(most)s
"""
HIDDEN = """
SELECT blocked_id AS id FROM blocks WHERE blocker_id = %(viewer)s
UNION SELECT blocker_id FROM blocks WHERE blocked_id = %(viewer)s
UNION SELECT muted_id FROM mutes WHERE muter_id = %(viewer)s AND (expires_at IS NULL OR expires_at > now())
LIMIT %(most)s
"""
FOLLOWED = "SELECT followee_id AS id FROM follows WHERE follower_id = %(viewer)s LIMIT %(most)s"
_PUBLIC = f"""p.visibility = 'public' AND p.repost_of_id IS NULL AND author.indexable AND author.silenced_at IS NULL
  AND {visible("p")} AND {unmuted("p.author_id")}"""
_POSTS = "SELECT p.id FROM posts p JOIN users author ON author.id = p.author_id WHERE"
FOUND_POSTS = f"{_POSTS} p.id = ANY(%(ids)s::bigint[]) AND {_PUBLIC}"
VISIBLE_POSTS = f"SELECT p.id FROM posts p WHERE p.id = ANY(%(ids)s::bigint[]) AND {listed('p')}"
OWN_POSTS = f"""{_POSTS} p.author_id = %(viewer)s::uuid AND p.id > %(recent)s AND {_PUBLIC}"""
TAGGED_POSTS = f"""{_POSTS} {_PUBLIC}"""
NEWEST_POSTS = f"""{_POSTS} p.id IN (
    SELECT id FROM posts WHERE visibility = 'public' AND repost_of_id IS NULL
    ORDER BY id DESC LIMIT {NEWEST}
  ) AND {_PUBLIC}"""
TAGS_BY_PREFIX = f"""
SELECT h.name FROM hashtags h
WHERE h.name >= %(name)s AND h.name < %(name)s || chr(1114109)
  AND left(h.name, char_length(%(name)s::text)) = %(name)s AND {_USED}
ORDER BY h.name LIMIT %(limit)s OFFSET %(offset)s
"""
TAG_BY_NAME = f"SELECT h.name FROM hashtags h WHERE h.name = %(name)s AND {_USED}"

_FLAGS = {
    "has_media": "EXISTS (SELECT 1 FROM media m WHERE m.post_id = p.id)",
    "has_poll": "EXISTS (SELECT 1 FROM polls q WHERE q.post_id = p.id)",
    "is_reply": "p.in_reply_to_account_id IS NOT NULL",
    "sensitive": "p.sensitive",
}


async def ids(transaction: Transaction, query: str, **parameters: Any) -> list[Any]:
    """The ids that a query finds."""
    return [row["id"] for row in await transaction.rows(query, parameters)]


async def hidden_from(transaction: Transaction, viewer: UUID | None, query: str = HIDDEN) -> list[UUID]:
    """People whose posts the viewer does not want or may not see; with `BLOCKED`, blocked people, either way."""
    return [] if viewer is None else await ids(transaction, query, viewer=viewer, most=MOST_HIDDEN)


async def shown(transaction: Transaction, query: str, found: list[Any], viewer: UUID | None) -> list[Any]:
    """Those of the ids that the rules let the viewer see, in their order; `FOUND_USERS` or `FOUND_POSTS`."""
    if not found:
        return []
    allowed = set(await ids(transaction, query, ids=found, viewer=viewer))
    return [identifier for identifier in dict.fromkeys(found) if identifier in allowed]


async def users_by_prefix(
    transaction: Transaction, handle: str, page: Page, viewer: UUID | None, *, followed: bool
) -> list[UUID]:
    """People whose handle begins so, in the order of their handles."""
    query = USERS_BY_PREFIX + (_FOLLOWED if followed else "")
    query += " ORDER BY lower(u.username) LIMIT %(limit)s OFFSET %(offset)s"
    return await ids(transaction, query, handle=handle, viewer=viewer, limit=page.limit, offset=page.offset)


async def own_posts(
    transaction: Transaction, text: SearchText, page: Page, viewer: UUID, author: UUID | None, clock: Clock
) -> list[int]:
    """The viewer's newest posts that match, in the order of the page: newest first, unless it goes up from an id."""
    conditions, parameters = conditions_of(text, page, author)
    parameters |= {"viewer": viewer, "recent": first_id_at(clock.now_ms() - OWN_SECONDS * 1_000)}
    query = f"{OWN_POSTS}{conditions} ORDER BY p.id {_order(page)} LIMIT %(limit)s"
    return await ids(transaction, query, **parameters, limit=page.limit)


async def newest_posts(
    transaction: Transaction, text: SearchText, page: Page, viewer: UUID | None, author: UUID | None
) -> list[int]:
    """A page of posts that match, newest first: any with the hashtags or by the author asked for, else the newest."""
    conditions, parameters = conditions_of(text, page, author)
    base = TAGGED_POSTS if text.tags or author is not None else NEWEST_POSTS
    query = f"{base}{conditions} ORDER BY p.id {_order(page)} LIMIT %(limit)s OFFSET %(offset)s"
    found = await ids(transaction, query, **parameters, viewer=viewer, limit=page.limit, offset=page.offset)
    return sorted(found, reverse=True)


def conditions_of(text: SearchText, page: Page, author: UUID | None) -> tuple[str, Row]:
    """A search as conditions on `p`, a row of `posts`, and their parameters."""
    conditions = ""
    parameters: Row = {}

    def add(condition: str, **values: Any) -> None:
        nonlocal conditions
        conditions += f" AND {condition}"
        parameters.update(values)

    for number, word in enumerate([*text.words, *text.phrases]):
        add(f"(p.spoiler_text || ' ' || p.text) ILIKE %(word{number})s", **{f"word{number}": _like(word)})
    for number, word in enumerate(text.without):
        add(f"(p.spoiler_text || ' ' || p.text) NOT ILIKE %(not{number})s", **{f"not{number}": _like(word)})
    for number, tag in enumerate(text.tags):
        add(
            f"p.id IN (SELECT ph.post_id FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id"
            f" WHERE h.name = %(tag{number})s)",
            **{f"tag{number}": tag},
        )
    for name, wanted in text.flags.items():
        add(_FLAGS[name] if wanted else f"NOT ({_FLAGS[name]})")
    if text.language is not None:
        add(
            "(p.language = %(language)s"
            " OR left(p.language, char_length(%(language)s::text) + 1) = %(language)s || '-')",
            language=text.language,
        )
    if author is not None:
        add("p.author_id = %(author)s::uuid", author=author)
    if text.since is not None:
        add("p.created_at >= %(since)s", since=text.since)
    if text.until is not None:
        add("p.created_at < %(until)s", until=text.until)
    if page.min_id is not None:
        add("p.id > %(min_id)s", min_id=page.min_id)
    if page.max_id is not None:
        add("p.id < %(max_id)s", max_id=page.max_id)
    return conditions, parameters


def _order(page: Page) -> str:
    return "ASC" if page.min_id is not None else "DESC"


def _like(word: str) -> str:
    """A pattern that finds the word anywhere."""
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
