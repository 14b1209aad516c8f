"""The engagement flow on the whole system: counts and flags equal SQL whatever comes, twice or out of turn."""

import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from audit.engagement import check_counts, check_flags
from audit.stores import Stores
from connectors.applied import AppliedOffsets, Offsets
from connectors.barrier import Barrier
from connectors.kafka_clients import client_config, producer_config
from fanline.addresses import public_url
from fanline.database import connect
from fanline.ids import TimeOrderedIds
from readmodels import documents, incremental
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.flags import FLAGS
from readmodels.poll_documents import POLL
from tests.conftest import Stack

PEOPLE, POSTS, STATEMENTS = 25, 6, 150
WITHIN_SECONDS = 60.0


@dataclass
class Crowd:
    """Some people and posts of one test, and ways to look at what is kept of them."""

    stack: Stack
    connection: psycopg.Connection[Any]
    stores: Stores
    people: list[UUID]
    posts: list[int]

    def run(self, sql: str, *parameters: object) -> None:
        self.connection.execute(sql.encode(), parameters)

    def settle(self, *flows: str) -> None:
        """Returns when the flow, and others, have applied everything that is committed."""
        with Barrier(self.stack.settings, ["engagement", *flows]) as barrier:
            barrier.wait(WITHIN_SECONDS)

    def values(self) -> dict[bytes, bytes | None]:
        keys = [STATUS_COUNTS.key(post) for post in self.posts]
        keys += [kind.key(person) for person in self.people for kind in (ACCOUNT_COUNTS, FLAGS)]
        commands = [incremental.command(key, b"GET") for key in keys]
        return dict(zip(keys, self.stores.redis(commands), strict=True))

    def watch_flags(self) -> None:
        """Loads everybody's flags, as reading does."""
        self.stores.drive(incremental.fill([(FLAGS, person) for person in self.people]))

    def assert_equal_to_sql(self) -> None:
        """Every count is there and as many as the rows; so are the flags of those who read."""
        of_posts = check_counts(STATUS_COUNTS)(self.stores, self.posts)
        of_people = check_counts(ACCOUNT_COUNTS)(self.stores, self.people)
        of_viewers = check_flags(self.stores, self.people)
        for found in (of_posts, of_people, of_viewers):
            missing = [subject for subject, difference in found.items() if difference is None]
            assert missing == [], "not kept"
            assert {subject: str(difference) for subject, difference in found.items() if difference} == {}


@pytest.fixture
def crowd(system: Stack) -> Iterator[Crowd]:
    people = [uuid4() for _ in range(PEOPLE)]
    ids = TimeOrderedIds()
    posts = [ids.next() for _ in range(POSTS)]
    stores = Stores(system.settings)
    with connect(system.settings, autocommit=True) as connection:
        found = Crowd(system, connection, stores, people, posts)
        with connection.cursor() as cursor:
            cursor.executemany(
                b"INSERT INTO users (id, username) VALUES (%s, %s)",
                [(person, f"engaged_{person.hex[:12]}") for person in people],
            )
            cursor.executemany(
                b"INSERT INTO posts (id, author_id, text) VALUES (%s, %s, 'Like me')",
                [(post, people[number]) for number, post in enumerate(posts)],
            )
            cursor.executemany(
                b"INSERT INTO follows (follower_id, followee_id) VALUES (%s, %s)",
                [(person, people[number - 1]) for number, person in enumerate(people)],
            )
        found.settle()
        found.watch_flags()
        yield found
        found.run("DELETE FROM users WHERE id = ANY(%s)", people)
    stores.close()


