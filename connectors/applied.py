"""How far topics go and how far flows have come: end offsets, and the offsets that groups have committed."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported without saying so

from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, client_config, quiet_config, typed_error
from connectors.offsets import Partition
from fanline.errors import DependencyUnavailable
from fanline.settings import Settings

Offsets = dict[Partition, int]


class Commit(NamedTuple):
    """A committed offset, and who committed it: `0/2` is the first of two instances, empty an operator."""

    offset: int
    by: str


# A request to a group's coordinator that times out can abort the process, by an assertion in librdkafka (its issues
# 3663 and 4605). These practically never do: who asked stops waiting long before, and waits for the same answer again.
_COORDINATOR_TIMEOUT_SECONDS = 3_600.0

_NO_LEADER = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class AppliedOffsets:
    """Asks Kafka; every method raises `DependencyUnavailable` when it does not answer."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._admin = AdminClient(client_config(settings, client_id) | quiet_config())
        self._asked: dict[tuple[str, tuple[Partition, ...]], Future[Any]] = {}

    def partitions(self, topics: Iterable[str]) -> list[Partition]:
        """Every partition of the topics that exist."""
        try:
            existing = self._admin.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
        except KafkaException as error:
            raise typed_error(self._settings, error.args[0]) from error
        return [
            (topic, partition)
            for topic in topics
            if topic in existing
            for partition in sorted(existing[topic].partitions)
        ]

    def ends(self, partitions: Iterable[Partition]) -> Offsets:
        """The offset that each partition's next record will get."""
        return self._listed(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def starts(self, partitions: Iterable[Partition]) -> Offsets:
        """The offset of the oldest record that each partition still has, or its end."""
        return self._listed(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def at(self, partitions: Iterable[Partition], time_ms: int) -> Offsets:
        """The offset of the first record of each partition that is not older than a time, or its end."""
        places = list(partitions)
        found = self._listed(places, OffsetSpec.for_timestamp(time_ms))
        ends = self.ends(place for place in places if found[place] < 0)
        return {place: offset if offset >= 0 else ends[place] for place, offset in found.items()}

    def _listed(self, partitions: Iterable[Partition], spec: OffsetSpec) -> Offsets:
        wanted = {TopicPartition(*partition): spec for partition in partitions}
        if not wanted:
            return {}
        deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        while True:
            answers = self._admin.list_offsets(wanted, request_timeout=REQUEST_TIMEOUT_SECONDS)
            try:
                return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}
            except KafkaException as error:
                # A partition that was just made has no leader for a moment.
                if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                    raise typed_error(self._settings, error.args[0]) from error
            time.sleep(0.02)

    def committed(self, groups: Mapping[str, Iterable[Partition]]) -> dict[str, Offsets]:
        """What each group has committed for its partitions; 0 where it has committed nothing."""
        return {
            group: {place: 0 if commit is None else commit.offset for place, commit in commits.items()}
            for group, commits in self.commits(groups).items()
        }

    def commits(self, groups: Mapping[str, Iterable[Partition]]) -> dict[str, dict[Partition, Commit | None]]:
        """Each group's commit for each of its partitions, None where it has made none.

        After a call that was not answered in time it may be that of some seconds ago.
        """
        wanted = {group: tuple(partitions) for group, partitions in groups.items()}
        asked = [(group, places) for group, places in wanted.items() if places]
        answers = {key: self._asked.get(key) or self._ask(*key) for key in asked}
        self._asked |= answers
        deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        return {
            key[0]: {
                (place.topic, place.partition): _commit(place)
                for place in self._result(key, answer, deadline).topic_partitions
            }
            for key, answer in answers.items()
        }

    def _ask(self, group: str, places: tuple[Partition, ...]) -> "Future[Any]":
        request = [ConsumerGroupTopicPartitions(group, [TopicPartition(*place) for place in places])]
        answers = self._admin.list_consumer_group_offsets(request, request_timeout=_COORDINATOR_TIMEOUT_SECONDS)
        answer: Future[Any] = answers[group]
        return answer

    def _result(self, asked: tuple[str, tuple[Partition, ...]], answer: "Future[Any]", deadline: float) -> Any:
        try:
            result = answer.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise DependencyUnavailable("Kafka does not tell the offsets of a consumer group in time.") from error
        except KafkaException as error:
            self._asked.pop(asked, None)
            raise typed_error(self._settings, error.args[0]) from error
        self._asked.pop(asked, None)
        return result


def _commit(place: TopicPartition) -> Commit | None:
    return Commit(place.offset, place.metadata or "") if place.offset >= 0 else None
