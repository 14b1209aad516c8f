"""The Kafka sink: every delivery report is counted, and a record that Kafka does not take ends the flow loudly."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.flows import flow_of
from connectors.kafka_clients import producer_config
from connectors.lifecycle import on_pulse
from connectors.messages import Progress
from connectors.progress import ProgressGate, Segment, commit_progress
from fanline.errors import FanlineError
from fanline.metrics import BATCH_SIZE
from fanline.settings import Settings, get_settings
from sinks.single_part import SinglePartSink, SinglePartWriter

# One wait between two looks at the delivery reports; each report ends the wait early.
POLL_SECONDS = 0.5


class DeliveryFailed(FanlineError):
    """Kafka did not take some records; the flow stops before anything after them is passed on."""


class KafkaRecord(NamedTuple):
    """A record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int = 0
    """Its time; 0 for the time at which it is produced."""


class KafkaSink(SinglePartSink[KafkaRecord | Progress, None]):
    """Produces `KafkaRecord` items; commits `Progress` items to `group` when all records before them are delivered."""

    def __init__(self, group: str, settings: Settings | None = None) -> None:
        self._group, self._settings = group, settings or get_settings()

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "KafkaWriter":
        """The sink's part."""
        return KafkaWriter(self._group, self._settings)


class KafkaWriter(SinglePartWriter[Any, None]):
    """The sink's part."""

    def __init__(self, group: str, settings: Settings) -> None:
        self._gate = ProgressGate(partial(commit_progress, group))
        self._producer = Producer(producer_config(settings, f"{group}-sink"))
        self._failures = 0
        self._first_failure = ""
        self._sizes = BATCH_SIZE.labels(flow_of(group), "kafka")
        on_pulse(self.pulse)

    def write_batch(self, values: list[Any]) -> None:
        """Hand the records to the producer; raises `DeliveryFailed` when an earlier one was not taken."""
        records = 0
        for value in values:
            if type(value) is Progress:
                self._gate.progress(value)
            else:
                self._produce(value)
                records += 1
        if records:
            self._sizes.observe(records)
        self.pulse()

    def pulse(self) -> None:
        """Take in delivery reports."""
        self._producer.poll(0)
        self._raise_failures()

    def snapshot(self) -> None:
        """Wait for every delivery report; raises `DeliveryFailed` unless all records were taken."""
        while self._producer.flush(POLL_SECONDS):
            self._raise_failures()
        self._raise_failures()

    def _produce(self, record: KafkaRecord) -> None:
        report = partial(self._delivered, self._gate.sent())
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    headers=list(record.headers),
                    timestamp=record.timestamp_ms,
                    on_delivery=report,
                )
                return
            except BufferError:
                self._producer.poll(POLL_SECONDS)
            except KafkaException as error:
                self._failed(record.topic, error.args[0])
                return

    def _delivered(self, segment: Segment, error: KafkaError | None, record: Any) -> None:
        if error is not None:
            self._failed(record.topic(), error)
        else:
            self._gate.acknowledged(segment)

    def _failed(self, topic: str, error: KafkaError) -> None:
        self._failures += 1
        self._first_failure = self._first_failure or f"{topic}: {error.str()}"

    def _raise_failures(self) -> None:
        if self._failures:
            raise DeliveryFailed(
                f"Kafka did not take {self._failures} record{'s' * (self._failures > 1)}; the first failure was "
                f"{self._first_failure.rstrip('.')}."
            )
