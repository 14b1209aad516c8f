"""What benchmarks fill the database and topics with: rows, their changes as Debezium writes them, and events."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any
from uuid import UUID, uuid4

import psycopg
from confluent_kafka import Producer

from connectors.kafka_clients import producer_config
from fanline.addresses import registry_url
from fanline.avro import SchemaRegistry, encode, parse
from fanline.settings import get_settings
from schemas.registry import EventEncoder

TRANSACTIONS = 5_000
# A row and its commit take about so many bytes of the log.
BYTES_A_ROW = 200

Connection = psycopg.Connection[Any]
Row = Mapping[str, Any]


def value_schema(table: str, **columns: str) -> str:
    """The Avro schema of a table's values as Debezium writes them; a column whose type ends in `?` may be null."""
    source = {
        "__deleted": "string?", "__op": "string?", "__source_sequence": "string?", "__source_ts_ms": "long?",
        "__source_txId": "long?",
    }  # fmt: skip
    fields = [
        {"name": name, "type": ["null", kind[:-1]] if kind.endswith("?") else kind}
        for name, kind in (columns | source).items()
    ]
    return json.dumps({"type": "record", "name": "Value", "namespace": f"fanline.public.{table}", "fields": fields})


LIKES_SCHEMA = value_schema("likes", user_id="string", post_id="long", created_at="string")
FOLLOWS_SCHEMA = value_schema(
    "follows", follower_id="string", followee_id="string", show_reblogs="boolean", notify="boolean", created_at="string"
)
POSTS_SCHEMA = value_schema(
    "posts", id="long", author_id="string", sensitive="boolean", visibility="string", language="string?",
    in_reply_to_id="long?", in_reply_to_account_id="string?", repost_of_id="long?", application_id="string?",
    traceparent="string?", created_at="string", edited_at="string?", conversation_id="long?",
)  # fmt: skip


def post_row(identifier: int, author: UUID, created_at: str) -> dict[str, Any]:
    """A public post as its change has it: without the texts, which no flow needs of it."""
    nothing = (
        "language", "in_reply_to_id", "in_reply_to_account_id", "repost_of_id", "application_id", "traceparent",
        "edited_at", "conversation_id",
    )  # fmt: skip
    return dict.fromkeys(nothing) | {
        "id": identifier, "author_id": str(author), "sensitive": False, "visibility": "public", "created_at": created_at
    }  # fmt: skip


def as_change(row: Row, position: tuple[int, int], transaction: int | None) -> dict[str, Any]:
    """A row that has come, as Debezium's value."""
    return {
        **row, "__deleted": "false", "__op": "c", "__source_sequence": f'["{position[0]}","{position[1]}"]',
        "__source_ts_ms": time.time_ns() // 1_000_000, "__source_txId": transaction,
    }  # fmt: skip


class ChangeLog:
    """Gives rows places in the log that come after everything before, in transactions that queries see."""

    def __init__(self, connection: Connection) -> None:
        self._transactions = cycle(burn(connection))
        self._end = log_end(connection)

    def change(self, row: Row) -> dict[str, Any]:
        """A row that has come, at the next place."""
        self._end += BYTES_A_ROW
        return as_change(row, (self._end - BYTES_A_ROW // 2, self._end), next(self._transactions))


def burn(connection: Connection) -> list[int]:
    """Numbers of transactions that queries see from now on, and that no count has seen."""
    numbers = []
    for _ in range(TRANSACTIONS):
        row: Any = connection.execute("SELECT pg_current_xact_id()::text::bigint & 4294967295").fetchone()
        numbers.append(int(row[0]))
    return numbers


def log_end(connection: Connection) -> int:
    """Where the log ends."""
    row: Any = connection.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").fetchone()
    return int(row[0])


def write_changes(topic: str, schema: str, changes: Iterable[tuple[str, Row]]) -> None:
    """Changes in Kafka, each with its key, as Debezium would have written them."""
    settings = get_settings()
    schema_id = SchemaRegistry(registry_url(settings)).register(f"{topic}-value", schema)
    parsed = parse(schema)
    producer = Producer(producer_config(settings, "benchmark") | {"queue.buffering.max.messages": 2_000_000})
    for key, change in changes:
        producer.produce(topic, encode(schema_id, parsed, dict(change)), key)
    producer.flush(60)


def write_events(connection: Connection, encoder: EventEncoder, name: str, events: Iterable[tuple[str, Row]]) -> None:
    """Events of one name in the outbox and in Kafka, each with its key, as the outbox's connector would have."""
    made = [(uuid4(), key, encoder.encode(name, dict(event))) for key, event in events]
    columns = "outbox (id, aggregatetype, aggregateid, type, payload)"
    copy(connection, columns, [(identifier, name, key, name, payload) for identifier, key, payload in made])
    producer = Producer(producer_config(get_settings(), "benchmark"))
    for identifier, key, payload in made:
        producer.produce(name, payload, key, headers=[("id", str(identifier).encode())])
        producer.poll(0)
    producer.flush(60)


def copy(connection: Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    """Fill a table, named with its columns."""
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN".encode()) as written:
        for row in rows:
            written.write_row(row)
