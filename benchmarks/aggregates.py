"""Changes a second that the time series take, from Kafka to Redis: `python -m benchmarks.aggregates`.

200,000 likes wait in `cdc.likes` before the flow starts, and 400,000 likes of today are in the database: those are
counted again. The ceiling is what one core decodes and marks with nothing else to do, so that the ratio says what
counting, Kafka and the snapshots take. Counting may take half of the flow's time here: by default it rests most of the
time, and what is read meanwhile counts as taken only at the end of the rest. Then: what one settling costs for the
instance and for the account that got all the likes, and that every bucket equals the database in the end.
"""

import json
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from audit.aggregates import check_aggregates
from audit.stores import Stores
from benchmarks.flow_runs import NoLetters, run_flow
from benchmarks.own_stack import migrated_stack
from benchmarks.records import LIKES_SCHEMA, as_change, write_changes
from benchmarks.report import finish, run_benchmark
from connectors.decode import ChangeDecoder
from connectors.messages import Message
from dataflows.aggregates import marked
from fanline.avro import AvroDecoder, encode, parse
from fanline.database import connect
from readmodels.aggregate_changes import Mark, Stale, settle
from readmodels.aggregates import INSTANCE, RESOLUTIONS, Scope, Series, build, floor_to, retention

ROWS, CHANGES, POSTS, PEOPLE = 400_000, 200_000, 1_000, 2_000
BATCH = 500
SETTLINGS = 20
FLOW, TOPIC = "aggregates", "cdc.likes"
AUTHOR = UUID(int=1)
FIRST_POST = 1_700_000_000_000 << 16

LIKES = """
INSERT INTO likes (user_id, post_id, created_at)
SELECT u.id, %(first)s::bigint + (p.n::bigint << 16), %(start)s + (%(seconds)s * p.n / %(posts)s) * interval '1 second'
FROM generate_series(0, %(posts)s - 1) AS p (n) CROSS JOIN (SELECT id FROM users LIMIT %(each)s) AS u
"""


def main() -> dict[str, Any]:
    """The benchmark."""
    busy = {"FANLINE_AGGREGATES_SECONDS": "0.1", "FANLINE_AGGREGATES_SHARE": "0.5"}
    with migrated_stack("postgres,valkey,kafka,registry", busy) as (environment, settings):
        with connect(settings, autocommit=True) as connection:
            write_rows(connection)
        write_changes(TOPIC, LIKES_SCHEMA, ((str(number), change) for number, change in enumerate(changes())))
        ceiling = decode_and_mark()
        value = round(run_flow(FLOW, environment, [TOPIC]).rate)
        stores = Stores(settings)
        stores.load_functions()
        try:
            costs = {f"settle_ms_{name}": cost for name, cost in settle_costs(stores).items()}
            wrong = check(stores)
        finally:
            stores.close()
    return finish(
        "aggregates", unit="changes/s", value=value, ceiling=ceiling, ceiling_by="decoding and marking alone, one core",
        rows_counted=ROWS, changes=CHANGES, buckets_wrong=wrong, **costs, **({"error": "not equal"} if wrong else {}),
    )  # fmt: skip


def write_rows(connection: "psycopg.Connection[Any]") -> None:
    """People, posts and the likes of today."""
    connection.execute("INSERT INTO users (id, username) VALUES (%s, 'author')", (AUTHOR,))
    connection.execute(
        "INSERT INTO users (id, username) SELECT gen_random_uuid(), 'liker' || n FROM generate_series(1, %s) n",
        (PEOPLE,),
    )
    connection.execute(
        "INSERT INTO posts (id, author_id, text) SELECT %s::bigint + (n::bigint << 16), %s, 'Like me'"
        " FROM generate_series(0, %s - 1) n",
        (FIRST_POST, AUTHOR, POSTS),
    )
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    connection.execute(
        LIKES,
        {
            "first": FIRST_POST, "posts": POSTS, "each": ROWS // POSTS, "start": midnight,
            "seconds": (now - midnight).total_seconds(),
        },
    )  # fmt: skip
    connection.execute("VACUUM ANALYZE likes")


def changes() -> Iterator[dict[str, Any]]:
    """Likes as Debezium would have written them, spread over the last ten minutes."""
    now = datetime.now(UTC)
    for number in range(CHANGES):
        row = {
            "user_id": str(UUID(int=number % PEOPLE)), "post_id": FIRST_POST + (number % POSTS << 16),
            "created_at": (now - timedelta(seconds=number % 600)).isoformat()[:26] + "Z",
        }  # fmt: skip
        yield as_change(row, (number, number + 1), None)


def decode_and_mark() -> int:
    """Changes a second that one core turns from bytes into marks, put together."""
    schema = parse(LIKES_SCHEMA)
    messages = [
        Message(TOPIC, number % 4, number, None, encode(1, schema, change), (), 0)
        for number, change in enumerate(changes())
    ]
    letters: Any = NoLetters()
    decoder = ChangeDecoder(AvroDecoder(lambda _: LIKES_SCHEMA).decode, letters, marked)
    stale = Stale()
    started = time.process_time()
    for start in range(0, CHANGES, BATCH):
        for mark in decoder(messages[start : start + BATCH]):
            stale.add(mark)
    return round(CHANGES / (time.process_time() - started))


def settle_costs(stores: Stores) -> dict[str, float]:
    """Median milliseconds of settling one change: for the instance, and for an account whose series is read."""
    settings, now = stores.settings, int(time.time())
    kept = retention(settings.aggregates_minutes_days, settings.aggregates_hours_days, settings.aggregates_days_days)
    costs = {}
    for name, account in (("instance", None), ("instance_and_account", AUTHOR)):
        if account is not None:
            for series in running(account):
                stores.drive(build(series, now, kept))
        seconds = []
        for _ in range(SETTLINGS):
            stale = Stale()
            stale.add(Mark(floor_to(now, 60), account=account))
            started = time.perf_counter()
            stores.drive(settle(stale, now, kept))
            seconds.append(time.perf_counter() - started)
        costs[name] = round(statistics.median(seconds) * 1_000, 1)
    return costs


def running(scope: Scope) -> list[Series]:
    """The running series of a scope."""
    now = int(time.time())
    return [Series(scope, each, floor_to(now, each.period)) for each in RESOLUTIONS.values()]


def check(stores: Stores) -> int:
    """Series that do not equal the database."""
    found = check_aggregates(stores, [*running(INSTANCE), *running(AUTHOR)], quiet_seconds=0)
    for series, difference in found.items():
        if difference is None or difference:
            print(json.dumps({"scope": str(series.scope), "resolution": series.resolution.name}), difference)
    return sum(difference is None or bool(difference) for difference in found.values())


if __name__ == "__main__":
    run_benchmark(main)
