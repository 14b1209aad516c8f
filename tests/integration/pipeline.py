"""What the tests of the way into Kafka share: the way itself, and a look at what comes out of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import OFFSET_END, Consumer, Message, TopicPartition

from connectors.connect import apply_all
from connectors.topics import ensure_topics
from fanline import addresses, avro
from fanline.migrations_runner import migrate
from fanline.settings import Settings
from schemas.registry import register_all


def open_pipeline(settings: Settings) -> None:
    """Everything up to running connectors; does nothing where it is there already."""
    migrate(settings)
    ensure_topics(settings)
    register_all(settings)
    apply_all(settings)


def decoder(settings: Settings) -> avro.AvroDecoder:
    return avro.AvroDecoder(avro.SchemaRegistry(addresses.registry_url(settings)).schema)


class Tail:
    """The records of some topics from now on."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.records: list[Message] = []

    def until(self, done: Callable[[list[Message]], bool], seconds: float = 30) -> list[Message]:
        """Read until `done` says so of all records so far; fails when it never does."""
        deadline = time.monotonic() + seconds
        while not done(self.records):
            assert time.monotonic() < deadline, f"not seen in {seconds} s; seen: {self.records}"
            message = self._consumer.poll(0.2)
            if message is not None:
                assert message.error() is None, message.error()
                self.records.append(message)
        return self.records


@contextmanager
def tail(settings: Settings, *topics: str) -> Iterator[Tail]:
    """A `Tail` that begins at the end of the topics as they are on entering."""
    consumer = Consumer(
        {
            "bootstrap.servers": addresses.kafka_bootstrap_servers(settings),
            "group.id": "fanline-test-tail",
            "enable.auto.commit": False,
        }
    )
    try:
        assigned = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ]
        for each in assigned:
            each.offset = consumer.get_watermark_offsets(each, timeout=10)[1]
        assert all(each.offset != OFFSET_END for each in assigned)
        consumer.assign(assigned)
        yield Tail(consumer)
    finally:
        consumer.close()
