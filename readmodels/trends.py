"""Trends: what hashtags and posts are used by whom and when, in Redis with expiry and nowhere else.

Who used what is kept as readmodels/trend_uses.py says. Beside it, members of sets again:

    tag_post:{<post id>}       the post's author (16), and the names that it is counted under, one a line
    trending:{<kind>:<shard>}:<hour>   set: the names (kind tags), or the ids (kind posts), that were used in an hour

Hours are numbered from the Unix epoch, UTC. Only public posts count, and no reposts. What is counted follows rows, not
events: an edit that changes a hashtag, a deleted post and a deleted account take back what they were counted for.
`readmodels/trend_ranking.py` makes rankings of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

from fanline.ids import created_ms
from readmodels import trend_uses
from readmodels.effects import Command, Effects, Query, Redis, command
from readmodels.trend_uses import DAY_MS, HOUR_MS, POST, TAG

HISTORY_DAYS = 7
"""Days of a hashtag's history that clients are shown."""
_TRENDING_SECONDS = 2 * 86_400

SHARDS = 16
"""Keys that an hour's names are spread over, so that no node of a cluster takes all of them."""

TAGS, POSTS = b"tags", b"posts"

POSTS_THERE = "SELECT id FROM posts WHERE id = ANY(%(ids)s::bigint[])"
TAGGED_BY_ID = """
SELECT p.id, p.author_id,
       ARRAY(SELECT h.name FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id
             WHERE ph.post_id = p.id) AS tags
FROM posts p
WHERE p.id = ANY(%(ids)s::bigint[]) AND p.visibility = 'public' AND p.repost_of_id IS NULL
"""

# The oracle of a hashtag's days: posts go by the time in their id.
TAG_HISTORY = """
SELECT h.name, floor((p.id >> 16) / 86400000.0)::bigint AS day, count(*) AS uses,
       count(DISTINCT p.author_id) AS accounts
FROM hashtags h
JOIN post_hashtags ph ON ph.hashtag_id = h.id AND ph.post_id >= %(first)s
JOIN posts p ON p.id = ph.post_id
WHERE h.name = ANY(%(names)s) AND p.visibility = 'public' AND p.repost_of_id IS NULL
GROUP BY 1, 2
"""

# The oracle of posts' use: what was done with them since a moment.
POST_USES = """
SELECT l.post_id, l.user_id AS account_id, 0 AS through,
       floor(extract(epoch FROM l.created_at) * 1000)::bigint AS ms
FROM likes l WHERE l.created_at >= %(since)s {likes}
UNION ALL
SELECT p.repost_of_id, p.author_id, p.id, p.id >> 16
FROM posts p
WHERE p.id >= %(first)s AND p.repost_of_id IS NOT NULL AND p.visibility IN ('public', 'unlisted') {reposts}
UNION ALL
SELECT p.in_reply_to_id, p.author_id, p.id, p.id >> 16
FROM posts p
WHERE p.id >= %(first)s AND p.in_reply_to_id IS NOT NULL AND p.visibility IN ('public', 'unlisted') {answers}
"""
ALL_POST_USES = POST_USES.format(likes="", reposts="", answers="")
POST_USES_BY_ID = POST_USES.format(
    likes="AND l.post_id = ANY(%(ids)s::bigint[])",
    reposts="AND p.repost_of_id = ANY(%(ids)s::bigint[])",
    answers="AND p.in_reply_to_id = ANY(%(ids)s::bigint[])",
)


@dataclass(frozen=True, slots=True)
class Use:
    """A hashtag's use on one day."""

    uses: int
    accounts: int


NO_USE = Use(0, 0)
History = Mapping[int, Use]
"""A hashtag's use by day."""


class PostUse(NamedTuple):
    """What somebody did with a post (`trend_uses.use`); at no time when it was taken back."""

    post: int
    use: bytes
    made_ms: int | None


class Fact(NamedTuple):
    """What a row change means for trends."""

    uses: Sequence[PostUse] = ()
    tagged: int | None = None
    """A post whose hashtags may have changed."""
    ended: int | None = None
    """A post that is gone."""


