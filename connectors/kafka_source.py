"""The Kafka source: one consumer and one Bytewax part a process, for all its partitions.

Bytewax calls every part of a source on its own timer, so a part a partition would make idle partitions cost a call
each a millisecond, and a part that sleeps cannot be woken by another's data. One part takes batches of all partitions
as librdkafka has them, in order within each, and takes up new partitions while it runs.
"""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from connectors.discovery import PartitionWatch, list_partitions, until_answered
from connectors.flows import UNHURRIED, flow_of, retry_topic
from connectors.kafka_clients import (
    REQUEST_TIMEOUT_SECONDS,
    consumer_config,
    is_configuration_error,
    typed_error,
    unhurried_config,
)
from connectors.lag import PartitionLag
from connectors.lifecycle import pulse, stop_requested
from connectors.messages import Message, Progress
from connectors.offsets import Partition, assignment
from connectors.progress import GroupOffsets, layout_of, register
from connectors.replay import replayed
from connectors.waiting import Waiting
from fanline.errors import StaleOffset
from fanline.logging import get_logger
from fanline.metrics import RECORDS
from fanline.settings import Settings, get_settings

# Not named after the instance's layout: Bytewax refuses a store that has a part which it does not know.
PART = "partitions"
BATCH_RECORDS = 500
# Often enough for readers who wait for their own write, seldom enough that commits cost Kafka nothing.
PROGRESS_SECONDS = 0.1
UNHURRIED_PROGRESS_SECONDS = 0.5
# Kafka forgets a group's offset that nobody has committed for a week; partitions may be idle for longer.
REPEAT_PROGRESS_SECONDS = 3600.0
# Bytewax wakes up every millisecond anyhow (2.4 % of a core); a poll each time doubles that.
BUSY_SECONDS = 1.0
BUSY_POLL = timedelta(milliseconds=4)
IDLE_POLL = timedelta(milliseconds=10)
# A batch costs a flow more than most of its records do: round trips, queries, commits.
UNHURRIED_POLL = timedelta(milliseconds=100)

_log = get_logger(__name__)

Item = Message | Progress
Snapshot = dict[Partition, int]
Resume = Literal["snapshot", "committed"]


class KafkaSource(FixedPartitionedSource[Item, Snapshot]):
    """Records of some topics and of the flow's retry topic, and their progress, for one instance of a flow.

    Starts from the recovery snapshot, else the group's committed offset, else the earliest record (the
    exact rule: `starting_offset`). Raises `StaleOffset` when that offset is no longer in Kafka. Topics that do not
    exist yet are read as soon as they do.
    """

    def __init__(
        self, topics: Sequence[str], group: str, settings: Settings | None = None, *, resume: Resume = "snapshot"
    ) -> None:
        """`resume="committed"` ignores snapshots: for a sink that acknowledges later than a snapshot is taken."""
        self.topics = tuple(topics)
        self.group = group
        self._resume = resume
        self._settings = settings or get_settings()

    def list_parts(self) -> list[str]:
        """One part: this instance's share of the partitions."""
        return [PART]

    def build_part(self, step_id: str, for_part: str, resume_state: Snapshot | None) -> "KafkaReader":
        """Connect and assign; waits for Kafka."""
        saved = {} if self._resume == "committed" else resume_state
        return self._open(saved or {})

    def _open(self, saved: Snapshot) -> "KafkaReader":
        return KafkaReader(self.topics, self.group, self._settings, saved)


class _Position:
    """Where reading is in one partition, and what was told of it."""

    __slots__ = ("end", "lag", "next", "timestamp_ms", "told", "told_at")

    def __init__(self, lag: PartitionLag) -> None:
        self.lag = lag
        self.next: int | None = None
        self.end: int | None = None
        self.timestamp_ms = 0
        self.told: int | None = None
        self.told_at = float("-inf")


