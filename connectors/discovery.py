"""Finds the partitions that an instance of a flow has to read, at its start and while it runs."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException

from connectors.flows import owned
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, typed_error, typed_errors
from connectors.waiting import Waiting
from fanline.settings import Settings

T = TypeVar("T")


def list_partitions(consumer: Consumer, topics: Sequence[str], settings: Settings) -> list[tuple[str, int]]:
    """The instance's partitions of the topics that exist; raises KafkaException."""
    existing = consumer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
    return [
        (topic, partition)
        for topic in topics
        if topic in existing and existing[topic].error is None
        for partition in sorted(existing[topic].partitions)
        if owned(partition, settings.flow_instance, settings.flow_instances)
    ]


def until_answered(request: Callable[[], T], settings: Settings) -> T:
    """Repeat a request until Kafka answers.

    Raises `ConfigurationError` when waiting cannot help, and `DependencyUnavailable` when the process is to stop.
    """

    def attempt() -> T:
        with typed_errors(settings):
            return request()

    return Waiting("source").patiently(attempt)


class PartitionWatch:
    """A thread that looks for new topics and partitions now and then, and whether Kafka answers."""

    def __init__(
        self,
        consumer: Consumer,
        topics: Sequence[str],
        settings: Settings,
        known: Sequence[tuple[str, int]],
        waiting: Waiting,
    ) -> None:
        self.found: list[tuple[str, int]] = []
        self._consumer, self._topics, self._settings = consumer, topics, settings
        self._known, self._waiting = set(known), waiting
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-partitions", daemon=True)
        self._thread.start()

    def take(self) -> list[tuple[str, int]]:
        """The partitions found since the last call."""
        found, self.found = self.found, []
        return found

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._settings.kafka_discovery_seconds):
            try:
                partitions = list_partitions(self._consumer, self._topics, self._settings)
            except KafkaException as error:
                self._waiting.note(typed_error(self._settings, error.args[0]))
                continue
            self._waiting.passed()
            new = [partition for partition in partitions if partition not in self._known]
            self._known.update(new)
            if new:
                self.found = self.found + new
