"""Holds what trends count against the database: who used each hashtag on which day, and who did what with each post."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from audit.compare import Difference, compare_sets
from audit.model import Model, posts
from audit.stores import Stores
from fanline.clock import SystemClock
from fanline.ids import first_id_at
from readmodels import trends
from readmodels.effects import Query, command
from readmodels.trends import DAY_MS, HISTORY_DAYS, HOUR_MS, POST_HOURS

# Uses on the edge of the window may have left Redis or not; a post's newest hours are compared.
COMPARED_HOURS = POST_HOURS - 1

TAGS_OF = """
SELECT DISTINCT h.name FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id
WHERE ph.post_id = ANY(%(ids)s::bigint[]) ORDER BY h.name
"""
TAG_USES = """
SELECT h.name, p.id, p.author_id FROM hashtags h
JOIN post_hashtags ph ON ph.hashtag_id = h.id AND ph.post_id >= %(first)s
JOIN posts p ON p.id = ph.post_id
WHERE h.name = ANY(%(names)s) AND p.visibility = 'public' AND p.repost_of_id IS NULL
"""


def tags_of(stores: Stores, chosen: Sequence[int]) -> Sequence[str]:
    """The hashtags of the chosen posts."""
    return [row["name"] for row in stores.rows(Query(TAGS_OF, {"ids": list(chosen)}))]


def check_tags(stores: Stores, names: Sequence[str]) -> dict[str, Difference | None]:
    """Each hashtag's uses of the last days are those of its public posts."""
    today = SystemClock().now_ms() // DAY_MS
    days = range(today - HISTORY_DAYS + 1, today + 1)
    rows = stores.rows(Query(TAG_USES, {"names": list(names), "first": first_id_at(days[0] * DAY_MS)}))
    wanted: dict[str, set[bytes]] = {name: set() for name in names}
    for row in rows:
        wanted[row["name"]].add(row["author_id"].bytes + row["id"].to_bytes(8))
    reads = [command(trends.tag_key(name.encode(), day), b"ZRANGE", 0, -1) for name in names for day in days]
    replies = iter(stores.redis(reads))
    found = {name: [bytes(member) for _ in days for member in next(replies)] for name in names}
    return {name: compare_sets(wanted[name], found[name]) for name in names}


def repair_tags(stores: Stores, names: Sequence[str]) -> None:
    """Counts the hashtags' posts again, and takes out what is no post of theirs."""
    today = SystemClock().now_ms() // DAY_MS
    days = range(today - HISTORY_DAYS + 1, today + 1)
    rows = stores.rows(Query(TAG_USES, {"names": list(names), "first": first_id_at(days[0] * DAY_MS)}))
    keys = [trends.tag_key(name.encode(), day) for name in names for day in days]
    counted = stores.redis([command(key, b"ZRANGE", 0, -1) for key in keys])
    posts = {row["id"] for row in rows}
    for key, members in zip(keys, counted, strict=True):
        gone = [bytes(member) for member in members if trends.post_of(bytes(member)) not in posts]
        if gone:
            stores.redis([command(key, b"ZREM", *gone)])
        posts |= {trends.post_of(bytes(member)) for member in members}
    stores.drive(trends.count_tags(sorted(posts)))


def check_posts(stores: Stores, chosen: Sequence[int]) -> dict[int, Difference | None]:
    """What was done with each post in the last hours is what the rows of likes, reposts and answers say."""
    since = SystemClock().now_ms() - COMPARED_HOURS * HOUR_MS
    wanted: dict[int, set[bytes]] = {post: set() for post in chosen}
    for row in _rows(stores, chosen, since):
        wanted[row["post_id"]].add(trends.use_of(row)[0])
    replies = stores.redis([command(trends.use_key(post), b"ZRANGEBYSCORE", since, b"+inf") for post in chosen])
    return {
        post: compare_sets(wanted[post], [bytes(member) for member in members])
        for post, members in zip(chosen, replies, strict=True)
    }


def repair_posts(stores: Stores, chosen: Sequence[int]) -> None:
    """Writes what the rows say; what they do not say then, or any more, is taken out."""
    since = SystemClock().now_ms() - COMPARED_HOURS * HOUR_MS
    for row in _rows(stores, chosen, since):
        stores.redis(trends.record_use(row["post_id"], *trends.use_of(row)))
    keys = [trends.use_key(post) for post in chosen]
    counted = stores.redis([command(key, b"ZRANGEBYSCORE", since, b"+inf") for key in keys])
    wanted: dict[int, set[bytes]] = {post: set() for post in chosen}
    for row in _rows(stores, chosen, since):
        wanted[row["post_id"]].add(trends.use_of(row)[0])
    for post, key, members in zip(chosen, keys, counted, strict=True):
        gone = {bytes(member) for member in members} - wanted[post]
        if gone:
            stores.redis([command(key, b"ZREM", *gone)])


def _rows(stores: Stores, chosen: Sequence[int], since: int) -> list[dict[str, Any]]:
    moment = datetime.fromtimestamp(since / 1_000, UTC)
    parameters = {"ids": list(chosen), "since": moment, "first": first_id_at(since)}
    return stores.rows(Query(trends.POST_USES_BY_ID, parameters))


def trend_models() -> tuple[Model, ...]:
    """What trends are made of."""
    return (
        Model(
            "trend_tags", lambda stores, subjects: tags_of(stores, subjects.posts), check_tags, repair_tags, "trends"
        ),
        Model("trend_posts", posts, check_posts, repair_posts, "trends"),
    )
