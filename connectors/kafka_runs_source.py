"""The Kafka source that gives records as columns, taken out of the client without a step of Python for each."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import confluent_kafka

from connectors.kafka_source import BATCH_RECORDS, KafkaReader, KafkaSource, Resume, Snapshot
from connectors.record_runs import Records, in_runs
from fanline.settings import Settings

# Its methods are called unbound; the stubs tell of None where only an event of the client has it.
Record: Any = confluent_kafka.Message


class KafkaRunsSource(KafkaSource):
    """The Kafka source, which gives plain records as `Records`; those that were sent back come as `Replayed`.

    Up to `most` records are taken at a time; fewer than `least` come as they are, each by itself.
    """

    def __init__(
        self,
        topics: Sequence[str],
        group: str,
        settings: Settings | None = None,
        *,
        resume: Resume = "snapshot",
        least: int = 1,
        most: int = BATCH_RECORDS,
    ) -> None:
        super().__init__(topics, group, settings, resume=resume)
        self._least, self._most = least, most

    def _open(self, saved: Snapshot) -> "KafkaRunsReader":
        return KafkaRunsReader(self.topics, self.group, self._settings, saved, self._least, self._most)


class KafkaRunsReader(KafkaReader):
    """The source's part."""

    def __init__(
        self, topics: Sequence[str], group: str, settings: Settings, saved: Snapshot, least: int, most: int
    ) -> None:
        super().__init__(topics, group, settings, saved)
        self._least, self.batch_records = least, most

    def _take(self, records: Sequence[Any]) -> list[Any]:
        if len(records) < self._least:
            return super()._take(records)
        topics = list(map(Record.topic, records))
        if self._retries in topics or any(map(Record.error, records)):
            return list(in_runs(super()._take(records)))
        items: list[Any] = []
        end = 0
        for topic, partition, length in _runs(topics, list(map(Record.partition, records))):
            start, end = end, end + length
            items.append(made := _columns(topic, partition, records[start:end]))
            self._passed_to(topic, partition, int(made.offsets[-1]), int(made.timestamps_ms[-1]))
            self._records[topic].inc(len(made))
        self._waiting.passed()
        self._schedule()
        return items


def _runs(topics: list[str], partitions: list[int]) -> Iterator[tuple[str, int, int]]:
    """Topic, partition and length of each run."""
    # Mostly all are of one partition, which counting shows ten times as fast as grouping.
    if topics.count(topics[0]) == partitions.count(partitions[0]) == len(topics):
        yield topics[0], partitions[0], len(topics)
        return
    for (topic, partition), run in groupby(zip(topics, partitions, strict=True)):
        yield topic, partition, sum(1 for _ in run)


def _columns(topic: str, partition: int, records: Sequence[Any]) -> Records:
    return Records.of(
        topic,
        partition,
        map(Record.offset, records),
        list(map(Record.key, records)),
        list(map(Record.value, records)),
        [headers or () for headers in map(Record.headers, records)],
        (timestamp_ms for _, timestamp_ms in map(Record.timestamp, records)),
    )
