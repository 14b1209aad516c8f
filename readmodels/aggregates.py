"""Time series by minute, hour and day: what the instance did, and what an account wrote and got.

Layout, all under the hash tag of the scope (`instance`, or a user id):

    ts:{<scope>}:<m|h|d>:<period>   hash: state (b"B" + token (8) while it is built, b"F" when it is complete), and a
                                    field a bucket in which anything ever happened: its start (4, Unix seconds) to
                                    token (8) and the counts (4 each, in the order of the scope's metrics)
    ts:{instance}:active:<day>      HyperLogLog of the people active on a day (readmodels/active_users.py)
    ts:{instance}:active            there when every day's HyperLogLog is

A period is the stretch of time whose buckets share a key: a day of minutes, 30 days of hours, 360 days of days, each
from a multiple of its length since the epoch. It expires when its last bucket is out of retention.

Buckets are absolute counts from the database, under tokens as documents have them (readmodels/documents.py), so that
duplicates, replays and reordering change nothing, and deleted rows leave. A flow collects what changes make stale
(readmodels/aggregate_changes.py) and counts it again now and then, so that the cost follows time, not events. Series
of the instance are made by the flow; those of an account exist only where somebody reads them, for 35 days. What was
delivered is measured, not counted: readmodels/deliveries.py.
"""

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from readmodels import generations
from readmodels.aggregate_queries import ACCOUNT_BUCKETS, INSTANCE_BUCKETS
from readmodels.documents import TOKEN_KEY
from readmodels.effects import Command, Effects, Query, Redis, call, command

MODEL = "aggregates"
DAY = 86_400
INSTANCE = "instance"
Scope = UUID | str
"""An account, or `INSTANCE`."""

INSTANCE_METRICS = ("posts", "reposts", "likes", "follows", "sign_ups", "active_users")
ACCOUNT_METRICS = ("posts", "reposts", "likes_received", "reposts_received", "replies_received", "followers_gained")

BUILD_SECONDS = 600
"""An abandoned build is forgotten after this: longer than counting a year takes."""
ACCOUNT_SECONDS = 35 * DAY
_STATE = b"state"
COMPLETE = b"F"
"""The state of a series that is built."""
_TOKEN = struct.Struct(">Q")
_START = struct.Struct(">I")

Buckets = dict[int, tuple[int, ...]]
"""Counts by the start of the bucket, in the order of the scope's metrics; a bucket that is not there counts zero."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """A width of buckets, and how long a key's period of them is, in seconds."""

    name: str
    letter: bytes
    width: int
    period: int


MINUTE = Resolution("minute", b"m", 60, DAY)
HOUR = Resolution("hour", b"h", 3_600, 30 * DAY)
DAILY = Resolution("day", b"d", DAY, 360 * DAY)
RESOLUTIONS = {resolution.name: resolution for resolution in (MINUTE, HOUR, DAILY)}

Retention = Mapping[str, int]
"""How many seconds back the buckets of a resolution are kept, by its name."""


def retention(minutes_days: int, hours_days: int, days_days: int) -> Retention:
    """The retention for these numbers of days of minutes, of hours and of days."""
    return {MINUTE.name: minutes_days * DAY, HOUR.name: hours_days * DAY, DAILY.name: days_days * DAY}


@dataclass(frozen=True, slots=True)
class Series:
    """The buckets of one key."""

    scope: Scope
    resolution: Resolution
    start: int
    """Unix seconds at which its period starts."""

    @property
    def end(self) -> int:
        """Unix seconds at which its period ends."""
        return self.start + self.resolution.period

    def key(self) -> bytes:
        """The key in Redis."""
        return b"%s:%s:%d" % (scope_key(self.scope), self.resolution.letter, self.start)

    def expires_at(self, now: int, kept: Retention) -> int:
        """Unix seconds at which nobody needs it any more."""
        end = self.end + kept[self.resolution.name]
        return end if self.scope == INSTANCE else min(end, now + ACCOUNT_SECONDS)


def scope_key(scope: Scope) -> bytes:
    """What the keys of a scope begin with."""
    return generations.key(b"ts", MODEL, str(scope).encode())


def metrics_of(scope: Scope) -> tuple[str, ...]:
    """The metrics that a scope has."""
    return INSTANCE_METRICS if scope == INSTANCE else ACCOUNT_METRICS


def oldest_kept(resolution: Resolution, now: int, kept: Retention) -> int:
    """The start of the oldest bucket within retention."""
    return floor_to(now - kept[resolution.name], resolution.width)


def floor_to(moment: int, width: int) -> int:
    """The start of the bucket or period of a width that a moment is in."""
    return moment - moment % width


def series_between(scope: Scope, resolution: Resolution, start: int, end: int) -> list[Series]:
    """The series that have the buckets from `start` to before `end`."""
    first = floor_to(start, resolution.period)
    return [Series(scope, resolution, period) for period in range(first, end, resolution.period)]


@dataclass(frozen=True, slots=True)
class Counted:
    """A bucket as the database has it."""

    series: Series
    bucket: int
    counts: tuple[int, ...]
    newest: datetime
    """When the newest row in it was made."""


