"""Trends: what hashtags and posts are used by whom and when, in Redis with expiry and nowhere else.

Layout; whatever is written is a member of a set, so a repetition changes nothing:

    tag_use:{<name>}:<day>     sorted set: account (16) and post (8), scored by the post's ms
    tag_post:{<post id>}       the post's author (16), and the names that it is counted under, one a line
    post_use:{<post id>}       sorted set: account (16), kind (1: f favourite, r repost, a answer) and the id of the
                               repost or answer (8, otherwise zero), scored by its ms
    trending:{<kind>:<shard>}:<hour>   set: the names (kind tags), or the ids (kind posts), that were used in an hour

Days and hours are numbered from the Unix epoch, UTC. Only public posts count, and no reposts. What is counted follows
rows, not events: an edit that changes a hashtag, a deleted post and a deleted account take back what they were counted
for. `readmodels/trend_ranking.py` makes rankings of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

from fanline.ids import created_ms, pack_id, unpack_id
from readmodels.effects import Command, Effects, Query, Redis, call, command

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
HISTORY_DAYS = 7
"""Days of a hashtag's history that clients are shown, and that its present use is held against."""
TAG_DAYS = HISTORY_DAYS + 2
POST_HOURS = 24
"""Hours of a post's use that count."""
_DAY_SECONDS = 86_400
_TAG_SECONDS = (TAG_DAYS + 1) * _DAY_SECONDS
_POST_SECONDS = 2 * _DAY_SECONDS

SHARDS = 16
"""Keys that an hour's names are spread over, so that no node of a cluster takes all of them."""

TAGS, POSTS = b"tags", b"posts"
FAVOURITE, REPOST, ANSWER = b"f", b"r", b"a"
_NO_ID = bytes(8)

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
SELECT l.post_id, l.user_id AS account_id, 'f' AS kind, 0 AS through,
       floor(extract(epoch FROM l.created_at) * 1000)::bigint AS ms
FROM likes l WHERE l.created_at >= %(since)s {likes}
UNION ALL
SELECT p.repost_of_id, p.author_id, 'r', p.id, p.id >> 16
FROM posts p
WHERE p.id >= %(first)s AND p.repost_of_id IS NOT NULL AND p.visibility IN ('public', 'unlisted') {reposts}
UNION ALL
SELECT p.in_reply_to_id, p.author_id, 'a', p.id, p.id >> 16
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
    """What somebody did with a post, as a member of its sorted set; at no time when it was taken back."""

    post: int
    member: bytes
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
        return Fact(_use(op, int(row["post_id"]), UUID(row["user_id"]), FAVOURITE, _NO_ID, made_ms, now_ms))
    if table != "posts":
        raise ValueError(f"Trends know no table {table}.")
    identifier = int(row["id"])
    author, made_ms, itself = UUID(row["author_id"]), created_ms(identifier), pack_id(identifier)
    uses: list[PostUse] = []
    if row["visibility"] in ("public", "unlisted"):
        if row["repost_of_id"] is not None:
            uses += _use(op, int(row["repost_of_id"]), author, REPOST, itself, made_ms, now_ms)
        if row["in_reply_to_id"] is not None:
            uses += _use(op, int(row["in_reply_to_id"]), author, ANSWER, itself, made_ms, now_ms)
    may_count = row["repost_of_id"] is None and made_ms > now_ms - TAG_DAYS * DAY_MS
    return Fact(uses, identifier if may_count else None, identifier if op == "d" else None)


def _use(
    op: str, post: int, account: UUID, kind: bytes, through: bytes, made_ms: int, now_ms: int
) -> tuple[PostUse, ...]:
    if op != "d" and made_ms <= now_ms - POST_HOURS * HOUR_MS:
        return ()
    return (PostUse(post, account.bytes + kind + through, None if op == "d" else made_ms),)


class Changes:
    """What a batch of row changes means for trends: of what was done and taken back, only how it ended."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.tagged: dict[int, None] = {}
        """Posts whose hashtags may have changed, in order."""
        self.uses: dict[int, dict[bytes, int | None]] = {}
        """For each post its members, with their time, or none for those that were taken back."""
        self.ended: dict[int, None] = {}
        """Posts that are gone."""
        for uses, tagged, ended in facts:
            for post, member, made_ms in uses:
                self.uses.setdefault(post, {})[member] = made_ms
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
            key = use_key(post)
            if taken := [member for member, made_ms in uses.items() if made_ms is None]:
                commands.append(command(key, b"ZREM", *taken))
            if done := {member: made_ms for member, made_ms in uses.items() if made_ms is not None}:
                commands += _scored(key, done, _POST_SECONDS)
                for hour in {made_ms // HOUR_MS for made_ms in done.values()}:
                    trending.note(b"%d" % post, hour)
        return [*commands, *trending.commands(), *(command(use_key(post), b"DEL") for post in self.ended)]


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
            yield command(key, b"EXPIRE", _POST_SECONDS)


def _scored(key: bytes, members: Mapping[bytes, int], seconds: int) -> list[Command]:
    pairs = (part for member, made_ms in members.items() for part in (made_ms, member))
    return [command(key, b"ZADD", *pairs), command(key, b"EXPIRE", seconds)]


def milliseconds(timestamp: str) -> int:
    """A row's time, as Debezium writes it, in ms since the epoch; raises `ValueError`."""
    moment = datetime.fromisoformat(timestamp)
    return int(moment.timestamp()) * 1_000 + moment.microsecond // 1_000


