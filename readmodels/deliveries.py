"""How many posts were delivered to timelines over time: a measurement of the pipeline, not a read model.

The database knows of no delivery, so there is no oracle and nothing is built again. Layout, beside the other time
series: `ts:{deliveries}:<m|h|d>:<period>`, a hash of bucket (start, 4 bytes) and run (8 bytes)
to the number (decimal) that this run of a flow has delivered in this bucket. Each run writes what it has counted,
as absolute numbers, so that repeating a write changes nothing; readers add the runs up. What a run has not written yet
when it dies is missing, and what it delivers again after a crash is counted again, as it was delivered again.
"""

import secrets
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from readmodels.aggregates import (
    MODEL,
    RESOLUTIONS,
    Buckets,
    Resolution,
    Retention,
    Series,
    floor_to,
    series_between,
)
from readmodels.effects import Command, Effects, Redis, command
from readmodels.generations import using

DELIVERIES = "deliveries"
"""The scope, and the metric."""

_RUN_BYTES = 8


class Counted(NamedTuple):
    """What a run has delivered in a bucket so far, and the field that it has there."""

    resolution: Resolution
    bucket: int
    field: bytes
    number: int


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

    def take(self, now: int) -> list[Counted]:
        """What has changed since the last call; the buckets that are over are forgotten."""
        taken = [
            Counted(resolution, bucket, bucket.to_bytes(4) + self._run, self._counts[resolution, bucket])
            for resolution, bucket in self._unwritten
        ]
        self._unwritten.clear()
        self._counts = {
            (resolution, bucket): count
            for (resolution, bucket), count in self._counts.items()
            if bucket + resolution.width > now
        }
        return taken


def write(counts: Iterable[Counted], kept: Retention) -> Effects[None]:
    """Writes what `DeliveryCounts.take` gave."""
    commands: list[Command] = []
    for resolution, bucket, field, number in counts:
        series = Series(DELIVERIES, resolution, floor_to(bucket, resolution.period))
        commands.append(command(series.key(), b"HSET", field, number))
        commands.append(command(series.key(), b"EXPIREAT", series.end + kept[resolution.name]))
    if commands:
        yield Redis(commands)


def copy(origin: int, now: int, kept: Retention) -> Effects[None]:
    """Copies from another generation what this one does not have: there is nothing to count it again from."""
    for resolution in RESOLUTIONS.values():
        for series in series_between(DELIVERIES, resolution, now - kept[resolution.name], now + 1):
            with using(MODEL, origin):
                read = command(series.key(), b"HGETALL")
            found: Sequence[bytes] = (yield Redis([read]))[0]
            pairs = zip(found[::2], found[1::2], strict=True)
            copies = [command(series.key(), b"HSETNX", field, number) for field, number in pairs]
            if copies:
                yield Redis([*copies, command(series.key(), b"EXPIREAT", series.end + kept[resolution.name])])


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
