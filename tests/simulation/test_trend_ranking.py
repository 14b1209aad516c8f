"""Seeded uses of hashtags and posts in a real Valkey: its rankings are those of the rows, whatever the limits are."""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from uuid import UUID

import pytest

from fanline.ids import created_ms, first_id_at
from readmodels import trend_ranking, trend_uses, trends
from readmodels.effects import Effects, Query, Redis, drive
from readmodels.trend_ranking import Entry, Ranking, Terms, posts_oracle, rank_posts, rank_tags, tags_oracle
from readmodels.trend_uses import DAY_MS, HOUR_MS, POST, TAG
from readmodels.trends import Changes, Fact, PostUse
from tests.simulation.test_counts import WIPE, Execute

SEEDS = int(os.environ.get("FANLINE_SIMULATION_SEEDS", "1000")) // 10
NOW_MS = 20_000 * DAY_MS + 15 * HOUR_MS
PEOPLE = [UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128)) for number in range(6_000)]
Rows = list[dict[str, Any]]


@dataclass
class World:
    """What people have done by now, in rows and in Redis."""

    redis: Execute
    silenced: set[UUID] = field(default_factory=set)
    authors: dict[int, UUID] = field(default_factory=dict)
    """Posts that may trend."""
    tagged: dict[int, tuple[UUID, frozenset[str]]] = field(default_factory=dict)
    used: dict[tuple[int, bytes], int] = field(default_factory=dict)
    serial: int = 0

    def do(self, post: int, person: UUID, ms: int, *, answer: bool = False) -> None:
        """A favourite or an answer."""
        self.serial += 1
        use = trend_uses.use(person.bytes, first_id_at(ms) + self.serial % 65_536 if answer else 0)
        self.used[post, use] = ms

    def tag(self, person: UUID, ms: int, *names: str) -> None:
        """A post with hashtags."""
        self.serial += 1
        self.tagged[first_id_at(ms) + self.serial % 65_536] = person, frozenset(names)

    def count(self) -> None:
        """What the flow does with all of it."""
        facts = [Fact([PostUse(post, use, ms)]) for (post, use), ms in self.used.items()]
        self.run(trends.apply(Changes([*facts, *(Fact(tagged=post) for post in self.tagged)], NOW_MS)))

    def undo(self, dice: random.Random) -> None:
        """Some of it is taken back, or was done at another time."""
        facts = []
        for place in dice.sample(sorted(self.used), len(self.used) // 4):
            post, use = place
            if len(use) == trend_uses.ACCOUNT_BYTES and dice.random() < 0.5:
                self.used[place] -= dice.randrange(12) * HOUR_MS
                facts.append(Fact([PostUse(post, use, self.used[place])]))
            else:
                del self.used[place]
                facts.append(Fact([PostUse(post, use, None)]))
        for post in dice.sample(sorted(self.tagged), len(self.tagged) // 4):
            del self.tagged[post]
            facts.append(Fact(tagged=post))
        self.run(trends.apply(Changes(facts, NOW_MS)))

    def run(self, effects: Effects[Any]) -> Any:
        return drive(effects, self.redis, self.answer)

    def answer(self, query: Query) -> Rows:
        given = query.parameters
        match query.sql:
            case trends.POSTS_THERE:
                return [{"id": post} for post in given["ids"]]
            case trends.TAGGED_BY_ID:
                found = ((post, self.tagged[post]) for post in given["ids"] if post in self.tagged)
                return [{"id": post, "author_id": author, "tags": sorted(names)} for post, (author, names) in found]
            case trend_ranking.ELIGIBLE:
                return [{"id": account} for account in given["ids"] if account not in self.silenced]
            case trend_ranking.POSTS_THAT_MAY:
                return [{"id": post, "author_id": self.authors[post]} for post in given["ids"] if post in self.authors]
            case trends.ALL_POST_USES:
                rows = ((post, use, ms) for (post, use), ms in self.used.items() if first_id_at(ms) >= given["first"])
                return [{"post_id": post, **_row(use), "ms": ms} for post, use, ms in rows]
            case trend_ranking.TAG_USES:
                return list(self._tag_uses(**given))
            case trends.TAG_HISTORY:
                days = self._by_name(given["first"], lambda post: created_ms(post) // DAY_MS)
                return [
                    {"name": name, "day": day, "uses": len(uses), "accounts": len(set(uses))}
                    for (name, day), uses in days.items()
                ]
        raise AssertionError(query.sql)

    def _by_name(self, first: int, part: Any) -> dict[tuple[str, Any], list[UUID]]:
        found: dict[tuple[str, Any], list[UUID]] = {}
        for post, (author, names) in self.tagged.items():
            for name in names if post >= first else ():
                found.setdefault((name, part(post)), []).append(author)
        return found

    def _tag_uses(self, first: int, minimum: int) -> Iterator[dict[str, Any]]:
        newest: dict[str, dict[UUID, int]] = {}
        for (name, ms), accounts in sorted(self._by_name(first, created_ms).items(), key=lambda item: item[0][1]):
            newest.setdefault(name, {}).update(dict.fromkeys(accounts, ms))
        for name, people in newest.items():
            if len(people) >= minimum:
                yield {"name": name, "accounts": sorted(people, key=lambda who: (people[who], who.bytes), reverse=True)}


def _row(use: bytes) -> dict[str, Any]:
    return {"account_id": UUID(bytes=use[:16]), "through": int.from_bytes(use[16:])}


@pytest.fixture
def world(redis: Execute) -> World:
    return World(redis)


def rankings(world: World, minimum: int = 2) -> tuple[Ranking, Ranking]:
    """Of hashtags and of posts; SQL says the same."""
    terms = Terms(NOW_MS, minimum, 0)
    tags, posts = world.run(rank_tags(terms)), world.run(rank_posts(terms))
    assert (tags, posts) == (world.run(tags_oracle(terms)), world.run(posts_oracle(terms)))
    return tags, posts


def limits(monkeypatch: pytest.MonkeyPatch, **small: int) -> None:
    for name, value in small.items():
        monkeypatch.setattr(trend_ranking, name, value)


def test_rankings_from_redis_are_those_of_the_rows_beyond_every_limit(
    redis: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, KEPT=4, AT_ONCE=2, MOST_PEOPLE=5)
    monkeypatch.setattr(trend_uses, "AT_ONCE", 7)
    full = 0
    for seed in range(SEEDS):
        redis(WIPE)
        dice, world = random.Random(seed), World(redis)
        people = dice.sample(PEOPLE, 40)
        world.silenced = set(dice.sample(people, dice.randrange(20)))
        posts = {number: dice.choice(people[:3]) for number in range(1, 20)}
        world.authors = {post: author for post, author in posts.items() if dice.random() < 0.9}
        for _ in range(dice.randrange(600)):
            ago = dice.choice((1, 1, 5, 30)) * dice.random() * HOUR_MS
            popular = min(int(dice.paretovariate(0.6)), 19)
            person = dice.choice(people[: dice.choice((5, 20, 40))])
            world.do(popular, person, NOW_MS - int(ago), answer=dice.random() < 0.5)
            names = [f"tag{min(int(dice.paretovariate(0.6)), 19)}" for _ in range(dice.randrange(3))]
            world.tag(person, NOW_MS - int(ago * dice.choice((1, 7))), *names)
        world.count()
        world.count()
        for _ in range(2):
            full += sum(len(ranking.entries) == 4 for ranking in rankings(world))
            world.undo(dice)
    assert full > SEEDS


def test_what_is_always_big_does_not_rise_however_big_it_is(world: World) -> None:
    """Six thousand people a window are more than Redis is asked to list."""
    world.authors = {1: PEOPLE[0], 2: PEOPLE[0]}
    for quarter in (*POST.past_blocks(NOW_MS), NOW_MS // POST.block_ms):
        for number, person in enumerate(PEOPLE):
            world.do(1, person, quarter * POST.block_ms + number, answer=True)
    for day in (*TAG.past_blocks(NOW_MS), NOW_MS // DAY_MS):
        for number, person in enumerate(PEOPLE[:3_000]):
            world.tag(person, day * DAY_MS + number, "big", *(["huge"] if number < 1_000 or day == 20_000 else []))
    for person in PEOPLE[:5]:
        world.do(2, person, NOW_MS - HOUR_MS)
    world.count()
    tags, posts = rankings(world)
    # Three times as many people as on the days before, and four where one was expected.
    assert tags.entries == [Entry("huge", 4_000.0, 3_000)]
    assert posts.entries == [Entry("2", 9.0, 4)]


def test_who_makes_a_thousand_uses_pushes_nobody_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, AT_ONCE=3, MOST_PEOPLE=10)
    crowd, spammers = PEOPLE[10:19], PEOPLE[:2]
    world.authors = dict.fromkeys(range(1, 10), PEOPLE[30])
    for number, person in enumerate(crowd):
        world.do(1, person, NOW_MS - 5 * HOUR_MS + number)
        world.tag(person, NOW_MS - 20 * HOUR_MS + number, "real")
    for number in range(1_000):
        for post in (1, *range(2, 10)):
            world.do(post, spammers[number % 2], NOW_MS - HOUR_MS + number, answer=True)
        spam = [f"spam{each}" for each in range(30)]
        world.tag(spammers[number % 2], NOW_MS - HOUR_MS + number, "real", *spam)
    world.count()
    tags, posts = rankings(world, minimum=3)
    assert [entry.subject for entry in tags.entries] == ["real"]
    assert [(entry.subject, entry.accounts) for entry in posts.entries] == [("1", 11)]


def test_of_people_who_do_not_count_there_may_be_more_than_are_ranked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, AT_ONCE=3, KEPT=2)
    world.silenced = set(PEOPLE[:9])
    for name in (f"spam{each}" for each in range(40)):
        for person in PEOPLE[:9]:
            world.tag(person, NOW_MS - HOUR_MS, name)
    for person in PEOPLE[10:14]:
        world.tag(person, NOW_MS - HOUR_MS, "real")
    world.count()
    assert rankings(world)[0].entries == [Entry("real", 9.0, 4)]


def test_one_authors_posts_leave_room_for_those_of_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, AT_ONCE=2, KEPT=4)
    ada, bob = PEOPLE[:2]
    world.authors = {post: ada if post < 9 else bob for post in range(1, 11)}
    for post in world.authors:
        for person in PEOPLE[10 : 30 - post]:
            world.do(post, person, NOW_MS - HOUR_MS)
    world.count()
    assert [entry.subject for entry in rankings(world)[1].entries] == ["1", "2", "3", "9"]


def test_reading_a_hashtag_reads_none_of_its_uses(world: World) -> None:
    for number in range(50):
        world.tag(PEOPLE[number % 4], NOW_MS - number, "hot")
    world.count()
    sent: list[bytes] = []

    def redis(batch: Redis) -> list[Any]:
        sent.extend(each.data for each in batch.commands)
        return world.redis(batch)

    today = NOW_MS // DAY_MS
    found: Mapping[str, Mapping[int, trends.Use]] = drive(trends.read_history(["hot"], today), redis, world.answer)
    assert found == {"hot": {today: trends.Use(50, 4)}}
    assert {_name(each) for each in sent} == {b"ZCARD", b"SCARD"}


def test_what_lists_people_lists_no_more_than_it_is_asked_for(world: World) -> None:
    for number, person in enumerate(PEOPLE[:100]):
        world.do(1, person, NOW_MS - number)
    world.count()
    for most in (1, 7, 99, 100, 101):
        ((size, some),) = world.redis(Redis([trend_uses.people(POST, b"1", NOW_MS - HOUR_MS, most)]))
        ordered: Sequence[bytes] = [person.bytes for person in PEOPLE[:100]]
        assert (size, list(map(bytes, some))) == (100, list(trend_uses.sample(ordered, most)))


def _name(data: bytes) -> bytes:
    return next(line for line in chain(data.split(b"\r\n")[2::2]))
