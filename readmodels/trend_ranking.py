"""What trends: rankings of the uses in readmodels/trends.py, from Redis, and from SQL as their oracle.

How much something rises is Pearson's measure of how far an observed count lies from the expected one,

    (observed - expected)^2 / expected       0 unless observed > expected

which for counts of independent people (Poisson) tells a jump from noise: 40 people instead of 10 count for more (90)
than 1,040 instead of 1,000 (1.6). It is the term of his chi-squared test (Pearson 1900), which Mastodon's trends use,
too, with other expectations. Expected is the subject's own past, at least one person:

    hashtag   observed: people who used it in the last 24 hours; expected: people a day in the seven days before them
    post      observed: people who did something with it in the last 6 hours; expected: people a quarter of a day in the
              three whole quarters before them (from midnight, UTC)

Whoever did it more than once counts once, nobody counts for their own post, and people who are suspended, silenced or
have just signed up count for nothing; neither does anything with fewer than a least number of people. So a crowd of
posts by few people is worth nothing. Of one author at most three posts trend. Posts that answer others, are marked as
sensitive, or are by people who do not want to be discovered do not.

Redis counts people without listing them (readmodels/trend_uses.py), so subjects are looked at in the order of how much
they would rise if everybody counted, until those that are left cannot come in any more. Who counts is asked for the
people of these alone; of more than a thousand, for every n-th: of these the share that counts is taken for all.

    trends:{tags}   trends:{posts}     the rankings: JSON of `Ranking`, made anew every few seconds
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from fanline.ids import first_id_at
from readmodels import trend_uses, trends
from readmodels.effects import Command, Effects, Query, Redis, command
from readmodels.trend_uses import HOUR_MS, POST, TAG, Kind

KEPT = 100
"""Entries of a ranking."""
RANKING_SECONDS = 600
"""A ranking that nobody has made anew for so long is not shown any more."""
AT_ONCE = 50
"""Subjects that are looked at closely at a time."""
MOST_PEOPLE = 1_000
"""Of a subject's people so many are looked at."""
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
SELECT name, array_agg(account_id ORDER BY newest DESC, account_id DESC) AS accounts
FROM (
  SELECT h.name, p.author_id AS account_id, max(p.id >> 16) AS newest
  FROM posts p JOIN post_hashtags ph ON ph.post_id = p.id JOIN hashtags h ON h.id = ph.hashtag_id
  WHERE p.id >= %(first)s AND p.visibility = 'public' AND p.repost_of_id IS NULL
  GROUP BY h.name, p.author_id
) AS used
GROUP BY name HAVING count(*) >= %(minimum)s
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


@dataclass(slots=True)
class Uses:
    """What is known of a subject: how many people used it in its window, some or all of them, and what is expected."""

    people: int
    some: Sequence[bytes]
    expected: float
    author: bytes = b""
    """Whose post it is: their own use does not count."""

    def observed(self, eligible: Collection[bytes]) -> int:
        """How many count, where of those that are looked at these do."""
        counting = sum(account in eligible and account != self.author for account in self.some)
        return counting if len(self.some) == self.people else round(self.people * counting / len(self.some))


def rise(observed: int, expected: float) -> float:
    """How much a count has risen over what was expected of it."""
    expected = max(expected, 1.0)
    return (observed - expected) ** 2 / expected if observed > expected else 0.0


def rank(uses: Mapping[str, Uses], eligible: Collection[bytes], minimum: int) -> list[Entry]:
    """The subjects that rise, the strongest first."""
    entries = []
    for subject, use in uses.items():
        observed = use.observed(eligible)
        score = round(rise(observed, use.expected), 3)
        if observed >= minimum and score:
            entries.append(Entry(subject, score, observed))
    return sorted(entries, key=_strongest)


def cut(entries: Iterable[Entry], authors: Mapping[str, bytes]) -> list[Entry]:
    """The strongest, of one author no more than some."""
    times: Counter[bytes] = Counter()
    kept = []
    for entry in sorted(entries, key=_strongest):
        author = authors[entry.subject]
        times[author] += 1
        if not author or times[author] <= POSTS_OF_ONE_AUTHOR:
            kept.append(entry)
    return kept[:KEPT]


