"""Likes a second of the engagement flow, from Kafka to Redis: `python -m benchmarks.engagement`.

1,000,000 likes on 10,000 posts by 100,000 people wait in `cdc.likes` before the flow starts; the counts of the posts
are in Redis, as they are of posts that have been read. The ceiling is the same calls of the same Function, prepared
beforehand and pipelined by our own sender alone, before and after. Then: what Redis keeps for it, how long a flow takes
that was killed and has to go on, how many row changes a core decodes and routes, and what counting the rows of a post
with 100,000 likes costs, which is what each batch of changes would cost without increments.
"""

import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from benchmarks.flow_runs import (
    NoLetters,
    cpu_seconds,
    info,
    metric,
    metrics_url,
    must_run,
    pipelined,
    redis_cpu,
)
from benchmarks.own_stack import own_stack
from benchmarks.records import LIKES_SCHEMA, TRANSACTIONS, as_change, burn, copy, log_end, write_changes
from benchmarks.report import finish, run_benchmark
from benchmarks.servers import valkey
from connectors.decode_runs import RunDecoder
from connectors.messages import Message
from connectors.record_runs import in_runs
from connectors.topics import ensure_topics
from dataflows.effects import Performer
from dataflows.engagement import BATCH_RECORDS, route, route_run
from fanline.avro import AvroDecoder, encode, parse
from fanline.changes import RowChange
from fanline.database import connect
from fanline.migrations_runner import migrate
from fanline.resp import pack
from fanline.settings import get_settings
from readmodels import incremental
from readmodels.applying import Batch, Routed
from readmodels.counts import STATUS_COUNTS, STATUS_COUNTS_SQL
from readmodels.engagement import TOPICS, effects_of

POSTS, PEOPLE, LIKES = 10_000, 100_000, 1_000_000
CEILING_LIKES = 200_000
BATCH = 500
COUNTED_LIKES = 100_000
MISSED = 100
DECODED = 200_000
FLOW = "engagement"
TOPIC = "cdc.likes"


