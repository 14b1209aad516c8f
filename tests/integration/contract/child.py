"""A small flow in a process of its own, so that it can be killed: Kafka records into the sink under test.

Each record leaves one mark, `topic/partition/offset`, at the target.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow

from connectors.decode import Change, decode_changes
from connectors.flows import group_of
from connectors.generations import generations
from connectors.kafka_sink import KafkaRecord, KafkaSink
from connectors.kafka_source import KafkaSource, Resume
from connectors.messages import Message, Progress
from dataflows import archive, outbox
from dataflows.run import run_flow
from fanline.errors import FanlineError
from fanline.logging import configure_logging
from fanline.redis_nodes import RedisNodes
from fanline.resp import pack
from fanline.settings import get_settings
from readmodels.archive import GENERATION_CHARACTERS
from readmodels.effects import Effects, Query
from readmodels.indexed import IndexWrite
from sinks.batch import BatchSink
from sinks.coalescing import CoalescingSink
from sinks.opensearch import OpenSearchSink
from sinks.opensearch_client import OpenSearchClient
from sinks.parquet import ParquetSink, batches
from sinks.parquet_store import ParquetStore
from sinks.redis import RedisSink, RedisWrite
from sinks.single_part import output
from sinks.sql import SqlSink, SqlTransactions

KEYS = 16


@dataclass
class Plan:
    """What the process does."""

    flow: str
    topics: list[str]
    # redis, batch, coalescing, kafka, parquet, opensearch, sql, none (records are dropped);
    # archive or outbox: that whole flow
    sink: str
    redis_url: str = ""
    cluster: bool = False
    out_topic: str = ""
    archive: str = ""  # the folder of the parquet sink
    decode: bool = False
    crash_in: str = ""  # write, snapshot: die there by os._exit, the given time that it is reached
    crash_at: int = 0
    ready: str = ""  # a file made when the process handles signals
    touch: str = ""  # a file made after the second write
    refuse: bool = False  # fail in place of the parquet sink's target


def mark(message: Message) -> bytes:
    return f"{message.topic}/{message.partition}/{message.offset}".encode()


def mark_key(message: Message) -> bytes:
    return b"marks:%d" % (message.offset % KEYS)


def unwrapped(item: Any) -> Any:
    return item.message if isinstance(item, Change) else item


def to_redis_writes(nodes: RedisNodes) -> Callable[[list[Any]], list[RedisWrite | Progress]]:
    """One write a node for each run of records between progress items."""

    def writes(items: list[Any]) -> list[RedisWrite | Progress]:
        made: list[RedisWrite | Progress] = []
        run: dict[int, list[bytes]] = {}

        def close() -> None:
            made.extend(RedisWrite(node, b"".join(commands), len(commands)) for node, commands in run.items())
            run.clear()

        for item in map(unwrapped, items):
            if isinstance(item, Progress):
                close()
                made.append(item)
            else:
                key = mark_key(item)
                run.setdefault(nodes.node_of(key), []).append(pack(b"SADD", key, mark(item)))
        close()
        return made

    return writes


def to_kafka_records(topic: str) -> Callable[[list[Any]], list[KafkaRecord | Progress]]:
    def records(items: list[Any]) -> list[KafkaRecord | Progress]:
        return [
            item if isinstance(item, Progress) else KafkaRecord(topic, None, mark(item))
            for item in map(unwrapped, items)
        ]

    return records


def to_mark(item: Any) -> Any:
    message = unwrapped(item)
    return message if isinstance(message, Progress) else (mark_key(message), mark(message))


def to_rows(messages: Sequence[Message]) -> pa.Table:
    return pa.table({"mark": [mark(message).decode() for message in messages]})


def refuse(messages: Sequence[Message]) -> pa.Table:
    raise FanlineError("The target refuses.")


def to_documents(alias: str) -> Callable[[list[Any]], list[IndexWrite | Progress]]:
    """A document a record; the record says itself what it is where it is JSON."""

    def documents(items: list[Any]) -> list[IndexWrite | Progress]:
        return [item if isinstance(item, Progress) else document(item) for item in map(unwrapped, items)]

    def document(message: Message) -> IndexWrite:
        body = message.value if message.value and message.value.startswith(b"{") else b"{}"
        return IndexWrite(alias, mark(message).decode(), 1 + message.offset, body, message)

    return documents


def build(plan: Plan) -> Dataflow:
    Path(plan.ready).touch()
    if plan.sink == "archive":
        return archive.build(plan.flow, plan.topics)
    if plan.sink == "outbox":
        return outbox.build(plan.flow, plan.topics)
    flow = Dataflow("child")
    group = group_of(plan.flow)
    resume: Resume = "committed" if plan.sink == "parquet" else "snapshot"
    stream: Any = op.input("source", flow, KafkaSource(plan.topics, group, resume=resume))
    stream = op.flat_map_batch("count", stream, counted)
    if plan.decode:
        stream = decode_changes("decode", stream, plan.flow)
    if plan.sink == "redis":
        nodes = RedisNodes(plan.redis_url, cluster=plan.cluster)
        writes = op.flat_map_batch("writes", stream, to_redis_writes(nodes))
        output("sink", writes, crashing(RedisSink(lambda: nodes, group), plan))
    elif plan.sink == "batch":
        nodes = RedisNodes(plan.redis_url, cluster=plan.cluster)

        def apply(items: Sequence[Any]) -> None:
            messages = [unwrapped(item) for item in items]
            nodes.execute([(mark_key(m), pack(b"SADD", mark_key(m), mark(m))) for m in messages], patience=0.2)

        output("sink", stream, crashing(BatchSink(apply, group), plan))
    elif plan.sink == "coalescing":
        nodes = RedisNodes(plan.redis_url, cluster=plan.cluster)

        def settle(marks: set[tuple[bytes, bytes]]) -> None:
            nodes.execute([(key, pack(b"SADD", key, each)) for key, each in marks], patience=0.2)

        marks = op.map("marks", stream, to_mark)
        empty: Callable[[], set[tuple[bytes, bytes]]] = set
        output("sink", marks, crashing(CoalescingSink(empty, set.add, settle, group, seconds=0.3), plan))
    elif plan.sink == "kafka":
        records = op.flat_map_batch("records", stream, to_kafka_records(plan.out_topic))
        output("sink", records, crashing(KafkaSink(group), plan))
    elif plan.sink == "opensearch":
        documents = op.flat_map_batch("documents", stream, to_documents(plan.out_topic))
        output("sink", documents, crashing(OpenSearchSink(lambda: OpenSearchClient(get_settings()), group), plan))
    elif plan.sink == "sql":
        transactions = SqlTransactions(get_settings(), plan.flow)

        def insert(marks: Sequence[str]) -> Effects[None]:
            table = f"INSERT INTO {plan.out_topic} (mark)"
            yield Query(f"{table} SELECT unnest(%(marks)s::text[]) ON CONFLICT DO NOTHING", {"marks": marks})

        def to_marks(items: Sequence[Any]) -> Sequence[str]:
            return [mark(unwrapped(item)).decode() for item in items]

        def write(marks: Sequence[str]) -> None:
            transactions.run(lambda: insert(marks))

        output("sink", stream, crashing(SqlSink(to_marks, write, group), plan))
    elif plan.sink == "parquet":
        store = ParquetStore(Path(plan.archive).as_uri())
        generation_of = generations(get_settings(), "contract", GENERATION_CHARACTERS)
        rows = refuse if plan.refuse else to_rows
        sink = ParquetSink(lambda: store, rows, generation_of, group, rows=700, seconds=0.2)
        output("sink", batches("batches", op.map("records", stream, unwrapped)), crashing(sink, plan))
    else:
        progress = op.filter("progress", stream, lambda item: isinstance(item, Progress))
        output("sink", progress, crashing(BatchSink(lambda items: None, group), plan))
    return flow


def crashing(sink: Any, plan: Plan) -> Any:
    """The sink, with a part that dies where the plan says."""
    build_part = sink.build_part
    reached = {"write": 0, "snapshot": 0}

    def step(name: str) -> None:
        reached[name] += 1
        if name == plan.crash_in and reached[name] == plan.crash_at:
            os._exit(9)
        if plan.touch and name == "write" and reached[name] == 2:
            Path(plan.touch).touch()

    def build_crashing_part(*arguments: Any) -> Any:
        part = build_part(*arguments)
        write_batch, snapshot = part.write_batch, part.snapshot

        def write(values: list[Any]) -> None:
            write_batch(values)
            step("write")

        def snap() -> None:
            # Dies before the sink has waited for its acknowledgements.
            step("snapshot")
            snapshot()

        part.write_batch, part.snapshot = write, snap
        return part

    sink.build_part = build_crashing_part
    return sink


records_read = 0


def counted(items: list[Any]) -> list[Any]:
    global records_read
    records_read += sum(type(item) is Message for item in items)
    return items


def run(plan: Plan, environment: dict[str, str], outcome: str) -> None:
    """The process: standard error goes to `outcome`.err, the number of records that were read to `outcome`.out."""
    os.environ.update(environment)
    get_settings.cache_clear()
    errors = os.open(f"{outcome}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
    sys.stderr = os.fdopen(errors, "w", buffering=1)
    configure_logging(plan.flow)
    code = 0
    try:
        run_flow(plan.flow, lambda: build(plan), get_settings())
    except FanlineError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    Path(f"{outcome}.out").write_text(str(records_read))
    sys.exit(code)