def fact(table: str, op: str, row: Mapping[str, Any], now_ms: int) -> Fact:
    """What a change means; raises `LookupError`, `TypeError` or `ValueError` for one of another table or form."""
    if table == "likes":
        made_ms = now_ms if op == "d" else milliseconds(row["created_at"])
        use = trend_uses.use(UUID(row["user_id"]).bytes)
        return Fact(_use(op, int(row["post_id"]), use, made_ms, now_ms))
    if table != "posts":
        raise ValueError(f"Trends know no table {table}.")
    identifier = int(row["id"])
    made_ms, use = created_ms(identifier), trend_uses.use(UUID(row["author_id"]).bytes, identifier)
    uses: list[PostUse] = []
    if row["visibility"] in ("public", "unlisted"):
        for post in (row["repost_of_id"], row["in_reply_to_id"]):
            if post is not None:
                uses += _use(op, int(post), use, made_ms, now_ms)
    may_count = row["repost_of_id"] is None and made_ms > now_ms - TAG.kept_ms
    return Fact(uses, identifier if may_count else None, identifier if op == "d" else None)


def _use(op: str, post: int, use: bytes, made_ms: int, now_ms: int) -> tuple[PostUse, ...]:
    if op != "d" and made_ms <= now_ms - POST.kept_ms:
        return ()
    return (PostUse(post, use, None if op == "d" else made_ms),)


