"""Changes a second that trends count, from Kafka over SQL to Redis: `python -m benchmarks.trends`.

20,000 public posts with one or two of 500 hashtags wait in `cdc.posts` before the flow starts, and 100,000 likes of
them by 5,000 people in `cdc.likes`. A post's likes in a batch are one call, and so are a hashtag's posts; the database
is asked once a batch for posts that are gone, and once for the hashtags of those that came. The ceiling is the sink's
own work alone: the same commands of rows that are ready, recorded beforehand in batches of the flow's size, and
pipelined by our own sender, before and after, into a Redis without any uses. Meanwhile the flow ranks what trends, for
a tenth of its time at most; that is not in the ceiling.

`query_share` is the share of the flow's time that the same queries take alone, `making_share` the one of making the
commands. In the end every hashtag's uses, and those of every tenth post, must equal the database.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any
from uuid import UUID

from audit.stores import Stores
from audit.trends import check_posts, check_tags
from benchmarks.flow_runs import Payload, Recording, beside_ceiling, must_equal
from benchmarks.own_stack import migrated_stack
from benchmarks.records import LIKES_SCHEMA, POSTS_SCHEMA, ChangeLog, Connection, Row, copy, post_row, write_changes
from benchmarks.report import finish, run_benchmark
from connectors.kafka_source import BATCH_RECORDS
from dataflows.effects import Performer
from fanline.database import connect
from fanline.ids import TimeOrderedIds
from fanline.settings import Settings
from readmodels import trend_marks, trends
from readmodels.effects import Effects

PEOPLE, HASHTAGS, NUMBER, LIKES_EACH = 5_000, 500, 20_000, 5

Change = tuple[str, Row]
"""A table and a row of it."""


def main() -> dict[str, Any]:
    """The benchmark."""
    people = [UUID(int=number + 1) for number in range(PEOPLE)]
    with migrated_stack("postgres,valkey,kafka,registry") as (environment, settings):
        performer = Performer(settings, "benchmark")
        before_uses = count_nothing(performer)
        posts, likes = made_up(people)
        with connect(settings, autocommit=True) as connection:
            write_rows(connection, people, posts, likes)
            log = ChangeLog(connection)
            write_changes("cdc.posts", POSTS_SCHEMA, ((str(row["id"]), log.change(row)) for row in posts))
            keyed = ((f"{row['user_id']}{row['post_id']}", log.change(row)) for row in likes)
            write_changes("cdc.likes", LIKES_SCHEMA, keyed)
        recording = record(performer, posts, likes)
        figures = beside_ceiling(
            "trends", ["cdc.posts", "cdc.likes"], environment, performer, before_uses, recording,
            lambda: check(settings, [row["id"] for row in posts]),
        )  # fmt: skip
        performer.close()
    return finish("trends", unit="changes/s", likes=len(likes), posts=NUMBER, hashtags=HASHTAGS, **figures)


def count_nothing(performer: Performer) -> list[Payload]:
    """Marks that everything is counted, while there is nothing, as the flow does at its first start; the commands."""
    recording = Recording(performer)
    place: trend_marks.Place | None = recording.run(trend_marks.begin(now_ms()))
    while place is not None:
        place = recording.run(trend_marks.go_on(place, now_ms()))
    return recording.payloads


def made_up(people: Sequence[UUID]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of posts and of likes, as their changes have them."""
    ids, now = TimeOrderedIds(), datetime.now(UTC).isoformat()
    posts = [post_row(ids.next(), people[number % PEOPLE], now) for number in range(NUMBER)]
    likes = [
        {"user_id": str(people[(number * 3 + step + 1) % PEOPLE]), "post_id": row["id"], "created_at": now}
        for step in range(LIKES_EACH)
        for number, row in enumerate(posts)
    ]
    return posts, likes


def hashtags_of(number: int) -> set[int]:
    """The hashtags of post `number`: few have many posts."""
    share = number * 7919 % NUMBER / NUMBER
    return {int(HASHTAGS * share**2), number % HASHTAGS if number % 2 else int(HASHTAGS * share**2)}


def write_rows(connection: Connection, people: Sequence[UUID], posts: Sequence[Row], likes: Sequence[Row]) -> None:
    """People, posts with hashtags, and likes."""
    copy(connection, "users (id, username)", ((person, f"p{number}") for number, person in enumerate(people)))
    rows = ((row["id"], row["author_id"], "Hello.", row["created_at"]) for row in posts)
    copy(connection, "posts (id, author_id, text, created_at)", rows)
    names = [UUID(int=number + 1) for number in range(HASHTAGS)]
    copy(connection, "hashtags (id, name)", ((name, f"tag{number}") for number, name in enumerate(names)))
    tagged = ((row["id"], names[each]) for number, row in enumerate(posts) for each in hashtags_of(number))
    copy(connection, "post_hashtags (post_id, hashtag_id)", tagged)
    columns = ("user_id", "post_id", "created_at")
    copy(connection, "likes (user_id, post_id, created_at)", ([row[name] for name in columns] for row in likes))
    connection.execute("VACUUM ANALYZE")


def mixed(posts: Sequence[Row], likes: Sequence[Row]) -> Iterator[Change]:
    """Posts and likes in turn, as the flow reads both topics."""
    turns = [likes[step::LIKES_EACH] for step in range(LIKES_EACH)]
    for post, *liked in zip_longest(posts, *turns):
        yield "posts", post
        yield from (("likes", like) for like in liked)


def record(performer: Performer, posts: Sequence[Row], likes: Sequence[Row]) -> Recording:
    """What the flow makes of the changes."""
    recording, changes = Recording(performer), list(mixed(posts, likes))
    for start in range(0, len(changes), BATCH_RECORDS):
        recording.run(apply(changes[start : start + BATCH_RECORDS]))
    return recording


def apply(changes: Sequence[Change]) -> Effects[None]:
    """What the flow does with a batch."""
    now = now_ms()
    yield from trends.apply(trends.Changes((trends.fact(table, "c", row, now) for table, row in changes), now))


def check(settings: Settings, posts: Sequence[int]) -> None:
    """Raises unless what was counted equals the database."""
    stores = Stores(settings)
    try:
        must_equal("hashtags", check_tags(stores, [f"tag{number}" for number in range(HASHTAGS)]))
        must_equal("posts", check_posts(stores, posts[::10]))
    finally:
        stores.close()


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    run_benchmark(main)