def rank_tags(terms: Terms) -> Effects[Ranking]:
    """The ranking of hashtags, from Redis."""
    return (yield from _ranking(terms, TAG, trends.TAGS, _look_at_tags))


def tags_oracle(terms: Terms) -> Effects[Ranking]:
    """The ranking of hashtags as the database has it."""
    rows = yield Query(TAG_USES, {"first": first_id_at(terms.now_ms - TAG.block_ms), "minimum": terms.minimum})
    days = TAG.past_blocks(terms.now_ms)
    names = [row["name"] for row in rows]
    past = yield Query(trends.TAG_HISTORY, {"names": names, "first": first_id_at(days[0] * TAG.block_ms)})
    history = trends.histories(row for row in past if row["day"] in days)
    uses = {}
    for row in rows:
        accounts = [account.bytes for account in row["accounts"]]
        before = sum(use.accounts for use in history.get(row["name"], {}).values())
        uses[row["name"]] = Uses(len(accounts), trend_uses.sample(accounts, MOST_PEOPLE), before / TAG.past)
    return (yield from _ranked(terms, uses))


def rank_posts(terms: Terms) -> Effects[Ranking]:
    """The ranking of posts, from Redis."""
    return (yield from _ranking(terms, POST, trends.POSTS, _look_at_posts))


