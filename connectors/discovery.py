"""Finds the partitions that an instance of a flow has to read, at its start and while it runs."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException

from connectors.flows import owned
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, is_configuration_error, typed_error
from connectors.lifecycle import stop_requested
from fanline.logging import get_logger
from fanline.settings import Settings

T = TypeVar("T")

_log = get_logger(__name__)


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
    """Repeat a request until Kafka answers, logging that it waits.

    Raises `ConfigurationError` when waiting cannot help, and `DependencyUnavailable` when the process is to stop.
    """
    pause = threading.Event()
    waiting = False
    while True:
        try:
            return request()
        except KafkaException as error:
            fault = error.args[0]
            if is_configuration_error(fault) or stop_requested():
                raise typed_error(settings, fault) from error
            if not waiting:
                waiting = True
                _log.warning("waiting for kafka", error=fault.str())
            pause.wait(0.2)


class PartitionWatch:
    """A thread that looks for new topics and partitions now and then."""

    def __init__(
        self, consumer: Consumer, topics: Sequence[str], settings: Settings, known: Sequence[tuple[str, int]]
    ) -> None:
        self.found: list[tuple[str, int]] = []
        self._consumer, self._topics, self._settings = consumer, topics, settings
        self._known = set(known)
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
                _log.debug("no list of partitions", error=str(error))
                continue
            new = [partition for partition in partitions if partition not in self._known]
            self._known.update(new)
            if new:
                self.found = self.found + new
