"""How far a flow is behind, per partition and stage, as `fanline_lag_seconds`."""

import time
from dataclasses import dataclass

from fanline.metrics import LAG_SECONDS


@dataclass(slots=True)
class PartitionLag:
    """What was read and applied of one partition; times are records' timestamps (ms), 0 when there is none."""

    read_offset: int = 0
    read_ms: int = 0
    at_end: bool = False
    applied_offset: int = 0
    applied_ms: int = 0

    def read_lag(self, now_ms: int) -> float:
        """Seconds since the newest record that was read; 0 at the end of the partition."""
        return 0.0 if self.at_end else _age(self.read_ms, now_ms)

    def applied_lag(self, now_ms: int) -> float:
        """Seconds since the newest record whose effect is acknowledged; 0 when that is the end of the partition."""
        if self.at_end and self.applied_offset >= self.read_offset:
            return 0.0
        return _age(self.applied_ms or self.read_ms, now_ms)


def _age(then_ms: int, now_ms: int) -> float:
    return max(0, now_ms - then_ms) / 1000 if then_ms else 0.0


def export(flow: str, topic: str, partition: int, lag: PartitionLag) -> None:
    """Show the lag in /metrics, computed when it is asked for, so that it grows while a flow is stuck."""
    LAG_SECONDS.labels(flow, "read", topic, str(partition)).set_function(lambda: lag.read_lag(_now_ms()))
    LAG_SECONDS.labels(flow, "applied", topic, str(partition)).set_function(lambda: lag.applied_lag(_now_ms()))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
