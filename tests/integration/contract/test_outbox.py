"""The outbox's changefeed through a real Kafka: messages as CockroachDB documents them, around real rows."""

import json
import uuid
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from connectors.flows import dead_letter_topic
from connectors.topics import wanted
from fanline.database import connect
from schemas import contracts
from schemas.registry import encoder
from tests.integration.contract.child import Plan
from tests.integration.contract.conftest import Bench
from tests.integration.contract.valkey import wait_until
from tests.integration.pipeline import open_pipeline

EVENTS = ("post.deleted", "engagement.recorded")
COMMITTED_MS = 1747243394200
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def written(bench: Bench, event: str, trace: str | None) -> dict[str, Any]:
    """A new row of the outbox, as a changefeed shows it."""
    settings = bench.stack.settings
    payload = encoder(settings).encode(event, contracts.load()[event].example)
    values = [uuid.uuid4(), event, uuid.uuid4().hex, event, payload, trace]
    names = ("id", "aggregatetype", "aggregateid", "type", "payload", "traceparent")
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"INSERT INTO outbox ({', '.join(names)}) VALUES (%s, %s, %s, %s, %s, %s)".encode(), values)
    row = dict(zip(names, values, strict=True))
    return row | {"id": str(row["id"]), "payload": f"\\x{payload.hex()}", "created_at": "2025-05-14T17:23:14.200039Z"}


def messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row in both envelopes, and its end by row-level TTL."""
    enriched = {
        "after": row,
        "key": {"id": row["id"]},
        "op": "c",
        "source": {"table_name": "outbox", "ts_hlc": f"{COMMITTED_MS}039000.0000000000", "ts_ns": 1},
        "ts_ns": 1747243394886231000,
    }
    wrapped = {"after": row, "before": None, "updated": f"{COMMITTED_MS}039000.0000000000"}
    gone = {"after": None, "before": row, "updated": "1747329794200039000.0000000000"}
    return [enriched, {"payload": enriched, "schema": {"type": "struct"}}, wrapped, gone]


def send(bench: Bench, topic: str, row: dict[str, Any], *values: dict[str, Any]) -> None:
    for value in values:
        bench._produce(topic, json.dumps(value).encode(), json.dumps([row["id"]]).encode())
    assert not bench._producer.flush(20)


def of_row(bench: Bench, row: dict[str, Any]) -> list[Any]:
    return [each for each in bench.read(row["aggregatetype"]) if each.key() == row["aggregateid"].encode()]


def facts(record: Any) -> tuple[Any, ...]:
    return record.topic(), record.partition(), record.key(), record.value(), record.headers()


def test_rows_of_a_changefeed_come_out_as_debezium_sends_those_of_postgres(bench: Bench) -> None:
    open_pipeline(bench.stack.settings)
    rows = [written(bench, event, trace) for event in EVENTS for trace in (TRACE, None)]
    wait_until(lambda: all(of_row(bench, row) for row in rows), "Debezium has sent the rows")
    expected = [facts(of_row(bench, row)[0]) for row in rows]

    topic = bench.topic()
    resolved = {"resolved": "1747243394200039000.0000000000"}
    for row in rows[:2]:
        send(bench, topic, row, *messages(row), resolved)
    bad = rows[0] | {"payload": "?"}
    send(bench, topic, bad, *messages(bad)[:1])
    flow = bench.start(Plan(bench.flow, [topic], "outbox"))
    bench.until_applied(topic)
    flow.kill()
    for row in rows[2:]:
        send(bench, topic, row, *messages(row), resolved)
    flow = bench.start(Plan(bench.flow, [topic], "outbox"))
    bench.until_applied(topic)
    flow.stop()

    for row, event in zip(rows, expected, strict=True):
        records = of_row(bench, row)
        # Once from Debezium, and once for each of the changefeed's repetitions: consumers know them by the header `id`.
        assert len(records) == 4
        assert [facts(each) for each in records] == [event] * 4
        assert {each.timestamp()[1] for each in records[1:]} == {COMMITTED_MS}
    [letter] = bench.read(dead_letter_topic(bench.flow))
    assert "no hexadecimal text" in dict(letter.headers())["reason"].decode()


@pytest.mark.parametrize("dialect", ["postgres", "cockroach"])
def test_only_topics_for_a_changefeed_take_its_resolved_messages_which_have_no_key(bench: Bench, dialect: str) -> None:
    settings = bench.stack.settings.model_copy(update={"database_dialect": dialect})
    configs = {topic.name: topic.config for topic in wanted(settings)}
    for table in ("likes", "heartbeat"):
        topic, reports = f"{bench.name}-{table}", []
        bench.admin.create_topics([NewTopic(topic, 1, 1, config=configs[f"cdc.{table}"])])[topic].result(10)
        bench._topics.append(topic)
        bench._produce(topic, b'{"resolved": "1.0"}', on_delivery=lambda error, _: reports.append(error))  # noqa: B023
        bench._producer.flush(20)
        [error] = reports
        assert (error is None) == (dialect == "cockroach"), (topic, error)
