"""Up to which time of commits the read models are complete, for readers who wait for their own write."""

from collections import deque
from collections.abc import Iterable

from connectors.applied import AppliedOffsets, Offsets
from connectors.flows import FLOWS, PROMPT, group_of
from connectors.heartbeats import Heartbeats
from fanline.settings import Settings, get_settings

# Heartbeats come about once a second, so this is minutes of lag; beyond it the watermark moves in larger steps.
MAX_WAITING = 300


class Watermark:
    """Compares heartbeats with the groups' offsets, like the barrier, without writing anything.

    `poll` blocks for some milliseconds: call it about once a second, from one thread.
    """

    def __init__(self, settings: Settings | None = None, flows: Iterable[str] = PROMPT) -> None:
        self._settings = settings or get_settings()
        self._topics = {group_of(flow): FLOWS[flow] for flow in flows}
        self._heartbeats = Heartbeats(self._settings, "fanline-watermark")
        self._offsets = AppliedOffsets(self._settings, "fanline-watermark")
        self._waiting: deque[tuple[int, dict[str, Offsets]]] = deque()
        self._passed_ms = 0

    def poll(self) -> int:
        """A time in ms: every row committed at it or before, by the database's clock, is in the read models.

        0 until the first heartbeat has passed; never goes back. Compare it with a time taken *after* the commit.
        Raises `DependencyUnavailable` when Kafka or the registry does not answer.
        """
        newest_us = self._heartbeats.newest_us()
        if newest_us is not None and len(self._waiting) < MAX_WAITING:
            partitions = {group: self._offsets.partitions(topics) for group, topics in self._topics.items()}
            ends = self._offsets.ends({place for places in partitions.values() for place in places})
            wanted = {group: {place: ends[place] for place in places} for group, places in partitions.items()}
            # A commit within the heartbeat's own millisecond may come after it.
            self._waiting.append((newest_us // 1000 - 1, wanted))
        if self._waiting:
            committed = self._offsets.committed(self._waiting[-1][1])
            while self._waiting and has_passed(self._waiting[0][1], committed):
                self._passed_ms = max(self._passed_ms, self._waiting.popleft()[0])
        return self._passed_ms

    def close(self) -> None:
        """Leave Kafka."""
        self._heartbeats.close()


def has_passed(wanted: dict[str, Offsets], committed: dict[str, Offsets]) -> bool:
    """Whether every group has committed at least the wanted offset of every partition."""
    return all(
        committed.get(group, {}).get(place, 0) >= offset
        for group, offsets in wanted.items()
        for place, offset in offsets.items()
    )
