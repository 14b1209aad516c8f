"""How many posts were delivered to timelines over time: a measurement of the pipeline, not a read model.

The database knows of no delivery, so there is no oracle and nothing is built again. Layout, beside the other time
series: `ts:{deliveries}:<m|h|d>:<period>`, a hash of bucket (start, 4 bytes) and run (8 bytes)
to the number (decimal) that this run of a flow has delivered in this bucket. Each run writes what it has counted,
as absolute numbers, so that repeating a write changes nothing; readers add the runs up. What a run has not written yet
when it dies is missing, and what it delivers again after a crash is counted again, as it was delivered again.
"""

import secrets
from collections.abc import Sequence

from readmodels.aggregates import (
    RESOLUTIONS,
    Buckets,
    Resolution,
    Retention,
    Series,
    floor_to,
    series_between,
)
from readmodels.effects import Command, Effects, Redis, command

DELIVERIES = "deliveries"
"""The scope, and the metric."""

_RUN_BYTES = 8


class DeliveryCounts:
    """What one run of a flow has delivered in the buckets that are still open."""

    def __init__(self) -> None:
        self._run = secrets.token_bytes(_RUN_BYTES)
        self._counts: dict[tuple[Resolution, int], int] = {}
        self._unwritten: set[tuple[Resolution, int]] = set()

    def add(self, deliveries: int, now: int) -> None:
        """Counts deliveries of now, in Unix seconds."""
        if deliveries:
            for resolution in RESOLUTIONS.values():
                bucket = resolution, floor_to(now, resolution.width)
                self._counts[bucket] = self._counts.get(bucket, 0) + deliveries
                self._unwritten.add(bucket)

    def writes(self, now: int, kept: Retention) -> list[Command]:
        """Writes what has changed since the last call, and forgets the buckets that are over."""
        commands = []
        for resolution, bucket in self._unwritten:
            series = Series(DELIVERIES, resolution, floor_to(bucket, resolution.period))
            field = bucket.to_bytes(4) + self._run
            commands.append(command(series.key(), b"HSET", field, self._counts[resolution, bucket]))
            commands.append(command(series.key(), b"EXPIREAT", series.end + kept[resolution.name]))
        self._unwritten.clear()
        self._counts = {
            (resolution, bucket): count
            for (resolution, bucket), count in self._counts.items()
            if bucket + resolution.width > now
        }
        return commands


def write(commands: Sequence[Command]) -> Effects[None]:
    """Sends what `DeliveryCounts.writes` gave."""
    if commands:
        yield Redis(commands)


def read(resolution: Resolution, start: int, end: int) -> Effects[Buckets]:
    """The deliveries in the buckets from `start` to before `end`; those without any are not there."""
    series = series_between(DELIVERIES, resolution, start, end)
    replies: Sequence[Sequence[bytes]] = yield Redis([command(each.key(), b"HGETALL") for each in series])
    found: dict[int, int] = {}
    for reply in replies:
        for field, count in zip(reply[::2], reply[1::2], strict=True):
            bucket = int.from_bytes(field[:4])
            if start <= bucket < end:
                found[bucket] = found.get(bucket, 0) + int(count)
    return {bucket: (count,) for bucket, count in found.items()}
