"""Seeded histories over the real database: whatever the order, the duplicates and the crashes, the same rows."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from fanline.avro import AvroDecoder
from fanline.database import connect
from fanline.ids import TimeOrderedIds
from readmodels import notification_rows as rows
from readmodels.effects import Effects, Redis
from readmodels.notification_rules import Look, hints
from schemas.registry import EventEncoder, encoder
from tests.conftest import Stack
from tests.integration.pipeline import decoder

SEEDS = range(4)
STEPS = 80

Shown = tuple[UUID, str, UUID, int | None]
"""Recipient, type, sender and post."""


class Crash(Exception):
    """The process dies."""


@pytest.fixture(scope="module")
def encode(stack: Stack) -> EventEncoder:
    stack.fanline("migrate")
    return encoder(stack.settings)


@pytest.fixture
def connection(stack: Stack, encode: EventEncoder) -> Iterator[psycopg.Connection[Any]]:
    with connect(stack.settings, autocommit=True) as opened:
        yield opened


class World:
    """People who act, what they have done, and the events of it, a topic each."""

    def __init__(self, dice: random.Random, connection: psycopg.Connection[Any]) -> None:
        self.dice, self.connection = dice, connection
        self.ids = TimeOrderedIds()
        self.people = [uuid4() for _ in range(5)]
        for number, person in enumerate(self.people):
            self.sql("INSERT INTO users (id, username) VALUES (%s, %s)", person, f"h{number}_{person.hex[:12]}")
        self.topics: dict[str, list[Mapping[str, Any]]] = {}
        self.posts: dict[int, tuple[UUID, UUID | None]] = {}
        """Author, and who is mentioned."""
        self.likes: set[tuple[UUID, int]] = set()
        self.reposts: dict[tuple[UUID, int], int] = {}
        self.follows: set[tuple[UUID, UUID]] = set()
        ada, bob, eve, joe, _ = self.people
        self.deaf = {(ada, bob), (bob, ada), (eve, joe)}
        self.sql("INSERT INTO blocks (blocker_id, blocked_id) VALUES (%s, %s)", ada, bob)
        self.sql("INSERT INTO mutes (muter_id, muted_id) VALUES (%s, %s)", eve, joe)
        self.fan, self.star = joe, ada
        self.sql("INSERT INTO follows (follower_id, followee_id, notify) VALUES (%s, %s, true)", joe, ada)

    def sql(self, statement: str, *parameters: Any) -> None:
        self.connection.execute(statement.encode(), parameters)

    def emit(self, topic: str, **event: Any) -> None:
        self.topics.setdefault(topic, []).append(event)

    def act(self) -> None:
        who, whom = self.dice.sample(self.people, 2)
        post = self.dice.choice(list(self.posts)) if self.posts else None
        match self.dice.choices(range(5), (25, 35, 20, 20, 4))[0]:
            case 0:
                self.post(who, whom if self.dice.random() < 0.5 else None)
            case 1 if post:
                self.like(who, post)
            case 2 if post:
                self.repost(who, post)
            case 3 if (who, whom) != (self.fan, self.star):
                self.follow(who, whom)
            case 4 if post:
                self.delete(post)

    def post(self, author: UUID, mentioned: UUID | None) -> None:
        post = self.ids.next()
        self.sql("INSERT INTO posts (id, author_id, text) VALUES (%s, %s, 'x')", post, author)
        if mentioned:
            self.sql("INSERT INTO post_mentions (post_id, account_id) VALUES (%s, %s)", post, mentioned)
        self.posts[post] = author, mentioned
        self.emit("post.created", post_id=str(post), repost_of_id=None)

    def like(self, who: UUID, post: int) -> None:
        undone = (who, post) in self.likes
        if undone:
            self.sql("DELETE FROM likes WHERE user_id = %s AND post_id = %s", who, post)
        else:
            self.sql("INSERT INTO likes (user_id, post_id) VALUES (%s, %s)", who, post)
        self.likes ^= {(who, post)}
        self.emit("engagement.recorded", kind="favourite", undone=undone, account_id=str(who), post_id=str(post))

    def repost(self, who: UUID, post: int) -> None:
        made = self.reposts.pop((who, post), None)
        if made is not None:
            self.sql("DELETE FROM posts WHERE id = %s", made)
            self.emit("post.deleted", author_id=str(who), repost_of_id=str(post))
            return
        self.reposts[who, post] = made = self.ids.next()
        self.sql("INSERT INTO posts (id, author_id, repost_of_id) VALUES (%s, %s, %s)", made, who, post)
        self.emit("post.created", post_id=str(made), repost_of_id=str(post))

    def follow(self, who: UUID, whom: UUID) -> None:
        event = {"follower_id": str(who), "followee_id": str(whom)}
        if (who, whom) in self.follows:
            self.sql("DELETE FROM follows WHERE follower_id = %s AND followee_id = %s", who, whom)
            self.emit("follow.deleted", **event)
        else:
            self.sql("INSERT INTO follows (follower_id, followee_id) VALUES (%s, %s)", who, whom)
            self.emit("follow.created", **event)
        self.follows ^= {(who, whom)}

    def delete(self, post: int) -> None:
        self.sql("DELETE FROM posts WHERE id = %s", post)
        del self.posts[post]
        self.likes = {(who, liked) for who, liked in self.likes if liked != post}
        self.reposts = {key: made for key, made in self.reposts.items() if key[1] != post}

    def oracle(self) -> set[Shown]:
        """Who is to be shown what, from what is there now."""
        found: set[Shown] = {(whom, "follow", who, None) for who, whom in self.follows}
        found |= {(self.posts[post][0], "favourite", who, post) for who, post in self.likes}
        found |= {(self.posts[post][0], "reblog", who, post) for who, post in self.reposts}
        found |= {(whom, "mention", author, post) for post, (author, whom) in self.posts.items() if whom}
        found |= {
            (self.fan, "status", author, post)
            for post, (author, whom) in self.posts.items()
            if author == self.star and whom != self.fan
        }
        return {each for each in found if each[0] != each[2] and (each[0], each[2]) not in self.deaf}


class Flow:
    """The flow without Kafka: reads the topics in any order, repeats, and dies at any step of a transaction."""

    def __init__(self, world: World, encode: EventEncoder) -> None:
        self.world, self.encode = world, encode
        self.offsets = Counter[str]()

    def step(self) -> None:
        dice = self.world.dice
        look, ends = Look(), {}
        for topic, events in self.world.topics.items():
            ends[topic] = dice.randint(self.offsets[topic], len(events))
            # Now and then from further back, as after a crash before the offsets were committed.
            for event in events[max(0, self.offsets[topic] - dice.choice((0, 0, 3))) : ends[topic]]:
                look.note(hints(topic, event))
        try:
            self._apply(look, dice.choice((None, None, dice.randrange(8))))
        except Crash:
            return
        if dice.random() < 0.9:
            self.offsets.update({topic: end - self.offsets[topic] for topic, end in ends.items()})

    def replay(self) -> None:
        look = Look()
        for topic, events in self.world.topics.items():
            for event in events:
                look.note(hints(topic, event))
        self._apply(look, None)

    def _apply(self, look: Look, dies_at: int | None) -> None:
        self._transaction(rows.record(look, (), self.encode.encode), dies_at)
        for post, kind in self._transaction(rows.wanted(look), None):
            told = self._transaction(rows.recipients(post, kind, UUID(int=0)), None)
            self._transaction(rows.record(Look(), told, self.encode.encode), dies_at)

    def _transaction(self, effects: Effects[Any], dies_at: int | None) -> Any:
        connection = self.world.connection
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            answer: Any = None
            for step in range(1_000):
                try:
                    wanted = effects.send(answer)
                except StopIteration as stop:
                    return stop.value
                if step == dies_at:
                    raise Crash
                assert not isinstance(wanted, Redis)
                cursor.execute(wanted.sql.encode(), wanted.parameters)
                answer = cursor.fetchall() if cursor.description else []
        raise AssertionError("a transaction that does not end")


def stored(world: World, columns: str, more: str = "") -> list[Any]:
    statement = f"SELECT {columns} FROM notifications WHERE user_id = ANY(%s) {more}"
    return world.connection.execute(statement.encode(), (world.people,)).fetchall()


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_equal_the_oracle_and_each_is_dispatched_once(
    seed: int, connection: psycopg.Connection[Any], encode: EventEncoder, stack: Stack
) -> None:
    dice = random.Random(seed)
    world = World(dice, connection)
    flow = Flow(world, encode)
    for _ in range(STEPS):
        if dice.random() < 0.7:
            world.act()
        else:
            flow.step()
    while any(flow.offsets[topic] < len(events) for topic, events in world.topics.items()):
        flow.step()
    shown = stored(world, "user_id, type, from_account_id, post_id", "AND dismissed_at IS NULL")
    assert sorted(shown, key=str) == sorted(world.oracle(), key=str)
    everything = stored(world, "id, user_id, cause, dismissed_at", "ORDER BY id")
    dispatched = _dispatched(world, decoder(stack.settings))
    assert set(dispatched.values()) <= {1}
    assert {row[0] for row in everything if row[3] is None} <= dispatched.keys()
    for _ in range(2):
        flow.replay()
        assert stored(world, "id, user_id, cause, dismissed_at", "ORDER BY id") == everything
        assert _dispatched(world, decoder(stack.settings)) == dispatched
    # Whatever was dropped stays dropped when those who were hidden are no longer.
    world.sql("DELETE FROM mutes WHERE muter_id = ANY(%s)", world.people)
    world.sql("DELETE FROM blocks WHERE blocker_id = ANY(%s)", world.people)
    flow.replay()
    assert stored(world, "id, user_id, cause, dismissed_at", "ORDER BY id") == everything


def test_notifications_of_one_millisecond_get_ids_of_their_own(
    connection: psycopg.Connection[Any], encode: EventEncoder
) -> None:
    # 3,000 of one moment: among 65,536 ids that many collide some 65 times.
    world = World(random.Random(99), connection)
    ada = world.people[4]
    fans = "INSERT INTO users (id, username) SELECT gen_random_uuid(), 'f' || substr(md5(%s || n), 1, 20)"
    world.sql(f"{fans} FROM generate_series(1, 3000) AS n", str(ada))
    world.sql(
        "INSERT INTO follows (follower_id, followee_id, notify) SELECT id, %s, true FROM users"
        " WHERE username IN (SELECT 'f' || substr(md5(%s || n), 1, 20) FROM generate_series(1, 3000) AS n)",
        ada, str(ada),
    )  # fmt: skip
    world.post(ada, None)
    (post,) = world.posts
    flow = Flow(world, encode)
    after, count = UUID(int=0), 0
    while told := flow._transaction(rows.recipients(post, "status", after), None):
        count += flow._transaction(rows.record(Look(), told, encode.encode), None)
        assert flow._transaction(rows.record(Look(), told, encode.encode), None) == 0
        after = told[-1].user_id
    found = connection.execute("SELECT count(*), max(id) - min(id) FROM notifications WHERE post_id = %s", (post,))
    assert (count, found.fetchall()[0]) == (3000, (3000, pytest.approx(65_536, abs=2 * 65_536)))


def _dispatched(world: World, avro: AvroDecoder) -> Counter[int]:
    statement = b"SELECT payload FROM outbox WHERE type = 'notification.dispatched' AND aggregateid = ANY(%s)"
    payloads = world.connection.execute(statement, ([str(person) for person in world.people],)).fetchall()
    return Counter(int(str(avro.decode(payload)["notification_id"])) for (payload,) in payloads)
