"""Whom the audit that always runs looks at: fresh, active and random people and posts, a bounded number of each."""

import random
from collections.abc import Iterable
from typing import Any

from audit.model import Subjects
from audit.stores import Stores
from readmodels.effects import Query

# Each of these reads a few rows at the end of an index.
FRESH_PEOPLE = "SELECT id FROM users ORDER BY created_at DESC LIMIT %(limit)s"
FRESH_POSTS = "SELECT id, author_id FROM posts ORDER BY id DESC LIMIT %(limit)s"
# People who have just written, and posts that have just got something.
ACTIVE = """
SELECT coalesce(p.repost_of_id, p.in_reply_to_id, p.id) AS id, p.author_id AS person
FROM (SELECT id, author_id, repost_of_id, in_reply_to_id FROM posts ORDER BY id DESC LIMIT %(recent)s) AS p
ORDER BY random() LIMIT %(limit)s
"""
RANDOM_PEOPLE = "SELECT id FROM users WHERE id >= gen_random_uuid() ORDER BY id LIMIT %(limit)s"
LIMITS = "SELECT min(id) AS oldest, max(id) AS newest FROM posts"
RANDOM_POST = "SELECT id FROM posts WHERE id >= %(above)s ORDER BY id LIMIT 1"

RECENT = 1_000


def sample(stores: Stores, number: int) -> Subjects:
    """About `number` people and as many posts: a third fresh, a third active, a third random."""
    third = {"limit": -(-number // 3), "recent": RECENT}
    active = stores.rows(Query(ACTIVE, third))
    people = [
        *_ids(stores.rows(Query(FRESH_PEOPLE, third))),
        *(row["person"] for row in active),
        *_ids(stores.rows(Query(RANDOM_PEOPLE, third))),
    ]
    posts = [*_ids(stores.rows(Query(FRESH_POSTS, third))), *_ids(active), *_random_posts(stores, third["limit"])]
    return Subjects(list(dict.fromkeys(people)), list(dict.fromkeys(posts)))


def _random_posts(stores: Stores, number: int) -> list[int]:
    (limits,) = stores.rows(Query(LIMITS, {}))
    if limits["oldest"] is None:
        return []
    above = [random.randint(limits["oldest"], limits["newest"]) for _ in range(number)]
    return [post for each in above for post in _ids(stores.rows(Query(RANDOM_POST, {"above": each})))]


def _ids(rows: Iterable[Any]) -> list[Any]:
    return [row["id"] for row in rows]