class KafkaReader(StatefulSourcePartition[Item, Snapshot]):
    """The source's part."""

    batch_records = BATCH_RECORDS
    """Records that are taken at a time, at most."""

    def __init__(self, topics: Sequence[str], group: str, settings: Settings, saved: Snapshot) -> None:
        self._group, self._settings, self._saved = group, settings, saved
        client_id = f"{group}-{settings.flow_instance}"
        self._unhurried = flow_of(group) in UNHURRIED
        self._progress_seconds = UNHURRIED_PROGRESS_SECONDS if self._unhurried else PROGRESS_SECONDS
        self._consumer = Consumer(
            consumer_config(settings, group, client_id)
            | (unhurried_config() if self._unhurried else {})
            | {"on_commit": self._on_commit, "error_cb": self._on_error}
        )
        self._offsets = GroupOffsets(group, settings, self._consumer)
        register(self._offsets)
        self._records = {topic: RECORDS.labels(flow_of(group), topic) for topic in topics}
        self._retries = retry_topic(flow_of(group))
        topics = (*topics, self._retries)
        self._positions: dict[Partition, _Position] = {}
        self._starts: dict[Partition, int] = {}
        self._untold: set[Partition] = set()
        self._tell_at = float("inf")
        self._told_at = float("-inf")
        self._busy_until = 0.0
        self._was_full = False
        self._ended = False
        self._waiting = Waiting("source")
        known = until_answered(lambda: list_partitions(self._consumer, topics, settings), settings)
        for topic in sorted(self._records.keys() - {topic for topic, _ in known}):
            _log.warning("topic has no partition for this instance yet", topic=topic)
        self._assign(known)
        self._watch = PartitionWatch(self._consumer, topics, settings, known, self._waiting)

    def next_batch(self) -> list[Item]:
        """What has arrived, and the progress that is due."""
        pulse()
        self._offsets.serve()
        if self._ended:
            raise StopIteration
        if stop_requested():
            self._ended = True
            return self._tell(float("inf"))
        if self._watch.found:
            self._assign(self._watch.take())
        records = self._consumer.consume(self.batch_records, 0)
        items = self._take(records) if records else []
        now = time.monotonic()
        if now >= self._tell_at:
            items += self._tell(now)
        self._was_full = len(records) == self.batch_records
        if items:
            self._busy_until = now + BUSY_SECONDS
        return items

    def next_awake(self) -> datetime | None:
        """At once after a full batch; else after `BUSY_POLL` while records keep coming, and `IDLE_POLL` later on.

        A flow that is `UNHURRIED` comes back after `UNHURRIED_POLL`.
        """
        if self._was_full:
            return None
        if self._unhurried:
            return datetime.now(UTC) + UNHURRIED_POLL
        return datetime.now(UTC) + (BUSY_POLL if time.monotonic() < self._busy_until else IDLE_POLL)

    def snapshot(self) -> Snapshot:
        """The next offset of each partition."""
        return self._saved | {
            partition: position.next for partition, position in self._positions.items() if position.next is not None
        }

    def close(self) -> None:
        """Stop reading; the connection stays for the last commits (`connectors.progress.close_groups`)."""
        self._watch.close()
        self._consumer.unassign()

    def _assign(self, new: Sequence[Partition]) -> None:
        if not new:
            return
        wanted = [TopicPartition(topic, partition) for topic, partition in new]
        committed = until_answered(
            lambda: self._consumer.committed(wanted, timeout=REQUEST_TIMEOUT_SECONDS), self._settings
        )
        starts = assignment(self._saved, committed, layout_of(self._settings))
        self._starts |= starts
        for topic, partition in new:
            position = _Position(self._offsets.lag(topic, partition))
            start = starts[topic, partition]
            position.next = start if start >= 0 else None
            self._positions[topic, partition] = position
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING if position.next is None else position.next)
                for (topic, partition), position in self._positions.items()
            ]
        )
        _log.info("partitions assigned", group=self._group, starts={f"{t}-{p}": o for (t, p), o in starts.items()})

    def _take(self, records: Sequence[Any]) -> list[Item]:
        items: list[Item] = []
        append, new, kind = items.append, tuple.__new__, Message
        last: Message | None = None
        run_topic, run_partition = "", -1
        retried = False
        for record in records:
            error = record.error()
            if error is not None:
                if last is not None:
                    self._passed(last)
                    last = None
                self._on_event(record, error)
                continue
            topic, partition = record.topic(), record.partition()
            # Records of a partition come in runs: noting the last of each run is enough.
            if partition != run_partition or topic != run_topic:
                if last is not None:
                    self._passed(last)
                run_topic, run_partition = topic, partition
                retried = retried or topic == self._retries
            # Twice as fast as calling the class, which goes through a Python function.
            last = new(
                kind,
                (
                    topic,
                    partition,
                    record.offset(),
                    record.key(),
                    record.value(),
                    record.headers() or (),
                    record.timestamp()[1],
                ),
            )
            append(last)
        if last is not None:
            self._passed(last)
        if retried:
            items = self._as_they_were(items)
        if items:
            self._waiting.passed()
            self._count(items)
        self._schedule()
        return items

    def _as_they_were(self, items: list[Item]) -> list[Item]:
        """The items, those of the retry topic as they were in their own topics."""
        made: list[Item] = []
        for item in items:
            if type(item) is Message and item.topic == self._retries:
                found = replayed(item)
                if found is None:
                    _log.warning("record in the retry topic without its origin", topic=item.topic, offset=item.offset)
                    continue
                item = found
            made.append(item)
        return made

    def _passed(self, message: Message) -> None:
        self._passed_to(message.topic, message.partition, message.offset, message.timestamp_ms)

    def _passed_to(self, topic: str, partition: int, offset: int, timestamp_ms: int) -> None:
        place = (topic, partition)
        position = self._positions[place]
        position.next, position.timestamp_ms = offset + 1, timestamp_ms
        lag = position.lag
        lag.read_offset, lag.read_ms = position.next, timestamp_ms
        lag.at_end = position.end == position.next
        self._untold.add(place)

    def _on_event(self, record: Any, error: KafkaError) -> None:
        topic, partition, code = record.topic(), record.partition(), error.code()
        if code == KafkaError._PARTITION_EOF:
            self._at_end(topic, partition, record.offset())
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise self._stale(topic, partition)
        else:
            self._on_error(error)

    def _at_end(self, topic: str, partition: int, end: int) -> None:
        position = self._positions[topic, partition]
        position.end = end
        position.lag.at_end = True
        if position.next is None or position.next < end:
            position.next = end
        position.lag.read_offset = max(position.lag.read_offset, end)
        if position.told != end:
            self._untold.add((topic, partition))

    def _tell(self, now: float) -> list[Item]:
        """Progress of the partitions that have any, and of those that were last told of long ago."""
        told: list[Item] = []
        for place, position in self._positions.items():
            repeated = now - position.told_at >= REPEAT_PROGRESS_SECONDS
            if (place in self._untold or repeated) and position.next is not None:
                position.told, position.told_at = position.next, now
                told.append(Progress(*place, position.next, position.timestamp_ms))
        self._untold.clear()
        self._told_at = now
        self._schedule()
        return told

    def _schedule(self) -> None:
        """When the next progress is due: that of all partitions together, as a commit of many costs what one does."""
        if self._untold:
            self._tell_at = self._told_at + self._progress_seconds
        else:
            told = [position.told_at for position in self._positions.values() if position.next is not None]
            self._tell_at = min(told, default=float("inf")) + REPEAT_PROGRESS_SECONDS

    def _count(self, items: list[Item]) -> None:
        if len(self._records) == 1:
            next(iter(self._records.values())).inc(len(items))
            return
        for topic, count in Counter(item.topic for item in items).items():
            if topic in self._records:
                self._records[topic].inc(count)

    def _stale(self, topic: str, partition: int) -> StaleOffset:
        position = self._positions[topic, partition]
        wanted = self._starts.get((topic, partition)) if position.next is None else position.next
        flow = flow_of(self._group)
        return StaleOffset(
            f"Offset {wanted} of {topic} [{partition}], where {self._group} has to go on, is not in Kafka any more: "
            "records were lost to retention, or the topic was made anew. Run "
            f"`fanline dataflow {flow} --reset-to earliest` to go on with what is there, and have the read model "
            "built again from the database."
        )

    def _on_error(self, error: KafkaError) -> None:
        if is_configuration_error(error):
            raise typed_error(self._settings, error)
        self._waiting.note(typed_error(self._settings, error))

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._offsets.committed(error, partitions)