def look(ranges: Mapping[Series, Iterable[tuple[int, int]]]) -> Effects[list[Counted]]:
    """Counts in the database: of each series the buckets within its ranges (start, end in Unix seconds).

    At most one query for the instance and one for all accounts, whatever the resolutions. Empty buckets are left out.
    """
    found: list[Counted] = []
    of = {(series.scope, series.resolution.width, series.start): series for series in ranges}
    periods = {resolution.width: resolution.period for resolution in RESOLUTIONS.values()}
    for sql, metrics, of_instance in (
        (INSTANCE_BUCKETS, INSTANCE_METRICS, True),
        (ACCOUNT_BUCKETS, ACCOUNT_METRICS, False),
    ):
        wanted = [(series, *part) for series, parts in ranges.items() if (series.scope == INSTANCE) is of_instance
                  for part in parts]  # fmt: skip
        if not wanted:
            continue
        parameters: dict[str, Any] = {
            "starts": [moment(start) for _, start, _ in wanted],
            "ends": [moment(end) for _, _, end in wanted],
            "widths": [series.resolution.width for series, _, _ in wanted],
        }
        if not of_instance:
            parameters["accounts"] = [series.scope for series, _, _ in wanted]
        rows: Sequence[Mapping[str, Any]] = yield Query(sql, parameters)
        for row in rows:
            scope, width, bucket = INSTANCE if of_instance else row["account_id"], row["width"], row["bucket"]
            series = of[scope, width, floor_to(bucket, periods[width])]
            found.append(Counted(series, bucket, tuple(row[name] for name in metrics), row["newest"]))
    return found


def count(ranges: Mapping[Series, Iterable[tuple[int, int]]]) -> Effects[dict[Series, Buckets]]:
    """`look`, as buckets by series."""
    found: dict[Series, Buckets] = {series: {} for series in ranges}
    for counted in (yield from look(ranges)):
        found[counted.series][counted.bucket] = counted.counts
    return found


def count_again(stale: Mapping[Series, Collection[int]], now: int, kept: Retention) -> Effects[None]:
    """Counts stale buckets again and writes them where their series is; a missing one of the instance is built."""
    token = yield from _token()
    series = list(stale)
    states = yield Redis([command(each.key(), b"HGET", _STATE) for each in series])
    there = [each for each, state in zip(series, states, strict=True) if state is not None]
    if there:
        width = {each: each.resolution.width for each in there}
        ranges = {each: [(bucket, bucket + width[each]) for bucket in stale[each]] for each in there}
        counted = yield from count(ranges)
        for each, buckets in counted.items():
            counted[each] = dict.fromkeys(stale[each], _zeros(each)) | buckets
        yield Redis(
            [call(b"aggregate_set", [each.key()], token, *_pairs(buckets)) for each, buckets in counted.items()]
        )
    for each in series:
        if each.scope == INSTANCE and each not in there:
            yield from build(each, now, kept)


def build(series: Series, now: int, kept: Retention) -> Effects[Buckets]:
    """Counts a whole series and keeps it, unless somebody else is doing so; its buckets.

    The marker is placed before the database is asked: who finds the series missing earlier has changed something that
    the answer has seen, and who comes later writes buckets with a later token.
    """
    token = yield from _token()
    placed = (yield Redis([call(b"aggregate_begin", [series.key()], token, BUILD_SECONDS)]))[0]
    counted = (yield from count({series: [(series.start, series.end)]}))[series]
    if placed:
        expires_at = series.expires_at(now, kept)
        yield Redis([call(b"aggregate_end", [series.key()], token, expires_at, *_pairs(counted))])
    return counted


def read(scope: Scope, resolution: Resolution, start: int, end: int, now: int, kept: Retention) -> Effects[Buckets]:
    """The buckets from `start` to before `end`; series that are missing are built."""
    series = series_between(scope, resolution, start, end)
    replies = yield Redis([command(each.key(), b"HGETALL") for each in series])
    found: Buckets = {}
    for each, reply in zip(series, replies, strict=True):
        buckets = parse(reply)
        found |= buckets if buckets is not None else (yield from build(each, now, kept))
    return {bucket: counts for bucket, counts in found.items() if start <= bucket < end}


def parse(reply: Sequence[bytes] | Mapping[bytes, bytes]) -> Buckets | None:
    """The buckets in the reply to HGETALL; None if the series is not there or not complete."""
    fields = dict(reply) if isinstance(reply, Mapping) else dict(zip(reply[::2], reply[1::2], strict=True))
    if fields.pop(_STATE, None) != COMPLETE:
        return None
    return {
        _START.unpack(field)[0]: struct.unpack(f">{(len(value) - 8) // 4}I", value[8:])
        for field, value in fields.items()
    }


def is_complete(series: Series) -> Command:
    """The reply is `COMPLETE` if the series is there and built."""
    return command(series.key(), b"HGET", _STATE)


def drop(scope: Scope, now: int, kept: Retention) -> Command:
    """Removes every series of a scope; readers build them again."""
    keys = [
        series.key()
        for resolution in RESOLUTIONS.values()
        for series in series_between(scope, resolution, oldest_kept(resolution, now, kept), now + 1)
    ]
    return command(keys[0], b"DEL", *keys[1:])


def moment(seconds: int) -> datetime:
    """Unix seconds as a time."""
    return datetime.fromtimestamp(seconds, UTC)


def _token() -> Effects[bytes]:
    answer = yield Redis([call(b"document_token", [TOKEN_KEY])])
    return _TOKEN.pack(answer[0])


def _zeros(series: Series) -> tuple[int, ...]:
    return (0,) * len(metrics_of(series.scope))


def _pairs(buckets: Buckets) -> list[bytes]:
    return [
        part
        for bucket, counts in buckets.items()
        for part in (_START.pack(bucket), struct.pack(f">{len(counts)}I", *counts))
    ]
