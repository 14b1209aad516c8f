"""Commits the offsets of a flow's consumer group, which say what the flow has applied.

Kafka's own lag tools, the barrier and the API's watermark read these offsets. A commit carries the layout of the
instance that made it (`0/2`: the first of two) as its metadata: a source trusts its recovery snapshot only when nobody
else has moved the group since.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors import lag as lags
from connectors.flows import flow_of
from connectors.kafka_clients import consumer_config
from connectors.lag import PartitionLag
from connectors.messages import Progress
from fanline.logging import get_logger
from fanline.settings import Settings, get_settings

# Between tries of a commit that failed: a broker's restart takes seconds, and nothing is lost meanwhile.
RETRY_SECONDS = 0.2

_log = get_logger(__name__)
_groups: dict[str, "GroupOffsets"] = {}


class GroupOffsets:
    """Commits one group's offsets: one request at a time, each with the newest offset of every partition."""

    def __init__(self, group: str, settings: Settings | None = None, consumer: Consumer | None = None) -> None:
        self._settings = settings or get_settings()
        self.group = group
        self.layout = layout_of(self._settings)
        self._owned = consumer is None
        self._consumer = consumer or Consumer(
            consumer_config(self._settings, group, f"{group}-offsets") | {"on_commit": self.committed}
        )
        self._pending: dict[tuple[str, int], int] = {}
        self._inflight: dict[tuple[str, int], int] | None = None
        self._not_before = 0.0
        self._lags: dict[tuple[str, int], PartitionLag] = {}

    def lag(self, topic: str, partition: int) -> PartitionLag:
        """The partition's record of what was read and applied."""
        found = self._lags.get((topic, partition))
        if found is None:
            found = self._lags[topic, partition] = PartitionLag()
            lags.export(flow_of(self.group), topic, partition, found)
        return found

    def commit(self, progress: Iterable[Progress]) -> None:
        """Commit soon, without waiting."""
        for item in progress:
            self._pending[item.topic, item.partition] = item.offset
            lag = self.lag(item.topic, item.partition)
            lag.applied_offset, lag.applied_ms = item.offset, item.timestamp_ms
        self.serve()

    def serve(self) -> None:
        """Send what is pending unless a request is under way."""
        if self._owned:
            self._consumer.poll(0)
        if not self._pending or self._inflight is not None or time.monotonic() < self._not_before:
            return
        self._inflight, self._pending = self._pending, {}
        try:
            self._consumer.commit(offsets=self._offsets(self._inflight), asynchronous=True)
        except KafkaException as error:
            self.committed(error.args[0], [])

    def committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Take in the answer to a commit; `on_commit` of the consumer."""
        sent, self._inflight = self._inflight or {}, None
        fault = error or next((p.error for p in partitions if p.error is not None), None)
        if fault is not None:
            self._pending = sent | self._pending
            self._not_before = time.monotonic() + RETRY_SECONDS
            _log.warning("offsets not committed yet", group=self.group, error=fault.str())

    def flush(self, timeout: float) -> bool:
        """Commit what is pending and wait for it; returns whether it was done in time."""
        deadline = time.monotonic() + timeout
        while (self._pending or self._inflight is not None) and time.monotonic() < deadline:
            self.serve()
            self._consumer.poll(0.01)
        return not self._pending and self._inflight is None

    def close(self, timeout: float = 5.0) -> None:
        """Flush and leave Kafka."""
        if not self.flush(timeout):
            _log.warning("offsets not committed; the records will be read again", group=self.group)
        self._consumer.close()

    def _offsets(self, offsets: dict[tuple[str, int], int]) -> list[TopicPartition]:
        return [
            TopicPartition(topic, partition, offset, metadata=self.layout)
            for (topic, partition), offset in offsets.items()
        ]


class Segment:
    """What was sent between two progress items."""

    __slots__ = ("open", "progress")

    def __init__(self) -> None:
        self.open = 0
        self.progress: Progress | None = None


class ProgressGate:
    """Lets progress through to `commit` when everything sent before it is acknowledged."""

    def __init__(self, commit: Callable[[list[Progress]], None]) -> None:
        self._commit = commit
        self.current = Segment()
        self._segments = deque([self.current])

    def sent(self, segment: Segment | None = None) -> Segment:
        """Count something sent; a consequence of something earlier counts with that one's segment."""
        segment = segment or self.current
        segment.open += 1
        return segment

    def acknowledged(self, segment: Segment) -> None:
        """Count an acknowledgement, and let through what only waited for it."""
        segment.open -= 1
        if not segment.open and segment is self._segments[0]:
            self._release()

    def progress(self, item: Progress) -> None:
        """Take a progress item."""
        self.current.progress = item
        self.current = Segment()
        self._segments.append(self.current)
        self._release()

    def _release(self) -> None:
        passed: list[Progress] = []
        while (first := self._segments[0]).progress is not None and not first.open:
            passed.append(first.progress)
            self._segments.popleft()
        if passed:
            self._commit(passed)


def layout_of(settings: Settings) -> str:
    """Which instance of how many this process is."""
    return f"{settings.flow_instance}/{settings.flow_instances}"


def register(offsets: GroupOffsets) -> None:
    """Use these offsets for their group in this process; the source does it, so that one connection serves both."""
    _groups[offsets.group] = offsets


def offsets_of(group: str) -> GroupOffsets:
    """The offsets of a group, connected by the source or, without one, now."""
    if group not in _groups:
        register(GroupOffsets(group))
    return _groups[group]


def commit_progress(group: str, progress: Progress | Iterable[Progress]) -> None:
    """Commit, without waiting, that everything below the given offsets is applied; later offsets of a partition win."""
    offsets_of(group).commit([progress] if isinstance(progress, Progress) else progress)


def close_groups(timeout: float = 5.0) -> None:
    """Flush and close every group of this process: at the end of a flow."""
    while _groups:
        _, offsets = _groups.popitem()
        offsets.close(timeout)
