"""What our Kafka source costs a record, through Bytewax, against a bare `consume()` of the same records.

Both run in this process over the same topic, in turn, three times; CPU time of the thread that consumes, so that other
load on the machine matters little. Also: the CPU share of a flow whose 24 partitions are idle, and of a Bytewax flow
that does nothing at all, below which no flow can get. Needs a running Kafka.
"""

import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.report import finish, run_benchmark
from connectors import lifecycle
from connectors.flows import group_of
from connectors.kafka_clients import client_config, consumer_config
from connectors.kafka_source import BATCH_RECORDS, KafkaSource
from dataflows.run import run_flow
from fanline.settings import Settings, get_settings

RECORDS = 400_000
VALUE = b"v" * 120  # about a row change of a post
PARTITIONS = 4
ROUNDS = 3
IDLE_TOPICS = 6
IDLE_SECONDS = 5.0


class Counting(StatelessSinkPartition[Any]):
    """Counts items and ends the flow after the wanted number; remembers thread CPU time from the first to the last."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.count = wanted, 0
        self.began = self.seconds = 0.0

    def write_batch(self, items: list[Any]) -> None:
        """Count."""
        self.began = self.began or time.thread_time()
        self.count += len(items)
        if self.count >= self.wanted:
            self.seconds = self.seconds or time.thread_time() - self.began
            lifecycle.request_stop()


class Sink(DynamicSink[Any]):
    """Gives its one part."""

    def __init__(self, part: Counting) -> None:
        self.part = part

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Counting:
        """The part."""
        return self.part


class Nothing(StatefulSourcePartition[Any, None]):
    """A source that never has anything and seldom looks."""

    def __init__(self) -> None:
        self._asked = False

    def next_batch(self) -> list[Any]:
        """Nothing."""
        self._asked = True
        if lifecycle.stop_requested():
            raise StopIteration
        return []

    def next_awake(self) -> datetime | None:
        """Seldom."""
        return datetime.now(UTC) + timedelta(milliseconds=200) if self._asked else None

    def snapshot(self) -> None:
        """Nothing."""


class NothingSource(FixedPartitionedSource[Any, None]):
    """Gives `Nothing`."""

    def list_parts(self) -> list[str]:
        """One."""
        return ["nothing"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Nothing:
        """The part."""
        return Nothing()


def raw(settings: Settings, topic: str) -> float:
    """CPU microseconds a record of a bare consumer."""
    with closing(Consumer(consumer_config(settings, "benchmark", "benchmark"))) as consumer:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        count, began = 0, 0.0
        while count < RECORDS:
            batch = consumer.consume(BATCH_RECORDS, 0)
            began = began or (time.thread_time() if batch else 0.0)
            count += len(batch)
            if not batch:
                time.sleep(0.001)
        return (time.thread_time() - began) / count * 1e6


def run(settings: Settings, source: Any, sink: Counting) -> None:
    """Run a flow of a source and a sink, as a dataflow's process does."""
    name = f"benchmark-{uuid.uuid4().hex[:8]}"

    def build() -> Dataflow:
        flow = Dataflow("benchmark")
        op.output("out", op.input("in", flow, source(name)), Sink(sink))
        return flow

    run_flow(name, build, settings)


def through_bytewax(settings: Settings, topic: str) -> float:
    """CPU microseconds a record of our source in a flow."""
    sink = Counting(RECORDS)
    run(settings, lambda name: KafkaSource([topic], group_of(name), settings), sink)
    return sink.seconds / sink.count * 1e6


def idle(settings: Settings, source: Callable[[str], Any]) -> float:
    """Share of a core, in percent, that a flow takes while nothing arrives."""
    shares: list[float] = []

    def watch() -> None:
        time.sleep(2.0)
        began, cpu = time.monotonic(), time.process_time()
        time.sleep(IDLE_SECONDS)
        shares.append((time.process_time() - cpu) / (time.monotonic() - began) * 100)
        lifecycle.request_stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    run(settings, source, Counting(sys.maxsize))
    watcher.join()
    return shares[0]


def main() -> dict[str, Any]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        settings = get_settings().model_copy(update={"state_dir": Path(folder)})
        admin = AdminClient(client_config(settings, "benchmark"))
        name = f"benchmark-{uuid.uuid4().hex[:8]}"
        topics = [name, *(f"{name}-idle-{number}" for number in range(IDLE_TOPICS))]
        for made in admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics]).values():
            made.result(15)
        try:
            producer = Producer(
                client_config(settings, "benchmark")
                | {"linger.ms": 20, "queue.buffering.max.messages": RECORDS, "allow.auto.create.topics": False}
            )
            for number in range(RECORDS):
                producer.produce(name, VALUE, b"%d" % number, partition=number % PARTITIONS)
            producer.flush()
            bare, ours = [], []
            for _ in range(ROUNDS):
                bare.append(raw(settings, name))
                ours.append(through_bytewax(settings, name))
                print(f"consume() {bare[-1]:.2f} us, source {ours[-1]:.2f} us a record")
            busy = idle(settings, lambda flow: KafkaSource(topics[1:], group_of(flow), settings))
            floor = idle(settings, lambda flow: NothingSource())
            print(
                f"idle: {busy:.1f} % of a core with {IDLE_TOPICS * PARTITIONS} partitions, {floor:.1f} % without Kafka"
            )
        finally:
            for gone in admin.delete_topics(topics).values():
                gone.result(15)
    value, ceiling = statistics.median(ours), statistics.median(bare)
    return finish(
        "source",
        value=round(value, 3),
        unit="us/record",
        ceiling=round(ceiling, 3),
        ratio=round(ceiling / value, 2),
        idle_cpu_percent=round(busy, 1),
        idle_cpu_percent_floor=round(floor, 1),
    )


if __name__ == "__main__":
    run_benchmark(main)
