"""Notifications a second of one worker, from Kafka to rows: `python -m benchmarks.notifications`.

People like posts; the events wait in `engagement.recorded` before the worker starts, so that it is never short of work.
Each notification is looked up (is the like still there, what do both people and their policies say), stored, and told
of in the outbox, in one transaction a batch. The ceiling is the sink's own work alone: the same INSERTs of rows and
events that were prepared, by psycopg, in batches of the same size on the same server, before and after.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from benchmarks.flow_runs import metric, metrics_url, must_run, running
from benchmarks.own_stack import migrated_stack
from benchmarks.records import copy, write_events
from benchmarks.report import finish, run_benchmark
from connectors.kafka_source import BATCH_RECORDS
from fanline.database import connect
from fanline.ids import TimeOrderedIds
from readmodels import notification_queries as queries
from readmodels import notification_rows as rows
from readmodels.effects import Query, drive
from readmodels.notification_rules import Look
from schemas.registry import EventEncoder, encoder

PEOPLE = 2_000
POSTS = 4_000
LIKES = 60_000
LIKES_A_POST = LIKES // POSTS
# The last ones are not counted: the worker is then no longer full.
MEASURED = LIKES - 5_000
# Ten likes a millisecond. Were they all of one moment, they would compete for the ids of one millisecond.
BETWEEN_LIKES = timedelta(microseconds=100)
# Being asked costs the worker some milliseconds.
LOOK_SECONDS = 0.25
PARTITIONS = {"FANLINE_KAFKA_PARTITIONS": "1"}
FLOW = "notifications"

Like = tuple[UUID, int, UUID]
"""Who, which post, and whose it is."""


def main() -> dict[str, Any]:
    """The benchmark."""
    with migrated_stack("postgres,kafka,registry", PARTITIONS) as (environment, settings):
        encode = encoder(settings)
        with connect(settings, autocommit=True) as connection:
            batches = prepared(connection, encode, prepare(connection, encode))
            before = ceiling(connection, batches)
            clear(connection)
            rate = store(environment)
            after = ceiling(connection, batches)
    return finish(
        "notifications", value=round(rate), unit="notifications/s", ceiling=round((before + after) / 2),
        ceiling_by="the same INSERTs, prepared, by psycopg", ceilings=[round(before), round(after)],
    )  # fmt: skip


def prepare(connection: psycopg.Connection[Any], encode: EventEncoder) -> list[Like]:
    """People, posts, likes, and the events of the likes in the outbox and in Kafka."""
    people = [uuid4() for _ in range(PEOPLE)]
    copy(connection, "users (id, username)", [(person, f"p{number}") for number, person in enumerate(people)])
    ids = TimeOrderedIds()
    posts = [(ids.next(), people[number % PEOPLE], "Hello.") for number in range(POSTS)]
    copy(connection, "posts (id, author_id, text)", posts)
    likes = [
        (people[(number + 1 + step * 7) % PEOPLE], post, author)
        for step in range(LIKES_A_POST)
        for number, (post, author, _) in enumerate(posts)
    ]
    first = datetime.now(UTC) - LIKES * BETWEEN_LIKES
    rows_of_likes = [(who, post, first + number * BETWEEN_LIKES) for number, (who, post, _) in enumerate(likes)]
    copy(connection, "likes (user_id, post_id, created_at)", rows_of_likes)
    write_events(connection, encode, "engagement.recorded", ((str(like[1]), event(*like)) for like in likes))
    connection.execute("ANALYZE")
    return likes


def event(who: UUID, post: int, author: UUID) -> dict[str, Any]:
    """The event of a like."""
    return {
        "post_id": str(post),
        "post_author_id": str(author),
        "account_id": str(who),
        "kind": "favourite",
        "undone": False,
        "occurred_at": time.time_ns() // 1_000_000,
    }


def store(environment: Mapping[str, str]) -> float:
    """Runs the flow until everything is stored; notifications a second from the first ones on."""
    seen: list[tuple[float, float]] = []
    with running(FLOW, environment) as flow:
        while not seen or seen[-1][1] < LIKES:
            must_run(flow)
            found = metric(metrics_url(FLOW, environment), "fanline_notifications_total")
            if found:
                seen.append((time.perf_counter(), found))
            time.sleep(LOOK_SECONDS)
    started, first = seen[0]
    ended, last = next((moment, found) for moment, found in seen if found >= MEASURED)
    return (last - first) / (ended - started)


def prepared(connection: psycopg.Connection[Any], encode: EventEncoder, likes: Sequence[Like]) -> list[list[Query]]:
    """The INSERTs that the flow makes of the likes, a list a batch."""
    batches: list[list[Query]] = []

    def answer(query: Query) -> list[dict[str, Any]]:
        if query.sql not in (queries.INSERT, queries.INSERT_EVENTS):
            return cursor.execute(query.sql.encode(), query.parameters).fetchall()
        batches[-1].append(query)
        return [{"id": identifier} for identifier in query.parameters.get("id", ())]

    with connection.cursor(row_factory=dict_row) as cursor:
        for start in range(0, LIKES, BATCH_RECORDS):
            batches.append([])
            look = Look(favourites={(who, post) for who, post, _ in likes[start : start + BATCH_RECORDS]})
            drive(rows.record(look, (), encode.encode), lambda _: None, answer)
    return batches


def ceiling(connection: psycopg.Connection[Any], batches: Sequence[Sequence[Query]]) -> float:
    """Notifications a second that the database takes of them, one connection and a transaction a batch."""
    clear(connection)
    started = time.perf_counter()
    for batch in batches:
        with connection.transaction():
            for query in batch:
                connection.execute(query.sql.encode(), query.parameters)
    return LIKES / (time.perf_counter() - started)


def clear(connection: psycopg.Connection[Any]) -> None:
    """Nobody has been told of anything."""
    connection.execute("TRUNCATE notifications CASCADE")
    connection.execute("DELETE FROM outbox WHERE type = 'notification.dispatched'")
    connection.execute("VACUUM ANALYZE outbox, notifications")


if __name__ == "__main__":
    run_benchmark(main)
