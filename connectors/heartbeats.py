"""Reads the heartbeat row's changes: once the change of a time T is in Kafka, so is every commit before T.

On Postgres, Debezium sends a connector's changes in the order of the commits, so a heartbeat that has arrived vouches
for all before it. On CockroachDB a changefeed's rows come in no such order and vouch for nothing; its `resolved`
messages, which come to the topics of all its tables, say up to when everything has been sent.
"""

from datetime import datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.flows import HEARTBEAT_TOPIC
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, consumer_config, typed_error
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.changes import row_change, table_of
from fanline.cockroach import parse_message, resolved_us
from fanline.errors import MalformedEvent
from fanline.settings import Settings


class Heartbeats:
    """The end of the heartbeat topic. One thread only."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._consumer = Consumer(consumer_config(settings, "fanline-heartbeats", client_id))
        self._decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
        self._assigned = False

    def newest_us(self, timeout: float = 0.0) -> int | None:
        """The newest time (microseconds since the epoch) that has arrived since the last call, None if none has.

        The first call starts at the newest record that is there. Waits up to `timeout` seconds for a record. Raises
        `DependencyUnavailable` when Kafka or the registry does not answer.
        """
        try:
            if not self._assigned and not self._assign():
                return None
            # A wait ends with the first record; `consume` alone would wait for its full number of them.
            first = self._consumer.consume(1, timeout)
            times = [self._time_us(record) for record in first + self._consumer.consume(500, 0)]
        except KafkaException as error:
            raise typed_error(self._settings, error.args[0]) from error
        return max((time for time in times if time is not None), default=None)

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()

    def _assign(self) -> bool:
        topic = self._consumer.list_topics(HEARTBEAT_TOPIC, timeout=REQUEST_TIMEOUT_SECONDS).topics[HEARTBEAT_TOPIC]
        if topic.error is not None:
            return False
        starts = []
        for partition in topic.partitions:
            place = TopicPartition(HEARTBEAT_TOPIC, partition)
            low, high = self._consumer.get_watermark_offsets(place, timeout=REQUEST_TIMEOUT_SECONDS)
            starts.append(TopicPartition(HEARTBEAT_TOPIC, partition, max(low, high - 1)))
        self._consumer.assign(starts)
        self._assigned = True
        return True

    def _time_us(self, record: object) -> int | None:
        error: KafkaError | None = record.error()  # type: ignore[attr-defined]
        if error is not None:
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                self._assigned = False
            return None
        value: bytes | None = record.value()  # type: ignore[attr-defined]
        if value is None:
            return None
        table = table_of(HEARTBEAT_TOPIC)
        if value.startswith(b"{"):
            return resolved_us(parse_message(table, value))
        row = self._decoder.decode(value)
        if "__source_ts_hlc" in row:
            return None
        change = row_change(table, row)
        if change.op == "d":
            return None
        try:
            return microseconds(datetime.fromisoformat(str(change.row["ts"])))
        except (KeyError, ValueError) as fault:
            raise MalformedEvent(f"A heartbeat has no time that can be read: {change.row!r}.") from fault


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch, exactly."""
    return round(moment.timestamp() * 1_000_000)