def posts_oracle(terms: Terms) -> Effects[Ranking]:
    """The ranking of posts as the database has it."""
    window, quarters = terms.now_ms - POST.block_ms, POST.past_blocks(terms.now_ms)
    since = quarters[0] * POST.block_ms
    moment = datetime.fromtimestamp(since / 1_000, UTC)
    rows = yield Query(trends.ALL_POST_USES, {"since": moment, "first": first_id_at(since)})
    newest: dict[int, dict[bytes, int]] = {}
    before: dict[int, set[tuple[bytes, int]]] = {}
    for row in rows:
        post, account, ms = row["post_id"], row["account_id"].bytes, row["ms"]
        if ms >= window:
            people = newest.setdefault(post, {})
            people[account] = max(people.get(account, 0), ms)
        if ms // POST.block_ms in quarters:
            before.setdefault(post, set()).add((account, ms // POST.block_ms))
    uses = {}
    for row in (yield Query(POSTS_THAT_MAY, {"ids": list(newest)})):
        post, author = row["id"], row["author_id"].bytes
        people = newest[post]
        accounts = [account for _, account in sorted(((ms, account) for account, ms in people.items()), reverse=True)]
        past = sum(account != author for account, _ in before.get(post, ()))
        some = trend_uses.sample(accounts, MOST_PEOPLE)
        uses[str(post)] = Uses(len(accounts), some, past / POST.past, author)
    return (yield from _ranked(terms, uses))


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


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A subject, the accounts of its past, one block after the other, and how much it could rise at most."""

    subject: bytes
    past: int
    most: float


Look = Callable[[Terms, Sequence[_Candidate]], Effects[dict[str, Uses]]]
"""Tells the uses of candidates that may trend."""


def _ranking(terms: Terms, kind: Kind, name: bytes, look: Look) -> Effects[Ranking]:
    candidates = yield from _candidates(terms, kind, name)
    entries: list[Entry] = []
    authors: dict[str, bytes] = {}
    people = _People(set(), set())
    for start in range(0, len(candidates), AT_ONCE):
        # Scores are rounded.
        if len(entries) == KEPT and candidates[start].most + 0.001 < entries[-1].score:
            break
        uses = yield from look(terms, candidates[start : start + AT_ONCE])
        yield from people.get_to_know(terms, uses)
        authors |= {subject: use.author for subject, use in uses.items()}
        entries = cut([*entries, *rank(uses, people.eligible, terms.minimum)], authors)
    return Ranking(terms.now_ms, entries)


def _candidates(terms: Terms, kind: Kind, name: bytes) -> Effects[list[_Candidate]]:
    """What enough people used in its window, the ones that could rise most first."""
    since = terms.now_ms - kind.block_ms
    hours = range(since // HOUR_MS, terms.now_ms // HOUR_MS + 1)
    sets = yield Redis(trends.candidates(name, hours))
    subjects = sorted({bytes(subject) for found in sets for subject in found})
    counts = [command(kind.people_key(subject), b"ZCOUNT", since, b"+inf") for subject in subjects]
    people = (yield Redis(counts)) if counts else []
    often = [(subject, size) for subject, size in zip(subjects, people, strict=True) if size >= terms.minimum]
    blocks = kind.past_blocks(terms.now_ms)
    sizes = [command(kind.by_key(subject, block), b"SCARD") for subject, _ in often for block in blocks]
    replies = iter((yield Redis(sizes)) if sizes else ())
    found = []
    for subject, size in often:
        past = sum(next(replies) for _ in blocks)
        # A post's author may be among the people of each block.
        found.append(_Candidate(subject, past, rise(size, (past - len(blocks)) / len(blocks))))
    return sorted(found, key=lambda candidate: (-candidate.most, candidate.subject))


def _look_at_tags(terms: Terms, candidates: Sequence[_Candidate]) -> Effects[dict[str, Uses]]:
    people = yield from _people(terms, TAG, candidates)
    return {
        candidate.subject.decode(): Uses(*found, candidate.past / TAG.past)
        for candidate, found in zip(candidates, people, strict=True)
    }


def _look_at_posts(terms: Terms, candidates: Sequence[_Candidate]) -> Effects[dict[str, Uses]]:
    rows = yield Query(POSTS_THAT_MAY, {"ids": [int(candidate.subject) for candidate in candidates]})
    authors = {b"%d" % row["id"]: row["author_id"].bytes for row in rows}
    allowed = [candidate for candidate in candidates if candidate.subject in authors]
    if not allowed:
        return {}
    people = yield from _people(terms, POST, allowed)
    blocks = POST.past_blocks(terms.now_ms)
    own = yield Redis(
        [
            command(POST.by_key(candidate.subject, block), b"SISMEMBER", authors[candidate.subject])
            for candidate in allowed
            for block in blocks
        ]
    )
    uses = {}
    for number, (candidate, found) in enumerate(zip(allowed, people, strict=True)):
        past = candidate.past - sum(own[number * len(blocks) : (number + 1) * len(blocks)])
        uses[candidate.subject.decode()] = Uses(*found, past / POST.past, authors[candidate.subject])
    return uses


def _people(terms: Terms, kind: Kind, candidates: Sequence[_Candidate]) -> Effects[list[tuple[int, list[bytes]]]]:
    since = terms.now_ms - kind.block_ms
    replies = yield Redis([trend_uses.people(kind, each.subject, since, MOST_PEOPLE) for each in candidates])
    return [(size, [bytes(account) for account in some]) for size, some in replies]


@dataclass(frozen=True, slots=True)
class _People:
    """Whether accounts count."""

    known: set[bytes]
    eligible: set[bytes]

    def get_to_know(self, terms: Terms, uses: Mapping[str, Uses]) -> Effects[None]:
        """Ask for the accounts of these uses."""
        unknown = {account for use in uses.values() for account in use.some} - self.known
        if unknown:
            rows = yield terms.eligible(unknown)
            self.known.update(unknown)
            self.eligible.update(row["id"].bytes for row in rows)


def _ranked(terms: Terms, uses: Mapping[str, Uses]) -> Effects[Ranking]:
    people = _People(set(), set())
    yield from people.get_to_know(terms, uses)
    entries = rank(uses, people.eligible, terms.minimum)
    return Ranking(terms.now_ms, cut(entries, {subject: use.author for subject, use in uses.items()}))


def _strongest(entry: Entry) -> tuple[float, str]:
    return -entry.score, entry.subject
