"""Follows a second of the followers flow, from Kafka to Redis: `python -m benchmarks.followers`.

10,000 people follow 10 others each; the 100,000 follows wait in `cdc.follows` before the flow starts. The one who has
most followers has some 1,000. One person in ten reads: their timeline is warm, and gets the five recent posts of
everybody whom they begin to follow. The ceiling is the same commands and calls of Functions, recorded beforehand in
batches of the flow's size, and pipelined by our own sender alone, before and after, from the same state of Redis. In
the end followers and warm timelines of a sample must equal the database.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from audit.checks import check_followers, check_timelines
from audit.stores import Stores
from benchmarks.flow_runs import Payload, Recording, beside_ceiling, must_equal
from benchmarks.own_stack import migrated_stack
from benchmarks.records import FOLLOWS_SCHEMA, ChangeLog, Connection, copy, write_changes
from benchmarks.report import finish, run_benchmark
from connectors.kafka_source import BATCH_RECORDS
from dataflows.effects import Performer, limits
from fanline.database import connect
from fanline.ids import TimeOrderedIds
from fanline.settings import Settings
from readmodels import followers, readiness, timelines
from readmodels.effects import command
from readmodels.followers import Edge
from readmodels.following import apply_edges

PEOPLE, FOLLOWED, POSTS_EACH = 10_000, 10, 5
READERS = PEOPLE // 10
SAMPLE = 200
DAY_SECONDS = 86_400
TOPIC = "cdc.follows"

Follow = tuple[UUID, UUID]
"""Who follows, and whom."""


def main() -> dict[str, Any]:
    """The benchmark."""
    people = [UUID(int=number + 1) for number in range(PEOPLE)]
    follows = made_up(people)
    with migrated_stack("postgres,valkey,kafka,registry") as (environment, settings):
        performer = Performer(settings, "benchmark")
        with connect(settings, autocommit=True) as connection:
            write_people(connection, people)
            before_follows = prepare(performer, settings, people)
            write_follows(connection, follows)
        recording = record(performer, settings, follows)
        figures = beside_ceiling(
            "followers", [TOPIC], environment, performer, before_follows, recording, lambda: check(settings, people)
        )
        performer.close()
    return finish("followers", unit="follows/s", people=PEOPLE, **figures)


def made_up(people: Sequence[UUID]) -> list[Follow]:
    """Follows in no order; few people have many followers, and most have few."""
    dice = random.Random(1)
    follows = []
    for person in people:
        followed: set[UUID] = set()
        while len(followed) < FOLLOWED:
            author = people[int(PEOPLE * dice.random() ** 2)]
            if author != person:
                followed.add(author)
        follows += [(person, author) for author in sorted(followed)]
    dice.shuffle(follows)
    return follows


def write_people(connection: Connection, people: Sequence[UUID]) -> None:
    """People and their recent posts."""
    copy(connection, "users (id, username)", ((person, f"p{number}") for number, person in enumerate(people)))
    ids = TimeOrderedIds()
    posts = ((ids.next(), person, "Hello.") for person in people for _ in range(POSTS_EACH))
    copy(connection, "posts (id, author_id, text)", posts)
    connection.execute("VACUUM ANALYZE")


def prepare(performer: Performer, settings: Settings, people: Sequence[UUID]) -> list[Payload]:
    """Makes Redis as it is before anybody follows: everybody's recent posts, and readers' timelines; its commands."""
    recording, kept = Recording(performer), limits(settings)
    rebuild = readiness.rebuild(kept.followers_chunk, kept.celebrity_threshold, kept.timeline_cap)
    generation = recording.run(rebuild)
    warm_seconds = settings.timeline_warm_days * DAY_SECONDS
    for reader in people[:: PEOPLE // READERS]:
        recording.run(timelines.build(reader, generation, kept.timeline_cap, warm_seconds))
    return recording.payloads


def write_follows(connection: Connection, follows: Sequence[Follow]) -> None:
    """The follows in the database and in Kafka."""
    copy(connection, "follows (follower_id, followee_id)", follows)
    connection.execute("VACUUM ANALYZE follows")
    log, now = ChangeLog(connection), datetime.now(UTC).isoformat()

    def changes() -> Iterator[tuple[str, dict[str, Any]]]:
        for follower, followee in follows:
            row = {"follower_id": str(follower), "followee_id": str(followee), "show_reblogs": True, "notify": False}
            yield f"{follower}{followee}", log.change(row | {"created_at": now})

    write_changes(TOPIC, FOLLOWS_SCHEMA, changes())


def record(performer: Performer, settings: Settings, follows: Sequence[Follow]) -> Recording:
    """What the flow makes of the follows."""
    recording, kept, partitions = Recording(performer), limits(settings), settings.kafka_partitions
    edges = [
        Edge(follower, followee, True, number % partitions, (number + 1, number + 1))
        for number, (follower, followee) in enumerate(follows)
    ]
    for start in range(0, len(edges), BATCH_RECORDS):
        recording.run(apply_edges(edges[start : start + BATCH_RECORDS], kept))
    return recording


def check(settings: Settings, people: Sequence[UUID]) -> None:
    """Raises unless every follow was counted once, and a sample equals the database."""
    stores = Stores(settings)
    try:
        counts = stores.redis([command(followers.facts_key(person), b"HGET", b"followers") for person in people])
        applied = sum(int(count or 0) for count in counts)
        if applied != PEOPLE * FOLLOWED:
            raise RuntimeError(f"{applied} follows were applied, not {PEOPLE * FOLLOWED}")
        # Every person of the sample is a reader.
        sample = people[:: PEOPLE // SAMPLE]
        must_equal("followers", check_followers(stores, sample))
        must_equal("timelines", check_timelines(stores, sample))
    finally:
        stores.close()


if __name__ == "__main__":
    run_benchmark(main)
