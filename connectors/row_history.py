"""Finds the records of single rows and things in topics, by their keys: what the log says of them.

Topics are read from a time on, not through an index: a look takes as long as there is log since then.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from connectors.discovery import list_partitions
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, consumer_config, quiet_config, typed_errors
from connectors.payload import Payloads
from fanline.settings import Settings

# Clocks of the API, the database and Kafka differ by less.
MARGIN_MS = 60_000
BATCH = 2_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Records of a topic, from a time on, whose key contains one of some byte strings."""

    topic: str
    needles: tuple[bytes, ...]
    since_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was found; `value` is decoded as far as it can be read, None for a tombstone."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: Any


def long_in_key(number: int) -> bytes:
    """How Avro writes a 64-bit number: what a row's key contains."""
    rest, written = (number << 1) ^ (number >> 63), bytearray()
    while rest > 0x7F:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*written, rest])


def find(settings: Settings, wanted: Iterable[Wanted], seconds: float = 30.0) -> tuple[list[Record], bool]:
    """The records in the order of their times, and whether all topics were read to their ends within `seconds`.

    Raises `DependencyUnavailable` when Kafka does not answer. Topics that do not exist have no records.
    """
    by_topic: dict[str, list[Wanted]] = {}
    for each in wanted:
        by_topic.setdefault(each.topic, []).append(each)
    consumer = Consumer(consumer_config(settings, "fanline-why", "fanline-why") | quiet_config())
    payloads = Payloads(settings)
    found: list[Record] = []
    try:
        with typed_errors(settings):
            ends = _assign(consumer, settings, by_topic)
            deadline = time.monotonic() + seconds
            while ends and time.monotonic() < deadline:
                for record in consumer.consume(BATCH, 0.2):
                    topic, partition, offset = str(record.topic()), record.partition() or 0, record.offset() or 0
                    error: KafkaError | None = record.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            ends.pop((topic, partition), None)
                        continue
                    key = record.key() or b""
                    if any(needle in key for each in by_topic[topic] for needle in each.needles):
                        value = payloads.decoded(record.value())
                        found.append(Record(topic, partition, offset, record.timestamp()[1], value))
                    if offset + 1 >= ends.get((topic, partition), 0):
                        ends.pop((topic, partition), None)
    finally:
        consumer.close()
    return sorted(found, key=lambda record: (record.timestamp_ms, record.topic, record.offset)), not ends


def _assign(consumer: Consumer, settings: Settings, by_topic: dict[str, list[Wanted]]) -> dict[tuple[str, int], int]:
    """Begin at the wanted times; the ends of the partitions that have anything since."""
    places: Sequence[tuple[str, int]] = list_partitions(consumer, tuple(by_topic), settings)
    times = [
        TopicPartition(topic, partition, max(0, min(each.since_ms for each in by_topic[topic]) - MARGIN_MS))
        for topic, partition in places
    ]
    starts, ends = [], {}
    for start in consumer.offsets_for_times(times, timeout=REQUEST_TIMEOUT_SECONDS) if times else []:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(start.topic, start.partition), timeout=REQUEST_TIMEOUT_SECONDS
        )
        offset = max(low, start.offset) if start.offset >= 0 else high
        if offset < high:
            starts.append(TopicPartition(start.topic, start.partition, offset))
            ends[start.topic, start.partition] = high
    consumer.assign(starts)
    return ends
