"""What trends: rankings of the uses in readmodels/trends.py, from Redis, and from SQL as their oracle.

How much something rises is Pearson's measure of how far an observed count lies from the expected one,

    (observed - expected)^2 / expected       0 unless observed > expected

which for counts of independent people (Poisson) tells a jump from noise: 40 people instead of 10 count for more (90)
than 1,040 instead of 1,000 (1.6). It is the term of his chi-squared test (Pearson 1900), which Mastodon's trends use,
too, with other expectations. Expected is the subject's own past, at least one person:

    hashtag   observed: people who used it in the last 24 hours; expected: people a day in the seven days before them
    post      observed: people who did something with it in the last 6 hours; expected: a third of the 18 hours' before

Whoever did it more than once counts once, nobody counts for their own post, and people who are suspended, silenced or
have just signed up count for nothing; neither does anything with fewer than a least number of people. So a crowd of
posts by few people is worth nothing. Of one author at most three posts trend. Posts that answer others, are marked as
sensitive, or are by people who do not want to be discovered do not.

    trends:{tags}   trends:{posts}     the rankings: JSON of `Ranking`, made anew every few seconds
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from fanline.ids import first_id_at
from readmodels import trends
from readmodels.effects import Command, Effects, Query, Redis, command
from readmodels.trends import DAY_MS, HISTORY_DAYS, HOUR_MS, POST_HOURS

TAG_WINDOW_MS = 24 * HOUR_MS
POST_WINDOW_MS = 6 * HOUR_MS
KEPT = 100
"""Entries of a ranking."""
RANKING_SECONDS = 600
"""A ranking that nobody has made anew for so long is not shown any more."""
MOST_CANDIDATES = 300
"""Subjects that are looked at closely: those used most often."""
MOST_MEMBERS = 5_000
"""Uses of a subject that are looked at, the newest."""
POSTS_OF_ONE_AUTHOR = 3

ELIGIBLE = """
SELECT id FROM users
WHERE id = ANY(%(ids)s::uuid[]) AND suspended_at IS NULL AND silenced_at IS NULL AND created_at <= %(signed_up)s
"""
POSTS_THAT_MAY = """
SELECT p.id, p.author_id FROM posts p JOIN users author ON author.id = p.author_id
WHERE p.id = ANY(%(ids)s::bigint[]) AND p.visibility = 'public' AND p.repost_of_id IS NULL
  AND p.in_reply_to_account_id IS NULL AND NOT p.sensitive
  AND author.discoverable AND author.suspended_at IS NULL AND author.silenced_at IS NULL
"""
TAG_USES = """
SELECT h.name, array_agg(DISTINCT p.author_id) AS accounts
FROM posts p JOIN post_hashtags ph ON ph.post_id = p.id JOIN hashtags h ON h.id = ph.hashtag_id
WHERE p.id >= %(first)s AND p.visibility = 'public' AND p.repost_of_id IS NULL
GROUP BY h.name HAVING count(DISTINCT p.author_id) >= %(minimum)s
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """When, and what it takes."""

    now_ms: int
    minimum: int
    """People below whom nothing trends."""
    account_hours: float
    """Hours after signing up in which people do not count."""

    def eligible(self, accounts: Collection[bytes]) -> Query:
        """Asks which accounts count."""
        signed_up = datetime.fromtimestamp(self.now_ms / 1_000 - self.account_hours * 3_600, UTC)
        return Query(ELIGIBLE, {"ids": [UUID(bytes=account) for account in accounts], "signed_up": signed_up})


class Entry(msgspec.Struct, frozen=True):
    """What trends: a hashtag's name or a post's id as text, how much, and by how many people."""

    subject: str
    score: float
    accounts: int


class Ranking(msgspec.Struct, frozen=True):
    """The entries, the strongest first, and when they were ranked."""

    made_ms: int
    entries: list[Entry]


KeysOf = Callable[[bytes], list[bytes]]
"""The keys that hold a subject's uses."""


@dataclass(slots=True)
class Uses:
    """What is known of a subject: the accounts that used it in its window, and how many would be expected."""

    accounts: set[bytes]
    expected: float


