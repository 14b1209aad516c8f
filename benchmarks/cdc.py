"""Row changes a second through one Debezium connector with our settings, from commit to a Kafka consumer.

The ceiling is Postgres itself: the same changes decoded by the same plug-in (pgoutput) through the same publication,
counted inside the server and sent nowhere. No connector can be faster than that. Needs a running stack.
"""

import json
import statistics
import sys
import time
import uuid
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition
from psycopg.conninfo import make_conninfo

from connectors.connect import apply_all, placeholders
from fanline import addresses, database
from fanline.ids import TimeOrderedIds
from fanline.settings import Settings, get_settings

ROWS = 30_000
# The first round warms the connector's JVM and is not counted.
ROUNDS = 4
STALL_SECONDS = 60
TOPIC = "cdc.posts"


def main() -> None:
    """Print what is measured, then one JSON object as the last line."""
    settings = get_settings()
    apply_all(settings)
    author = uuid.uuid4()
    slot = f"bench_{author.hex[:8]}"
    with database.connect(settings, autocommit=True) as connection, _cdc_role(settings) as cdc:
        connection.execute("INSERT INTO users (id, username) VALUES (%s, %s)", [author, slot])
        cdc.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        try:
            rates = []
            for number in range(ROUNDS):
                rates.append(_round(settings, connection, author))
                print(f"round {number}: {rates[-1]:,.0f} row changes/s{' (warm-up)' if number == 0 else ''}")
            ceilings = [_decode_rate(cdc, slot) for _ in range(2)]
        finally:
            cdc.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            _clean(settings, connection, author)
    value, ceiling = statistics.median(rates[1:]), max(ceilings)
    print(f"Postgres alone decodes {ceiling:,.0f} row changes/s")
    result: dict[str, Any] = {
        "name": "cdc",
        "value": round(value),
        "unit": "row changes/s through one connector",
        "ceiling": round(ceiling),
        "ceiling_is": "the same changes decoded inside Postgres, sent nowhere",
        "ratio": round(value / ceiling, 3),
        "warm_up": round(rates[0]),
        "rounds": [round(rate) for rate in rates[1:]],
        "rows_a_round": ROWS,
    }
    print(json.dumps(result))


def _cdc_role(settings: Settings) -> psycopg.Connection[Any]:
    values = placeholders(settings)
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "name"}
    return psycopg.connect(
        make_conninfo(**{key: values[f"database_{name}"] for key, name in names.items()}), autocommit=True
    )


def _round(settings: Settings, connection: psycopg.Connection[Any], author: uuid.UUID) -> float:
    ids = TimeOrderedIds()
    text = "A post of ordinary length, as people write them."
    with _Tail(settings) as tail:
        with (
            connection.transaction(),
            connection.cursor() as cursor,
            cursor.copy("COPY posts (id, author_id, text, visibility) FROM STDIN") as copy,
        ):
            for _ in range(ROWS):
                copy.write_row((ids.next(), author, text, "unlisted"))
        return ROWS / tail.seconds_until(ROWS)


def _decode_rate(cdc: psycopg.Connection[Any], slot: str) -> float:
    started = time.perf_counter()
    row = cdc.execute(
        "SELECT count(*) FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'fanline_cdc')",
        [slot],
    ).fetchone()
    count: int = row[0] if row else 0
    return count / (time.perf_counter() - started)


def _clean(settings: Settings, connection: psycopg.Connection[Any], author: uuid.UUID) -> None:
    """Take the rows away again and wait until the connector has passed that, so that the next measurement is alone."""
    with _Tail(settings) as tail:
        count = connection.execute("DELETE FROM posts WHERE author_id = %s", [author]).rowcount
        connection.execute("DELETE FROM users WHERE id = %s", [author])
        # A delete is a change and a tombstone.
        tail.seconds_until(2 * count)


class _Tail:
    """Counts the records of the topic from now on."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": addresses.kafka_bootstrap_servers(settings),
                "group.id": "fanline-bench-cdc",
                "enable.auto.commit": False,
            }
        )
        partitions = self._consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        assigned = [TopicPartition(TOPIC, partition) for partition in partitions]
        for each in assigned:
            each.offset = self._consumer.get_watermark_offsets(each, timeout=10)[1]
        self._consumer.assign(assigned)

    def __enter__(self) -> "_Tail":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def seconds_until(self, count: int) -> float:
        """Seconds from now until `count` records have come; exits when nothing comes any more."""
        started = last = time.perf_counter()
        seen = 0
        while seen < count:
            batch = self._consumer.consume(10_000, timeout=0.05)
            now = time.perf_counter()
            if batch:
                seen, last = seen + len(batch), now
            elif now - last > STALL_SECONDS:
                sys.exit(f"Only {seen:,} of {count:,} changes came within {STALL_SECONDS} s of the last one.")
        return last - started


if __name__ == "__main__":
    main()