class Changes:
    """What a batch of row changes means for trends now: of what was done and taken back, only how it ended."""

    def __init__(self, facts: Iterable[Fact], now_ms: int) -> None:
        self.now_ms = now_ms
        self.tagged: dict[int, None] = {}
        """Posts whose hashtags may have changed, in order."""
        self.uses: dict[int, dict[bytes, int | None]] = {}
        """For each post its uses, with their time, or none for those that were taken back."""
        self.hours: dict[int, set[int]] = {}
        """For each post the hours in which something was done with it, taken back or not: batches do not matter."""
        self.ended: dict[int, None] = {}
        """Posts that are gone."""
        for uses, tagged, ended in facts:
            for post, use, made_ms in uses:
                self.uses.setdefault(post, {})[use] = made_ms
                if made_ms is not None:
                    self.hours.setdefault(post, set()).add(made_ms // HOUR_MS)
            if tagged is not None:
                self.tagged[tagged] = None
            if ended is not None:
                self.ended[ended] = None

    @property
    def used(self) -> list[int]:
        """Posts that something was done with."""
        return [post for post, uses in self.uses.items() if any(made_ms is not None for made_ms in uses.values())]

    def commands(self) -> list[Command]:
        """What makes the posts' uses so: a few commands a post, however much was done with it."""
        commands: list[Command] = []
        trending = _Trending(POSTS)
        for post, uses in self.uses.items():
            subject = b"%d" % post
            commands += trend_uses.count(POST, subject, uses, self.now_ms)
            for hour in self.hours.get(post, ()):
                trending.note(subject, hour)
        return [*commands, *trending.commands(), *self.forgetting(self.ended)]

    def forgetting(self, posts: Iterable[int]) -> list[Command]:
        """Removes what was done with posts."""
        return [trend_uses.forget(POST, b"%d" % post, self.now_ms) for post in posts]


class _Trending:
    """Collects what was used in which hour."""

    def __init__(self, kind: bytes) -> None:
        self._kind = kind
        self._names: dict[bytes, dict[bytes, None]] = {}

    def note(self, name: bytes, hour: int) -> None:
        """A name was used in an hour."""
        key = trending_key(self._kind, crc32(name) % SHARDS, hour)
        self._names.setdefault(key, {})[name] = None

    def commands(self) -> Iterator[Command]:
        """Two commands a key."""
        for key, names in self._names.items():
            yield command(key, b"SADD", *names)
            yield command(key, b"EXPIRE", _TRENDING_SECONDS)


def milliseconds(timestamp: str) -> int:
    """A row's time, as Debezium writes it, in ms since the epoch; raises `ValueError`."""
    moment = datetime.fromisoformat(timestamp)
    return int(moment.timestamp()) * 1_000 + moment.microsecond // 1_000


def apply(changes: Changes) -> Effects[None]:
    """Write what the changes mean."""
    if commands := changes.commands():
        yield Redis(commands)
    if used := changes.used:
        # A post's end may come before an answer to it: they are in different partitions.
        there = {row["id"] for row in (yield Query(POSTS_THERE, {"ids": used}))}
        if gone := changes.forgetting(post for post in used if post not in there):
            yield Redis(gone)
    yield from count_tags(list(changes.tagged), changes.now_ms)


def count_tags(posts: Sequence[int], now_ms: int) -> Effects[None]:
    """Make the hashtags that posts are counted under those that the database says."""
    if not posts:
        return
    rows = yield Query(TAGGED_BY_ID, {"ids": list(posts)})
    wanted: dict[int, tuple[bytes, set[bytes]]] = {
        row["id"]: (row["author_id"].bytes, {name.encode() for name in row["tags"]}) for row in rows
    }
    values = yield Redis([command(post_key(post), b"GET") for post in posts])
    counted = {post: _parse(value) for post, value in zip(posts, values, strict=True) if value}
    remember: list[Command] = []
    forget: list[Command] = []
    uses: dict[bytes, dict[bytes, int | None]] = {}
    trending = _Trending(TAGS)
    for post in posts:
        author, names = wanted.get(post, (b"", set()))
        old_author, old = counted.get(post, (author, set()))
        author = author or old_author
        if not names and not old:
            continue
        made_ms = created_ms(post)
        key, use = post_key(post), trend_uses.use(author, post)
        # Both, until it is done: who is interrupted knows what may be counted.
        remember.append(command(key, b"SET", _value(author, names | old), b"EX", TAG.seconds))
        for name in sorted(names | old):
            uses.setdefault(name, {})[use] = made_ms if name in names else None
        for name in names:
            trending.note(name, made_ms // HOUR_MS)
        if names:
            forget.append(command(key, b"SET", _value(author, names), b"EX", TAG.seconds))
        else:
            forget.append(command(key, b"DEL"))
    counted_uses = [each for name, used in uses.items() for each in trend_uses.count(TAG, name, used, now_ms)]
    for commands in (remember, [*counted_uses, *trending.commands()], forget):
        if commands:
            yield Redis(commands)


def read_history(names: Sequence[str], today: int) -> Effects[dict[str, dict[int, Use]]]:
    """The histories of hashtags, the last seven days."""
    places = [(name, today - back) for name in names for back in range(HISTORY_DAYS)]
    reads = [
        each
        for name, day in places
        for each in (
            command(TAG.use_key(name.encode(), day), b"ZCARD"),
            command(TAG.by_key(name.encode(), day), b"SCARD"),
        )
    ]
    replies = (yield Redis(reads)) if reads else []
    found: dict[str, dict[int, Use]] = {name: {} for name in names}
    for (name, day), uses, accounts in zip(places, replies[::2], replies[1::2], strict=True):
        if uses:
            found[name][day] = Use(uses, accounts)
    return found


def histories(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Use]]:
    """Histories by name from the rows of `TAG_HISTORY`."""
    found: dict[str, dict[int, Use]] = {}
    for row in rows:
        found.setdefault(row["name"], {})[int(row["day"])] = Use(row["uses"], row["accounts"])
    return found


def history_entity(history: History, today: int) -> list[dict[str, str]]:
    """The `history` of Mastodon's Tag: the last seven days, today first, numbers as strings."""
    days = [today - back for back in range(HISTORY_DAYS)]
    return [
        {
            "day": str(day * DAY_MS // 1_000),
            "uses": str(history.get(day, NO_USE).uses),
            "accounts": str(history.get(day, NO_USE).accounts),
        }
        for day in days
    ]


def candidates(kind: bytes, hours: Collection[int]) -> list[Command]:
    """Reads what was used in some hours: sets of names or ids."""
    return [command(trending_key(kind, shard, hour), b"SMEMBERS") for shard in range(SHARDS) for hour in hours]


def post_key(post: int) -> bytes:
    """The key of what a post is counted under."""
    return b"tag_post:{%d}" % post


def trending_key(kind: bytes, shard: int, hour: int) -> bytes:
    """The key of a shard of what was used in an hour."""
    return b"trending:{%s:%d}:%d" % (kind, shard, hour)


def use_of(row: Mapping[str, Any]) -> tuple[bytes, int]:
    """The use in a row of `POST_USES`, and its ms."""
    return trend_uses.use(row["account_id"].bytes, row["through"]), row["ms"]


def _value(author: bytes, names: set[bytes]) -> bytes:
    return author + b"\n".join(sorted(names))


def _parse(value: bytes) -> tuple[bytes, set[bytes]]:
    return value[:16], set(filter(None, value[16:].split(b"\n")))
