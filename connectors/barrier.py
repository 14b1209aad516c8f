"""Waits until the read models have applied everything that is committed now."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from connectors.applied import AppliedOffsets, Offsets
from connectors.flows import HEARTBEAT_TOPIC, SERVING, group_of, topics_of
from connectors.heartbeats import Heartbeats, microseconds
from fanline.database import run_transaction_alone
from fanline.errors import BarrierTimeout
from fanline.settings import Settings, get_settings

# Kafka answers in some milliseconds, so this bounds how often it is asked, and how late the barrier notices.
POLL_SECONDS = 0.02

BEAT = """
INSERT INTO heartbeat (id, ts) VALUES (1, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET ts = excluded.ts
RETURNING ts
"""


class Barrier:
    """A barrier over some flows. One thread only; `close` it, or use it in a `with` statement."""

    def __init__(self, settings: Settings | None = None, flows: Iterable[str] = SERVING) -> None:
        self._settings = settings or get_settings()
        self._topics = {group_of(flow): topics_of(flow) for flow in flows}
        self._heartbeats = Heartbeats(self._settings, "fanline-barrier")
        self._offsets = AppliedOffsets(self._settings, "fanline-barrier")
        self._arrived_us = 0

    def __enter__(self) -> "Barrier":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave Kafka."""
        self._heartbeats.close()

    def wait(self, timeout: float = 30.0) -> float:
        """Return when everything that was committed before this call is applied; the seconds that it took.

        Writes a heartbeat, waits until Kafka has all up to it (connectors/heartbeats.py), takes the topics' ends,
        and waits until each flow's group has committed them. Raises `BarrierTimeout` naming the stage that is behind,
        and `DependencyUnavailable` when a server does not answer.
        """
        started = time.monotonic()
        deadline = started + timeout
        beat_us = self._beat()
        self._until(deadline, lambda: self._has_arrived(beat_us, deadline), self._behind_capture)
        partitions = {group: self._offsets.partitions(topics) for group, topics in self._topics.items()}
        ends = self._offsets.ends({place for places in partitions.values() for place in places})
        behind: dict[str, Offsets] = {}

        def applied() -> bool:
            nonlocal behind
            committed = self._offsets.committed(partitions)
            behind = {
                group: {place: offset for place, offset in offsets.items() if offset < ends[place]}
                for group, offsets in committed.items()
            }
            return not any(behind.values())

        self._until(deadline, applied, lambda: _behind_flows(behind, ends))
        return time.monotonic() - started

    def _beat(self) -> int:
        row: Any = run_transaction_alone(self._settings, lambda connection: connection.execute(BEAT).fetchone())
        return microseconds(row[0])

    def _has_arrived(self, beat_us: int, deadline: float) -> bool:
        if self._arrived_us < beat_us:
            remaining = max(0.0, min(POLL_SECONDS, deadline - time.monotonic()))
            self._arrived_us = max(self._arrived_us, self._heartbeats.newest_us(remaining) or 0)
        return self._arrived_us >= beat_us

    def _behind_capture(self) -> str:
        if self._settings.database_dialect == "cockroach":
            return (
                f"The changefeed is behind: no `resolved` message in the topic {HEARTBEAT_TOPIC} is as late as this "
                "call. `SHOW CHANGEFEED JOBS` tells why."
            )
        return (
            "Debezium is behind: the heartbeat just written to the database has not reached the topic "
            f"{HEARTBEAT_TOPIC}. `fanline connectors status` tells why."
        )

    @staticmethod
    def _until(deadline: float, reached: Callable[[], bool], behind: Callable[[], str]) -> None:
        while True:
            asked = time.monotonic()
            if reached():
                return
            now = time.monotonic()
            if now > deadline:
                raise BarrierTimeout(behind())
            time.sleep(max(0.0, min(asked + POLL_SECONDS, deadline) - now))


def _behind_flows(behind: dict[str, Offsets], ends: Offsets) -> str:
    late = []
    for group, offsets in sorted(behind.items()):
        records: Counter[str] = Counter()
        for place, offset in offsets.items():
            records[place[0]] += ends[place] - offset
        late += [f"{group} lacks {count} records of {topic}" for topic, count in sorted(records.items())]
    return f"The dataflows are behind: {', '.join(late)}."