def rise(observed: int, expected: float) -> float:
    """How much a count has risen over what was expected of it."""
    expected = max(expected, 1.0)
    return (observed - expected) ** 2 / expected if observed > expected else 0.0


def rank(uses: Mapping[str, Uses], eligible: Collection[bytes], minimum: int) -> list[Entry]:
    """The subjects that rise, the strongest first."""
    entries = []
    for subject, use in uses.items():
        observed = len(use.accounts & set(eligible))
        score = rise(observed, use.expected)
        if observed >= minimum and score:
            entries.append(Entry(subject, round(score, 3), observed))
    entries.sort(key=lambda entry: (-entry.score, entry.subject))
    return entries


def baseline_days(now_ms: int) -> list[int]:
    """The seven whole days before a hashtag's window."""
    first = (now_ms - TAG_WINDOW_MS) // DAY_MS
    return [first - back for back in range(1, HISTORY_DAYS + 1)]


def rank_tags(terms: Terms) -> Effects[Ranking]:
    """The ranking of hashtags, from Redis."""
    since = terms.now_ms - TAG_WINDOW_MS
    hours = range(since // HOUR_MS, terms.now_ms // HOUR_MS + 1)
    days = range(since // DAY_MS, terms.now_ms // DAY_MS + 1)
    names = yield from _busiest(trends.TAGS, hours, since, terms.minimum, lambda name: _keys_of(name, days))
    members = yield from _members(names, since, lambda name: _keys_of(name, days))
    texts = [name.decode() for name in names]
    history = (yield from trends.read_days(texts, baseline_days(terms.now_ms))) if names else {}
    uses = {
        text: Uses({member[:16] for member, _ in members[name]}, _expected_of_tag(history[text]))
        for name, text in zip(names, texts, strict=True)
    }
    return (yield from _ranked(terms, uses))


def tags_oracle(terms: Terms) -> Effects[Ranking]:
    """The ranking of hashtags as the database has it."""
    first = first_id_at(terms.now_ms - TAG_WINDOW_MS)
    rows = yield Query(TAG_USES, {"first": first, "minimum": terms.minimum})
    days = baseline_days(terms.now_ms)
    names = [row["name"] for row in rows]
    past = yield Query(trends.TAG_HISTORY, {"names": names, "first": first_id_at(min(days) * DAY_MS)})
    history = trends.histories(row for row in past if row["day"] in days)
    uses = {
        row["name"]: Uses(
            {account.bytes for account in row["accounts"]}, _expected_of_tag(history.get(row["name"], {}))
        )
        for row in rows
    }
    return (yield from _ranked(terms, uses))


def rank_posts(terms: Terms) -> Effects[Ranking]:
    """The ranking of posts, from Redis."""
    since = terms.now_ms - POST_WINDOW_MS
    hours = range(since // HOUR_MS, terms.now_ms // HOUR_MS + 1)
    ids = yield from _busiest(trends.POSTS, hours, since, terms.minimum, _use_keys)
    members = yield from _members(ids, terms.now_ms - POST_HOURS * HOUR_MS, _use_keys)
    return (yield from _rank_posts(terms, {int(post): found for post, found in members.items()}))


def posts_oracle(terms: Terms) -> Effects[Ranking]:
    """The ranking of posts as the database has it."""
    since = terms.now_ms - POST_HOURS * HOUR_MS
    moment = datetime.fromtimestamp(since / 1_000, UTC)
    rows = yield Query(trends.ALL_POST_USES, {"since": moment, "first": first_id_at(since)})
    members: dict[int, list[tuple[bytes, int]]] = {}
    for row in rows:
        members.setdefault(row["post_id"], []).append(trends.use_of(row))
    return (yield from _rank_posts(terms, members))


def write(kind: bytes, ranking: Ranking) -> Command:
    """Publishes a ranking."""
    return command(ranking_key(kind), b"SET", msgspec.json.encode(ranking), b"EX", RANKING_SECONDS)


def read(kind: bytes) -> Command:
    """Reads a ranking."""
    return command(ranking_key(kind), b"GET")


def parse(value: bytes) -> Ranking:
    """The ranking that was read."""
    return msgspec.json.decode(value, type=Ranking)


def ranking_key(kind: bytes) -> bytes:
    """The key of a ranking."""
    return b"trends:{%s}" % kind


def publish(terms: Terms) -> Effects[None]:
    """Make both rankings anew."""
    tags = yield from rank_tags(terms)
    posts = yield from rank_posts(terms)
    yield Redis([write(trends.TAGS, tags), write(trends.POSTS, posts)])


def _rank_posts(terms: Terms, members: Mapping[int, Sequence[tuple[bytes, int]]]) -> Effects[Ranking]:
    rows = yield Query(POSTS_THAT_MAY, {"ids": list(members)})
    window, start = terms.now_ms - POST_WINDOW_MS, terms.now_ms - POST_HOURS * HOUR_MS
    pace = POST_WINDOW_MS / (POST_HOURS * HOUR_MS - POST_WINDOW_MS)
    uses: dict[str, Uses] = {}
    authors: dict[str, UUID] = {}
    for row in rows:
        found = [(member[:16], ms) for member, ms in members[row["id"]] if member[:16] != row["author_id"].bytes]
        before = {account for account, ms in found if start <= ms < window}
        uses[str(row["id"])] = Uses({account for account, ms in found if ms >= window}, len(before) * pace)
        authors[str(row["id"])] = row["author_id"]
    ranking = yield from _ranked(terms, uses)
    times: Counter[UUID] = Counter()
    kept = []
    for entry in ranking.entries:
        times[authors[entry.subject]] += 1
        if times[authors[entry.subject]] <= POSTS_OF_ONE_AUTHOR:
            kept.append(entry)
    return Ranking(ranking.made_ms, kept)


def _ranked(terms: Terms, uses: Mapping[str, Uses]) -> Effects[Ranking]:
    accounts = {account for use in uses.values() for account in use.accounts}
    eligible: set[bytes] = set()
    if accounts:
        rows = yield terms.eligible(accounts)
        eligible = {row["id"].bytes for row in rows}
    return Ranking(terms.now_ms, rank(uses, eligible, terms.minimum)[:KEPT])


def _busiest(kind: bytes, hours: Collection[int], since: int, minimum: int, keys: KeysOf) -> Effects[list[bytes]]:
    """The subjects used most often since a moment, of those used in these hours."""
    sets = yield Redis(trends.candidates(kind, hours))
    subjects = sorted({bytes(subject) for found in sets for subject in found})
    counts: list[Command] = [command(key, b"ZCOUNT", since, b"+inf") for each in subjects for key in keys(each)]
    replies = iter((yield Redis(counts)) if counts else ())
    times = {subject: sum(next(replies) for _ in keys(subject)) for subject in subjects}
    often = [subject for subject in subjects if times[subject] >= minimum]
    return sorted(often, key=lambda subject: -times[subject])[:MOST_CANDIDATES]


def _members(subjects: Sequence[bytes], since: int, keys: KeysOf) -> Effects[dict[bytes, list[tuple[bytes, int]]]]:
    """The newest uses of subjects since a moment, each with its ms."""
    reads = [
        command(key, b"ZREVRANGEBYSCORE", b"+inf", since, b"WITHSCORES", b"LIMIT", 0, MOST_MEMBERS)
        for subject in subjects
        for key in keys(subject)
    ]
    replies = iter((yield Redis(reads)) if reads else ())
    return {subject: [pair for _ in keys(subject) for pair in _pairs(next(replies))] for subject in subjects}


def _pairs(reply: Sequence[Any]) -> Iterable[tuple[bytes, int]]:
    return ((bytes(member), int(float(score))) for member, score in zip(reply[::2], reply[1::2], strict=True))


def _keys_of(name: bytes, days: Iterable[int]) -> list[bytes]:
    return [trends.tag_key(name, day) for day in days]


def _use_keys(post: bytes) -> list[bytes]:
    return [trends.use_key(int(post))]


def _expected_of_tag(history: trends.History) -> float:
    return sum(use.accounts for use in history.values()) / HISTORY_DAYS