def record_use(post: int, member: bytes, made_ms: int) -> list[Command]:
    """Count what somebody did with a post."""
    return Changes([Fact([PostUse(post, member, made_ms)])]).commands()


def apply(changes: Changes) -> Effects[None]:
    """Write what the changes mean."""
    if commands := changes.commands():
        yield Redis(commands)
    if used := changes.used:
        # A post's end may come before an answer to it: they are in different partitions.
        there = {row["id"] for row in (yield Query(POSTS_THERE, {"ids": used}))}
        if gone := [command(use_key(post), b"DEL") for post in used if post not in there]:
            yield Redis(gone)
    yield from count_tags(list(changes.tagged))


def count_tags(posts: Sequence[int]) -> Effects[None]:
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
    taken: list[Command] = []
    forget: list[Command] = []
    days: dict[bytes, dict[bytes, int]] = {}
    trending = _Trending(TAGS)
    for post in posts:
        author, names = wanted.get(post, (b"", set()))
        old_author, old = counted.get(post, (author, set()))
        author = author or old_author
        if not names and not old:
            continue
        made_ms = created_ms(post)
        key, member = post_key(post), author + pack_id(post)
        # Both, until it is done: who is interrupted knows what may be counted.
        remember.append(command(key, b"SET", _value(author, names | old), b"EX", _TAG_SECONDS))
        for name in sorted(names):
            days.setdefault(tag_key(name, made_ms // DAY_MS), {})[member] = made_ms
            trending.note(name, made_ms // HOUR_MS)
        taken += [command(tag_key(name, made_ms // DAY_MS), b"ZREM", member) for name in sorted(old - names)]
        if names:
            forget.append(command(key, b"SET", _value(author, names), b"EX", _TAG_SECONDS))
        else:
            forget.append(command(key, b"DEL"))
    used = [each for key, members in days.items() for each in _scored(key, members, _TAG_SECONDS)]
    for commands in (remember, [*used, *trending.commands(), *taken], forget):
        if commands:
            yield Redis(commands)


def read_history(names: Sequence[str], today: int) -> Effects[dict[str, dict[int, Use]]]:
    """The histories of hashtags, the last seven days."""
    days = [today - back for back in range(HISTORY_DAYS)]
    return (yield from read_days(names, days))


def read_days(names: Sequence[str], days: Sequence[int]) -> Effects[dict[str, dict[int, Use]]]:
    """The use of hashtags on some days."""
    places = [(name, day) for name in names for day in days]
    replies = yield Redis([call(b"trend_use", [tag_key(name.encode(), day)], read_only=True) for name, day in places])
    found: dict[str, dict[int, Use]] = {name: {} for name in names}
    for (name, day), (uses, accounts) in zip(places, replies, strict=True):
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
            "day": str(day * _DAY_SECONDS),
            "uses": str(history.get(day, NO_USE).uses),
            "accounts": str(history.get(day, NO_USE).accounts),
        }
        for day in days
    ]


def candidates(kind: bytes, hours: Collection[int]) -> list[Command]:
    """Reads what was used in some hours: sets of names or ids."""
    return [command(trending_key(kind, shard, hour), b"SMEMBERS") for shard in range(SHARDS) for hour in hours]


def tag_key(name: bytes, day: int) -> bytes:
    """The key of a hashtag's use on a day."""
    return b"tag_use:{%s}:%d" % (name, day)


def post_key(post: int) -> bytes:
    """The key of what a post is counted under."""
    return b"tag_post:{%d}" % post


def use_key(post: int) -> bytes:
    """The key of what was done with a post."""
    return b"post_use:{%d}" % post


def trending_key(kind: bytes, shard: int, hour: int) -> bytes:
    """The key of a shard of what was used in an hour."""
    return b"trending:{%s:%d}:%d" % (kind, shard, hour)


def use_of(row: Mapping[str, Any]) -> tuple[bytes, int]:
    """The member and score of a row of `POST_USES`."""
    return row["account_id"].bytes + row["kind"].encode() + pack_id(row["through"]), row["ms"]


def post_of(member: bytes) -> int:
    """The post in a member of a hashtag's use."""
    return unpack_id(member[16:24])


def _value(author: bytes, names: set[bytes]) -> bytes:
    return author + b"\n".join(sorted(names))


def _parse(value: bytes) -> tuple[bytes, set[bytes]]:
    return value[:16], set(filter(None, value[16:].split(b"\n")))
