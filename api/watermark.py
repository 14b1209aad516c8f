"""How far the flows have come, in the database's time: everything committed before the watermark is in the read models.

The CDC connector writes a heartbeat row every second. A heartbeat that is in Kafka proves that everything committed
before it is in Kafka too, as one connector reads one log. So: see a heartbeat, note where the flows' topics end, and
once every flow's consumer group has committed offsets up to there, the heartbeat's time is the watermark.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from confluent_kafka import OFFSET_END, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package exports them without saying so
    AdminClient,
    OffsetSpec,
)

from connectors.flows import FLOWS, HEARTBEAT_TOPIC, group_of
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, client_config, consumer_config, typed_errors
from fanline import addresses
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.settings import Settings

# How long a poll waits for a heartbeat that it has not seen, a little more than the connector's interval.
HEARTBEAT_SECONDS = 1.2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

Ends = dict[tuple[str, int], int]


class Watermark:
    """Polls Kafka; use it from one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._decoder = AvroDecoder(SchemaRegistry(addresses.registry_url(settings)).schema)
        self._admin: AdminClient | None = None
        self._heartbeats: KafkaConsumer | None = None
        self._heartbeat_ms = 0
        self._aim: tuple[int, Ends] | None = None
        self._passed_ms = 0

    def poll(self) -> int:
        """The watermark in ms, rounded down; raises `DependencyUnavailable` when Kafka does not answer."""
        with typed_errors(self._settings):
            if self._aim is None:
                self._see_heartbeat()
                if self._heartbeat_ms > self._passed_ms:
                    self._aim = self._heartbeat_ms, self._ends()
            if self._aim is not None and all(self._has_passed(flow, self._aim[1]) for flow in FLOWS):
                self._passed_ms = self._aim[0]
                self._aim = None
        return self._passed_ms

    def close(self) -> None:
        """Leave Kafka."""
        if self._heartbeats is not None:
            self._heartbeats.close()
            self._heartbeats = None

    def _see_heartbeat(self) -> None:
        if self._heartbeats is None:
            consumer = KafkaConsumer(
                consumer_config(self._settings, "fanline-api-watermark", "fanline-api-watermark")
                | {"auto.offset.reset": "latest", "enable.partition.eof": False}
            )
            consumer.assign([TopicPartition(HEARTBEAT_TOPIC, 0, OFFSET_END)])
            self._heartbeats = consumer
        messages = self._heartbeats.consume(1, timeout=HEARTBEAT_SECONDS)
        for message in messages + self._heartbeats.consume(100, timeout=0):
            fault = message.error()
            if fault is not None:
                raise KafkaException(fault)
            value = message.value()
            if value is not None:
                self._heartbeat_ms = max(self._heartbeat_ms, _milliseconds(self._decoder.decode(value)["ts"]))

    def _ends(self) -> Ends:
        admin = self._admin = self._admin or AdminClient(client_config(self._settings, "fanline-api-watermark"))
        topics = admin.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
        wanted = {
            TopicPartition(topic, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for names in FLOWS.values()
            for topic in names
            if topic in topics
            for partition in topics[topic].partitions
        }
        answers = admin.list_offsets(wanted, request_timeout=REQUEST_TIMEOUT_SECONDS)
        return {(where.topic, where.partition): answer.result().offset for where, answer in answers.items()}

    def _has_passed(self, flow: str, ends: Ends) -> bool:
        assert self._admin is not None
        mine = {where: end for where, end in ends.items() if where[0] in FLOWS[flow]}
        asked = ConsumerGroupTopicPartitions(group_of(flow), [TopicPartition(*where) for where in mine])
        (answer,) = self._admin.list_consumer_group_offsets([asked], request_timeout=REQUEST_TIMEOUT_SECONDS).values()
        offsets = {(found.topic, found.partition): found.offset for found in answer.result().topic_partitions}
        return all(end == 0 or offsets.get(where, -1) >= end for where, end in mine.items())


def _milliseconds(ts: Any) -> int:
    """A Debezium timestamp, which is an ISO string or what the Avro decoder made of one, as ms rounded down."""
    moment = ts if isinstance(ts, datetime) else datetime.fromisoformat(ts)
    return (moment - _EPOCH) // _MILLISECOND