class Likes:
    """Made-up likes with places in the log that come after everything the database has seen."""

    def __init__(self, posts: Sequence[int], transactions: Sequence[int], log_end: int) -> None:
        self._posts, self._transactions, self._log_end = posts, transactions, log_end
        self._dice = random.Random(1)
        self._people = [UUID(int=self._dice.getrandbits(128), version=4) for _ in range(PEOPLE)]
        self._made = 0

    def make(self, number: int) -> Iterator[tuple[UUID, int, int, tuple[int, int]]]:
        """Person, post, transaction and position of some more likes; nobody likes a post twice."""
        for _ in range(number):
            self._made += 1
            person = self._people[self._made % PEOPLE]
            post = self._posts[(self._made * 7 + self._made // PEOPLE) % POSTS]
            transaction = self._transactions[self._made * TRANSACTIONS // (LIKES * 2) % TRANSACTIONS]
            own = self._log_end + 200 * self._made
            yield person, post, transaction, (own - 100, own)


def main() -> dict[str, Any]:
    """The benchmark."""
    with (
        tempfile.TemporaryDirectory() as folder,
        valkey(Path(folder)) as server,
        own_stack("postgres,kafka,registry") as environment,
    ):
        environment = environment | {"FANLINE_REDIS_URL": server.url}
        settings = get_settings().model_copy(update={"redis_url": type(get_settings().redis_url)(server.url)})
        migrate(settings)
        ensure_topics(settings)
        performer = Performer(settings, "benchmark")
        with connect(settings, autocommit=True) as connection:
            posts = write_posts(connection)
            empty = info(performer.nodes, "used_memory")
            for start in range(0, POSTS, BATCH):
                performer.run(incremental.fill([(STATUS_COUNTS, post) for post in posts[start : start + BATCH]]))
            likes = Likes(posts, burn(connection), log_end(connection))
            before = ceiling(performer, likes)
            write_likes(likes)
            figures = run_flow(performer, environment, LIKES)
            del figures["seconds"]
            figures["memory_bytes_per_post"] = round((info(performer.nodes, "used_memory") - empty) / POSTS)
            after = ceiling(performer, likes)
            check(performer, posts, LIKES + 2 * CEILING_LIKES)
            figures |= go_on(performer, environment, likes)
            check(performer, posts, LIKES + 2 * CEILING_LIKES + MISSED)
            figures["sql_count_ms_at_100000_likes"] = count_rows(connection, posts[0])
    return finish(
        "engagement", unit="likes/s", ceiling=round((before + after) / 2), ceiling_by="own pipelined sender",
        ceilings=[before, after], likes=LIKES, posts=POSTS, decoded_and_routed_per_second_per_core=decode_and_route(),
        **figures,
    )  # fmt: skip


def write_posts(connection: "psycopg.Connection[Any]") -> list[int]:
    """Posts of one person; their ids."""
    author = UUID(int=1)
    first = 1_700_000_000_000 << 16
    posts = [first + (number << 16) for number in range(POSTS)]
    connection.execute("INSERT INTO users (id, username) VALUES (%s, 'author')", (author,))
    copy(connection, "posts (id, author_id, text)", ((post, author, "Like me") for post in posts))
    return posts


def write_likes(likes: Likes, number: int = LIKES) -> None:
    """Likes in Kafka, as Debezium would have written them."""
    write_changes(TOPIC, LIKES_SCHEMA, ((f"{like[0]}{like[1]}", as_row(*like)) for like in likes.make(number)))


def as_row(person: UUID, post: int, transaction: int, position: tuple[int, int]) -> dict[str, Any]:
    """A like as Debezium's row."""
    row = {"user_id": str(person), "post_id": post, "created_at": datetime.now(UTC).isoformat()[:26] + "Z"}
    return as_change(row, position, transaction)


def run_flow(performer: Performer, environment: dict[str, str], expected: int) -> dict[str, Any]:
    """Runs the flow until every like is applied, then kills it; the clock runs from the first call to the last."""
    started = time.perf_counter()
    before = calls(performer)
    flow = subprocess.Popen([sys.executable, "-m", "dataflows.run", FLOW], env=environment)
    address = metrics_url(FLOW, environment)
    first = last = 0.0
    begun = done = 0
    redis_before = redis_cpu(performer.nodes)
    try:
        while True:
            must_run(flow)
            found, now = calls(performer) - before, time.perf_counter()
            if found and not begun:
                begun, first = found, now
            if found == done and done and metric(address, "fanline_records_total") >= expected:
                # Nothing more comes of all that was read.
                if found >= metric(address, "fanline_batch_size_sum"):
                    cpu = cpu_seconds(flow)
                    break
            elif found > done:
                done, last = found, now
            time.sleep(0.02)
    finally:
        # As in a crash: nothing is flushed, nothing is said.
        flow.send_signal(signal.SIGKILL)
        flow.wait(30)
    rate = expected * (done - begun) / done / (last - first) if last > first else 0.0
    return {
        "value": round(rate),
        "seconds": round(last - started, 2),
        "calls_per_like": round(done / expected, 3),
        "flow_cpu_us_per_like": round(cpu / expected * 1e6, 1),
        "redis_cpu_us_per_like": round((redis_cpu(performer.nodes) - redis_before) / expected * 1e6, 1),
    }


def go_on(performer: Performer, environment: dict[str, str], likes: Likes) -> dict[str, Any]:
    """How long a flow that was killed takes until it has applied what came meanwhile."""
    write_likes(likes, MISSED)
    return {"resumed_after_seconds": run_flow(performer, environment, MISSED)["seconds"]}


def calls(performer: Performer) -> int:
    """Calls of functions that the server has run."""
    return int(info(performer.nodes, "cmdstat_fcall:calls", b"commandstats"))


def ceiling(performer: Performer, likes: Likes) -> float:
    """Likes a second that Redis takes from calls that are ready."""
    payloads = []
    made = list(likes.make(CEILING_LIKES))
    for start in range(0, CEILING_LIKES, BATCH):
        routed = []
        for number, (person, post, transaction, position) in enumerate(made[start : start + BATCH]):
            row = {"user_id": str(person), "post_id": post}
            change = RowChange("likes", "c", row, position, 0, transaction)
            routed.append(Routed(incremental.place(TOPICS["likes"], number % 4), effects_of(change)))
        data = [data for writes in Batch(routed).writes() for data in writes.data]
        payloads.append((b"".join(data), len(data)))
    return round(CEILING_LIKES / pipelined(performer.nodes, payloads))


def check(performer: Performer, posts: Sequence[int], expected: int) -> None:
    """Raises unless Redis has counted every like once."""
    total = 0
    for start in range(0, POSTS, BATCH):
        keys = [STATUS_COUNTS.key(post) for post in posts[start : start + BATCH]]
        for value in performer.nodes.execute([(key, pack(b"GET", key)) for key in keys]):
            total += int.from_bytes((incremental.body(value) or b"")[8:12])
    if total != expected:
        raise RuntimeError(f"{total} likes were counted, not {expected}")


def count_rows(connection: "psycopg.Connection[Any]", post: int) -> float:
    """Median milliseconds of the query that counts the rows of a post with many likes."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO users (id, username) SELECT gen_random_uuid(), 'liker' || n FROM generate_series(1, %s) n",
            (COUNTED_LIKES,),
        )
        cursor.execute("INSERT INTO likes (user_id, post_id) SELECT id, %s FROM users LIMIT %s", (post, COUNTED_LIKES))
        cursor.execute("VACUUM ANALYZE likes")
        seconds = []
        for _ in range(20):
            started = time.perf_counter()
            cursor.execute(STATUS_COUNTS_SQL.encode(), {"ids": [post]}).fetchall()
            seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds) * 1000, 2)


def decode_and_route() -> int:
    """Row changes a second that one core turns from bytes into effects, in runs as they come from a backlog."""
    schema = parse(LIKES_SCHEMA)
    likes = Likes(range(POSTS), range(1, TRANSACTIONS + 1), 0)
    messages = [
        Message(TOPIC, number // BATCH_RECORDS % 4, number, b"key", encode(1, schema, as_row(*like)), (), 0)
        for number, like in enumerate(likes.make(DECODED))
    ]
    runs = list(in_runs(messages))
    letters: Any = NoLetters()
    decoder = RunDecoder(AvroDecoder(lambda _: LIKES_SCHEMA), letters, route, route_run)
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for run in runs:
            decoder([run])
        rounds.append(time.process_time() - started)
    return round(DECODED / statistics.median(rounds))


if __name__ == "__main__":
    run_benchmark(main)
