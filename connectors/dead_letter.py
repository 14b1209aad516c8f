"""Dead letters: records that a flow cannot understand, kept with the reason in a topic of their own.

A dead letter has the key and value of the record, and headers `reason`, `original_topic`, `original_partition`,
`original_offset` and `original_timestamp` (ms), followed by the record's own headers. It is delivered before anything
after the record is passed on. A replay after a crash may repeat it, with the same original offset.
"""

from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported without saying so

from connectors.brake import Brake
from connectors.flows import dead_letter_topic
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, client_config, producer_config, typed_error
from connectors.messages import Message, Replayed
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger
from fanline.metrics import DEAD_LETTERS
from fanline.settings import Settings, get_settings

# More than a broker accepts: it is the broker that decides what is too large.
MAX_REQUEST_BYTES = 256 * 1024 * 1024
# Longer than the delivery timeout, after which every letter has been delivered or has failed.
FLUSH_SECONDS = 90.0
MAX_REASON_CHARACTERS = 500

_log = get_logger(__name__)


class DeadLetters:
    """One flow's dead letters and its brake."""

    def __init__(self, flow: str, settings: Settings | None = None) -> None:
        self._settings = settings or get_settings()
        self._flow = flow
        self._topic = dead_letter_topic(flow)
        self._producer: Producer | None = None
        self._undelivered: list[tuple[Message, str, KafkaError]] = []
        self.brake = Brake(
            flow,
            window=self._settings.dead_letter_window,
            ratio=self._settings.dead_letter_ratio,
            consecutive=self._settings.dead_letter_consecutive,
        )

    def reject(self, message: Message, reason: BaseException) -> None:
        """Send a record to the dead letters; `flush` before anything after it is passed on.

        Raises `DeadLetterBrake` when that was one too many; the letter itself is sent all the same.
        """
        kind, text = type(reason).__name__, str(reason)[:MAX_REASON_CHARACTERS]
        DEAD_LETTERS.labels(self._flow, kind).inc()
        _log.warning(
            "record rejected",
            flow=self._flow,
            reason=text,
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
        )
        self._produce(message, text, message.value)
        # A person has sent it back on purpose: a hundred that are still bad are no bad deployment.
        if not isinstance(message, Replayed):
            self.brake.rejected(text)

    def flush(self) -> None:
        """Wait until every letter is delivered; raises `DependencyUnavailable` when Kafka does not take one."""
        if self._producer is None:
            return
        while len(self._producer):
            if self._producer.flush(FLUSH_SECONDS):
                raise DependencyUnavailable(f"Kafka does not take the dead letters of {self._flow}.")
            self._without_value()
        self._without_value()

    def _make_topic(self) -> None:
        """Make the topic unless it is there (`fanline topics` makes it with its retention)."""
        admin = AdminClient(client_config(self._settings, f"dead-letter-{self._flow}"))
        topic = NewTopic(self._topic, 1, self._settings.kafka_replication_factor)
        try:
            admin.create_topics([topic], request_timeout=REQUEST_TIMEOUT_SECONDS)[self._topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise typed_error(self._settings, error.args[0]) from error

    def _without_value(self) -> None:
        """Send what was too large once more, without its value, which the original topic still has for a while."""
        undelivered, self._undelivered = self._undelivered, []
        for message, reason, error in undelivered:
            if error.code() != KafkaError.MSG_SIZE_TOO_LARGE or message.value is None:
                raise DependencyUnavailable(
                    f"Kafka does not take a dead letter of {self._flow} ({message.topic} [{message.partition}] offset "
                    f"{message.offset}): {error.str()}."
                )
            omitted = (("omitted_value_bytes", b"%d" % len(message.value)),)
            self._produce(message._replace(value=None, headers=(*message.headers, *omitted)), reason, None)
        if undelivered:
            self.flush()

    def _produce(self, message: Message, reason: str, value: bytes | None) -> None:
        if self._producer is None:
            self._make_topic()
            config = producer_config(self._settings, f"dead-letter-{self._flow}")
            self._producer = Producer(config | {"message.max.bytes": MAX_REQUEST_BYTES, "linger.ms": 0})
        headers: list[tuple[str, Any]] = [
            ("reason", reason.encode()),
            ("original_topic", message.topic.encode()),
            ("original_partition", b"%d" % message.partition),
            ("original_offset", b"%d" % message.offset),
            ("original_timestamp", b"%d" % message.timestamp_ms),
            *message.headers,
        ]

        def delivered(error: KafkaError | None, _record: object) -> None:
            if error is not None:
                self._undelivered.append((message, reason, error))

        while True:
            try:
                self._producer.produce(self._topic, value, message.key, headers=headers, on_delivery=delivered)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                self._undelivered.append((message, reason, error.args[0]))
                return
