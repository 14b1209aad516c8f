"""How far flows are behind their topics, asked of Kafka alone: also true of a flow that does not run."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from connectors.applied import AppliedOffsets, Commit, Offsets
from connectors.flows import FLOWS, group_of, topics_of
from connectors.kafka_clients import consumer_config, quiet_config, typed_errors
from connectors.offsets import Partition
from fanline.settings import Settings

# The first records of a few partitions take milliseconds; a partition whose record does not come has no time.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Behind:
    """How far a flow is behind in one partition."""

    flow: str
    topic: str
    partition: int
    committed: int
    end: int
    records: int
    """Offsets between what is applied and the end; compaction may have left fewer records."""
    seconds: float
    """Age of the oldest record that is not applied; 0 when there is none."""
    by: str = ""
    """The instance that has committed last: `0/2` is the first of two; empty: nobody, or an operator."""


class Backlog:
    """Measures; keeps its connections. One thread only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._offsets = AppliedOffsets(settings, "fanline-lag")
        self._consumer: Consumer | None = None

    def close(self) -> None:
        """Leave Kafka."""
        if self._consumer is not None:
            self._consumer.close()

    def measure(self, flows: Iterable[str] = tuple(FLOWS)) -> list[Behind]:
        """Every partition of the flows, in their order; raises `DependencyUnavailable`."""
        topics = {flow: topics_of(flow) for flow in flows}
        existing = self._offsets.partitions({topic for each in topics.values() for topic in each})
        places = {flow: [place for place in existing if place[0] in topics[flow]] for flow in topics}
        # Ends after commits: a commit past the end would look like none.
        commits = self._offsets.commits({group_of(flow): each for flow, each in places.items()})
        ends, starts = self._offsets.ends(existing), self._offsets.starts(existing)
        stands = {
            (flow, place): commits[group_of(flow)][place] or Commit(0, "")
            for flow, each in places.items()
            for place in each
        }
        applied = {
            flow: {place: max(stands[flow, place].offset, starts[place]) for place in each}
            for flow, each in places.items()
            if each
        }
        ages = self._ages(applied, ends)
        return [
            Behind(
                flow,
                *place,
                stands[flow, place].offset,
                ends[place],
                max(0, ends[place] - offset),
                ages.get((place, offset), 0.0),
                stands[flow, place].by,
            )
            for flow, offsets in applied.items()
            for place, offset in sorted(offsets.items(), key=lambda item: (topics[flow].index(item[0][0]), item[0][1]))
        ]

    def _ages(self, applied: Mapping[str, Offsets], ends: Offsets) -> dict[tuple[Partition, int], float]:
        """Seconds since the record at each offset that is below its partition's end."""
        pending = {
            (place, offset) for offsets in applied.values() for place, offset in offsets.items() if offset < ends[place]
        }
        ages: dict[tuple[Partition, int], float] = {}
        # One look for each flow that stands elsewhere in the same partition.
        while pending:
            look = dict(sorted(pending, reverse=True))
            pending -= set(look.items())
            for place, time_ms in self._times(look).items():
                ages[place, look[place]] = max(0.0, time.time() - time_ms / 1_000)
        return ages

    def _times(self, look: Offsets) -> dict[Partition, int]:
        """The time of the first record at or after each offset, in ms."""
        if self._consumer is None:
            config = consumer_config(self._settings, "fanline-lag", "fanline-lag") | quiet_config()
            self._consumer = Consumer(config)
        times: dict[Partition, int] = {}
        left = set(look)
        deadline = time.monotonic() + LOOK_SECONDS
        with typed_errors(self._settings):
            self._consumer.assign([TopicPartition(*place, offset) for place, offset in look.items()])
            while left and time.monotonic() < deadline:
                record = self._consumer.poll(max(0.0, deadline - time.monotonic()))
                if record is None or (place := (str(record.topic()), int(record.partition() or 0))) not in left:
                    continue
                left.discard(place)
                if record.error() is None:
                    times[place] = record.timestamp()[1]
            self._consumer.unassign()
        return times