class Storm:
    """Threads that like and unlike the same few posts, in transactions that overlap and in COPYs."""

    def __init__(self, crowd: Crowd, statements: int = STATEMENTS) -> None:
        self._crowd, self._statements = crowd, statements
        self._threads = [threading.Thread(target=self._blow, args=(seed,)) for seed in range(3)]

    def __enter__(self) -> "Storm":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def _blow(self, seed: int) -> None:
        dice = random.Random(seed)
        people, posts = self._crowd.people, self._crowd.posts
        ids = TimeOrderedIds()
        with connect(self._crowd.stack.settings, autocommit=True) as connection:
            for _ in range(self._statements):
                person, other, post = dice.choice(people), dice.choice(people), dice.choice(posts[:3])
                match dice.randrange(8):
                    case 0:
                        with connection.transaction():
                            for each in dice.sample(people, 3):
                                connection.execute(LIKE, (each, post))
                                connection.execute(UNLIKE, (each, dice.choice(posts[:-1])))
                    case 1 | 2 | 3:
                        connection.execute(LIKE, (person, post))
                    case 4:
                        connection.execute(UNLIKE, (person, post))
                    case 5:
                        connection.execute(BOOKMARK, (person, post))
                    case 6:
                        connection.execute(
                            b"INSERT INTO posts (id, author_id, repost_of_id, in_reply_to_id, in_reply_to_account_id)"
                            b" VALUES (%s, %s, NULL, %s, %s)",
                            (ids.next(), person, post, other),
                        )
                    case 7:
                        connection.execute(REPOST, (ids.next(), person, post))


LIKE = b"INSERT INTO likes (user_id, post_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"
UNLIKE = b"DELETE FROM likes WHERE (user_id, post_id) = (%s, %s)"
BOOKMARK = b"INSERT INTO bookmarks (user_id, post_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"
VOTE = b"INSERT INTO poll_votes (poll_id, voter_id, position) VALUES (%s, %s, %s)"
REPOST = b"INSERT INTO posts (id, author_id, repost_of_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"


def test_a_storm_of_likes_and_unlikes_is_counted_exactly(crowd: Crowd) -> None:
    copied = "COPY likes (user_id, post_id) FROM STDIN"
    with Storm(crowd), crowd.connection.cursor() as cursor, cursor.copy(copied) as copy:
        # Rows of one COPY share a place in the log.
        for person in crowd.people:
            copy.write_row((person, crowd.posts[-1]))
    crowd.settle()
    crowd.assert_equal_to_sql()
    likes = int.from_bytes((incremental.body(crowd.values()[STATUS_COUNTS.key(crowd.posts[-1])]) or b"")[8:12])
    assert likes == PEOPLE


def test_changes_that_come_by_the_hundred_are_counted_exactly(crowd: Crowd) -> None:
    everybody = (crowd.people, crowd.posts)
    for table in ("likes", "bookmarks"):
        crowd.run(
            f"INSERT INTO {table} (user_id, post_id) SELECT person, post FROM unnest(%s::uuid[]) person,"
            " unnest(%s::bigint[]) post ON CONFLICT DO NOTHING",
            *everybody,
        )
    crowd.run(
        "INSERT INTO follows (follower_id, followee_id) SELECT one, other FROM unnest(%s::uuid[]) one,"
        " unnest(%s::uuid[]) other WHERE one <> other ON CONFLICT DO NOTHING",
        crowd.people,
        crowd.people,
    )
    crowd.settle()
    crowd.assert_equal_to_sql()
    crowd.run("DELETE FROM likes WHERE user_id = ANY(%s)", crowd.people[::2])
    crowd.run("DELETE FROM follows WHERE follower_id = ANY(%s)", crowd.people[::3])
    crowd.settle()
    crowd.assert_equal_to_sql()


