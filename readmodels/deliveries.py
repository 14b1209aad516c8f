"""How many posts were delivered to timelines over time: a measurement of the pipeline, not a read model.

The database knows of no delivery, so there is no oracle and nothing is built again. Layout:

    deliveries:{<scope>}:<m|h|d>:<period>   hash: bucket (start, 4 bytes) and run (8 bytes) to a number (decimal)

The scope is the instance, or the author of what was delivered; periods are those of readmodels/aggregates.py. The
number is what this run of a flow has delivered in this bucket. Each run writes what it has counted, as
absolute numbers, so that repeating a write changes nothing; readers add the runs up. What a run has not written yet
when it dies is missing, and what it delivers again after a crash is counted again, as it was delivered again.
"""

import secrets
from collections.abc import Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from readmodels.aggregates import INSTANCE, RESOLUTIONS, Buckets, Resolution, Retention, Scope, floor_to, oldest_kept
from readmodels.effects import Command, Effects, Redis, command
from readmodels.presence import gone

DELIVERIES = "deliveries"
"""The metric."""

_RUN_BYTES = 8


class Counted(NamedTuple):
    """What a run has delivered in a bucket so far, and the field that it has there."""

    scope: Scope
    resolution: Resolution
    bucket: int
    field: bytes
    number: int


class DeliveryCounts:
    """What one run of a flow has delivered in the buckets that are still open."""

    def __init__(self) -> None:
        self._run = secrets.token_bytes(_RUN_BYTES)
        self._counts: dict[tuple[Scope, Resolution, int], int] = {}
        self._unwritten: set[tuple[Scope, Resolution, int]] = set()

    def add(self, author: UUID, deliveries: int, now: int) -> None:
        """Counts deliveries of an author's posts of now, in Unix seconds."""
        if deliveries:
            for resolution in RESOLUTIONS.values():
                start = floor_to(now, resolution.width)
                for bucket in ((INSTANCE, resolution, start), (author, resolution, start)):
                    self._counts[bucket] = self._counts.get(bucket, 0) + deliveries
                    self._unwritten.add(bucket)

    def take(self, now: int) -> list[Counted]:
        """What has changed since the last call; the buckets that are over are forgotten."""
        taken = [
            Counted(scope, resolution, start, start.to_bytes(4) + self._run, self._counts[scope, resolution, start])
            for scope, resolution, start in self._unwritten
        ]
        self._unwritten.clear()
        self._counts = {
            (scope, resolution, start): count
            for (scope, resolution, start), count in self._counts.items()
            if start + resolution.width > now
        }
        return taken


def write(counts: Sequence[Counted], now: int, kept: Retention) -> Effects[None]:
    """Writes what `DeliveryCounts.take` gave, but nothing of authors who are gone."""
    authors = {each.scope for each in counts if isinstance(each.scope, UUID)}
    left = set((yield from gone(authors)))
    commands: list[Command] = []
    for scope, resolution, bucket, field, number in counts:
        if scope not in left:
            period = floor_to(bucket, resolution.period)
            key, expires_at = _key(scope, resolution, period), period + resolution.period + kept[resolution.name]
            commands += [command(key, b"HSET", field, number), command(key, b"EXPIREAT", expires_at)]
    if commands:
        yield Redis(commands)
    # Who has left just now may have been forgotten before the write.
    yield from forget(authors, now, kept)


def forget(people: Collection[UUID], now: int, kept: Retention) -> Effects[None]:
    """Removes what is kept of those among some people who are gone."""
    if removals := [
        command(key, b"UNLINK") for person in (yield from gone(people)) for key in _keys(person, now, kept)
    ]:
        yield Redis(removals)


def read(scope: Scope, resolution: Resolution, start: int, end: int) -> Effects[Buckets]:
    """The deliveries in the buckets from `start` to before `end`; those without any are not there."""
    periods = range(floor_to(start, resolution.period), end, resolution.period)
    replies: Sequence[Sequence[bytes]] = yield Redis(
        [command(_key(scope, resolution, period), b"HGETALL") for period in periods]
    )
    found: dict[int, int] = {}
    for reply in replies:
        for field, count in zip(reply[::2], reply[1::2], strict=True):
            bucket = int.from_bytes(field[:4])
            if start <= bucket < end:
                found[bucket] = found.get(bucket, 0) + int(count)
    return {bucket: (count,) for bucket, count in found.items()}


def _key(scope: Scope, resolution: Resolution, period: int) -> bytes:
    return b"deliveries:{%s}:%s:%d" % (str(scope).encode(), resolution.letter, period)


def _keys(scope: Scope, now: int, kept: Retention) -> list[bytes]:
    return [
        _key(scope, resolution, period)
        for resolution in RESOLUTIONS.values()
        for period in range(floor_to(oldest_kept(resolution, now, kept), resolution.period), now + 1, resolution.period)
    ]
