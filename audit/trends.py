"""Holds what trends count against the database: who used each hashtag on which day, and who did what with each post."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from audit.compare import Difference, compare_sets
from audit.model import Model, posts
from audit.stores import Stores
from fanline.clock import SystemClock
from fanline.ids import created_ms, first_id_at
from readmodels import trend_uses, trends
from readmodels.effects import Query, command
from readmodels.trend_uses import POST, TAG, Kind
from readmodels.trends import Changes, Fact, PostUse

S = TypeVar("S", str, int)
"""A hashtag or a post."""

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
    days = trend_uses.whole_blocks(TAG, SystemClock().now_ms())
    wanted: dict[str, list[tuple[bytes, int]]] = {name: [] for name in names}
    for row in _tagged(stores, names, days[0] * TAG.block_ms):
        wanted[row["name"]].append((trend_uses.use(row["author_id"].bytes, row["id"]), created_ms(row["id"])))
    return _compared(stores, TAG, {name: name.encode() for name in names}, wanted, days)


def repair_tags(stores: Stores, names: Sequence[str]) -> None:
    """Counts the hashtags' posts again from nothing."""
    now_ms = SystemClock().now_ms()
    keys = [TAG.use_key(name.encode(), day) for name in names for day in TAG.kept_blocks(now_ms)]
    counted = stores.redis([command(key, b"ZRANGE", 0, -1) for key in keys])
    found = {trend_uses.made_by(bytes(member)) for members in counted for member in members}
    stores.redis([trend_uses.forget(TAG, name.encode(), now_ms) for name in names])
    found |= {row["id"] for row in _tagged(stores, names, now_ms - TAG.kept_ms)}
    stores.drive(trends.count_tags(sorted(found), now_ms))


def check_posts(stores: Stores, chosen: Sequence[int]) -> dict[int, Difference | None]:
    """What was done with each post in the last hours is what the rows of likes, reposts and answers say."""
    quarters = trend_uses.whole_blocks(POST, SystemClock().now_ms())
    wanted = _uses(stores, chosen, quarters[0] * POST.block_ms)
    return _compared(stores, POST, {post: b"%d" % post for post in chosen}, wanted, quarters)


def repair_posts(stores: Stores, chosen: Sequence[int]) -> None:
    """Writes what the rows say and nothing else; what they do not say any more after that is taken out."""
    now_ms = SystemClock().now_ms()
    since = now_ms - POST.kept_ms
    stores.redis([trend_uses.forget(POST, b"%d" % post, now_ms) for post in chosen])
    written = _uses(stores, chosen, since)
    facts = [Fact([PostUse(post, *use) for use in uses]) for post, uses in written.items()]
    if commands := Changes(facts, now_ms).commands():
        stores.redis(commands)
    there = _uses(stores, chosen, since)
    gone = [
        Fact([PostUse(post, use, None) for use, _ in uses if use not in dict(there[post])])
        for post, uses in written.items()
    ]
    if commands := Changes(gone, now_ms).commands():
        stores.redis(commands)


def _compared(
    stores: Stores,
    kind: Kind,
    subjects: Mapping[S, bytes],
    wanted: Mapping[S, Iterable[tuple[bytes, int]]],
    blocks: range,
) -> dict[S, Difference | None]:
    """How far what is kept of subjects, given by their names in keys, is from what their uses come to."""
    found = stores.drive(trend_uses.contents(kind, list(subjects.values()), blocks))
    return {
        subject: compare_sets(trend_uses.expected(kind, wanted[subject]), has)
        for subject, has in zip(subjects, found, strict=True)
    }


def _tagged(stores: Stores, names: Sequence[str], since: int) -> list[dict[str, Any]]:
    return stores.rows(Query(TAG_USES, {"names": list(names), "first": first_id_at(since)}))


def _uses(stores: Stores, chosen: Sequence[int], since: int) -> dict[int, list[tuple[bytes, int]]]:
    moment = datetime.fromtimestamp(since / 1_000, UTC)
    parameters = {"ids": list(chosen), "since": moment, "first": first_id_at(since)}
    uses: dict[int, list[tuple[bytes, int]]] = {post: [] for post in chosen}
    for row in stores.rows(Query(trends.POST_USES_BY_ID, parameters)):
        uses[row["post_id"]].append(trends.use_of(row))
    return uses


def trend_models() -> tuple[Model, ...]:
    """What trends are made of."""
    return (
        Model(
            "trend_tags", lambda stores, subjects: tags_of(stores, subjects.posts), check_tags, repair_tags, "trends"
        ),
        Model("trend_posts", posts, check_posts, repair_posts, "trends"),
    )