def test_a_storm_of_votes_on_one_poll_is_counted_exactly_though_its_flow_is_killed(crowd: Crowd) -> None:
    poll = crowd.posts[0] + 1
    crowd.run("INSERT INTO polls (id, post_id, multiple) VALUES (%s, %s, true)", poll, crowd.posts[0])
    crowd.run("INSERT INTO poll_options SELECT %s, position, position::text FROM generate_series(0, 3) position", poll)
    crowd.settle("cards")
    crowd.stores.drive(documents.fill([(POLL, poll)], public_url(crowd.stack.settings)))

    def vote(part: int) -> None:
        dice = random.Random(part)
        with connect(crowd.stack.settings, autocommit=True) as connection:
            for _ in range(60):
                voter = dice.choice(crowd.people[part::3])
                connection.execute(b"DELETE FROM poll_votes WHERE (poll_id, voter_id) = (%s, %s)", (poll, voter))
                for position in dice.sample(range(4), dice.randrange(4)):
                    connection.execute(VOTE, (poll, voter, position))

    threads = [threading.Thread(target=vote, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    crowd.stack.kill("cards", signal.SIGKILL)
    for thread in threads:
        thread.join()
    crowd.settle("cards")
    [(voters, votes)] = crowd.connection.execute(
        b"SELECT count(DISTINCT voter_id), count(*) FROM poll_votes WHERE poll_id = %s", (poll,)
    ).fetchall()
    row = msgspec.json.decode(documents.body(crowd.stores.redis([documents.read((POLL, poll))])[0]) or b"")
    assert (row["voters_count"], sum(option["votes_count"] for option in row["options"])) == (voters, votes)
    assert votes > voters > 0
    crowd.assert_equal_to_sql()


def test_values_that_are_lost_in_a_storm_come_back_exact(crowd: Crowd) -> None:
    with Storm(crowd):
        for _ in range(30):
            keys = [STATUS_COUNTS.key(crowd.posts[0]), ACCOUNT_COUNTS.key(crowd.people[0]), FLAGS.key(crowd.people[1])]
            crowd.stores.redis([incremental.forget(key) for key in keys])
            crowd.stores.drive(incremental.fill([(STATUS_COUNTS, crowd.posts[0]), (FLAGS, crowd.people[1])]))
    crowd.settle()
    crowd.watch_flags()
    crowd.assert_equal_to_sql()


def test_a_flow_that_is_killed_in_a_storm_counts_nothing_twice(crowd: Crowd) -> None:
    with Storm(crowd):
        crowd.stack.kill("engagement", signal.SIGKILL)
    crowd.settle()
    crowd.assert_equal_to_sql()


def test_records_that_come_twice_and_a_replay_of_everything_change_no_byte(crowd: Crowd) -> None:
    topics = AppliedOffsets(crowd.stack.settings, "fanline-test")
    starts = topics.ends(topics.partitions(["cdc.likes"]))
    with Storm(crowd, statements=40):
        pass
    crowd.settle()
    before = crowd.values()
    assert send_again(crowd.stack, starts) > 40
    crowd.settle()
    assert crowd.values() == before
    crowd.stack.fanline("dataflows", "stop", "engagement")
    try:
        crowd.stack.fanline("offsets", "reset", "engagement", "--to", "earliest", "--yes")
    finally:
        crowd.stack.fanline("dataflows", "start", "engagement")
    crowd.settle()
    assert crowd.values() == before
    crowd.assert_equal_to_sql()


def send_again(stack: Stack, starts: Offsets) -> int:
    """Writes what topics have got since once more behind it, to the same partitions; how many records these were."""
    consumer = Consumer(
        client_config(stack.settings, "fanline-test")
        | {"group.id": "fanline-test", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    producer = Producer(producer_config(stack.settings, "fanline-test"))
    sent = 0
    try:
        left = set(starts)
        consumer.assign([TopicPartition(*place, offset) for place, offset in starts.items()])
        while left:
            message = consumer.poll(10)
            assert message is not None
            place = (message.topic(), message.partition())
            if message.error() is not None:
                left.discard(place)
                consumer.incremental_unassign([TopicPartition(*place)])
                continue
            producer.produce(message.topic(), message.value(), message.key(), partition=message.partition())
            sent += 1
        assert producer.flush(30) == 0
    finally:
        consumer.close()
    return sent


def test_a_deleted_post_and_a_deleted_person_leave_no_count(crowd: Crowd) -> None:
    with Storm(crowd, statements=40):
        crowd.run("DELETE FROM posts WHERE id = %s", crowd.posts[-1])
    person = crowd.people[-1]
    crowd.run("DELETE FROM users WHERE id = %s", person)
    crowd.settle()
    values = crowd.values()
    assert values[STATUS_COUNTS.key(crowd.posts[-1])] == incremental.GONE
    assert values[ACCOUNT_COUNTS.key(person)] == values[FLAGS.key(person)] == incremental.GONE
    crowd.posts.pop()
    crowd.people.pop()
    crowd.assert_equal_to_sql()
