"""Time series against the database: the running periods of the instance and of accounts whose series are read."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from audit.compare import Difference
from audit.model import Model, Subjects
from audit.stores import Stores
from fanline.settings import Settings
from readmodels import aggregates
from readmodels.aggregates import INSTANCE, RESOLUTIONS, Buckets, Counted, Scope, Series, floor_to
from readmodels.effects import command

# A bucket that still grows is compared only when nobody has written to it for so long: longer than the flow collects.
QUIET_SECONDS = 5

Looks = dict[tuple[Series, int], tuple[int, ...]]
"""What the database counted in buckets that differed at the last look. A row that goes shows in no time."""


def aggregates_model(settings: Settings) -> Model:
    """The line of the time series in `audit.models.models`."""
    kept = aggregates.retention(
        settings.aggregates_minutes_days, settings.aggregates_hours_days, settings.aggregates_days_days
    )

    looks: Looks = {}

    def check(stores: Stores, subjects: Sequence[Series]) -> dict[Series, Difference | None]:
        return check_aggregates(stores, subjects, looks=looks)

    def repair(stores: Stores, subjects: Sequence[Series]) -> None:
        now = int(time.time())
        for series in subjects:
            stores.redis([command(series.key(), b"DEL")])
            stores.drive(aggregates.build(series, now, kept))

    return Model("aggregates", _running, check, repair, "aggregates")


def check_aggregates(
    stores: Stores, subjects: Sequence[Series], quiet_seconds: int = QUIET_SECONDS, looks: Looks | None = None
) -> dict[Series, Difference | None]:
    """Each bucket of a complete series has the database's counts: too few are missing, too many are extra.

    Buckets that somebody has written to within the last `quiet_seconds` are left out, and those that differ and have
    lost rows since the last look.
    """
    seen = {} if looks is None else looks
    replies = stores.redis([command(series.key(), b"HGETALL") for series in subjects])
    held = {series: aggregates.parse(reply) for series, reply in zip(subjects, replies, strict=True)}
    complete = {series: buckets for series, buckets in held.items() if buckets is not None}
    quiet_since = datetime.now(UTC) - timedelta(seconds=quiet_seconds)
    counted: dict[Series, list[Counted]] = {series: [] for series in complete}
    for each in stores.drive(aggregates.look({series: [(series.start, series.end)] for series in complete})):
        counted[each.series].append(each)
    found: dict[Series, Difference | None] = dict.fromkeys(subjects)
    return found | {
        series: _compare(complete[series], rows, series, quiet_since, seen) for series, rows in counted.items()
    }


def _compare(
    held: Buckets, counted: Sequence[Counted], series: Series, quiet_since: datetime, looks: Looks
) -> Difference:
    wanted = {each.bucket: each.counts for each in counted}
    moving = {each.bucket for each in counted if each.newest > quiet_since}
    zeros = (0,) * len(aggregates.metrics_of(series.scope))
    compared = (wanted.keys() | held.keys()) - moving
    for bucket in list(compared):
        counts, last = wanted.get(bucket, zeros), looks.pop((series, bucket), None)
        if counts != held.get(bucket, zeros):
            looks[series, bucket] = counts
            if last not in (None, counts):
                compared.discard(bucket)
    pairs = [
        (want, have)
        for bucket in compared
        for want, have in zip(wanted.get(bucket, zeros), held.get(bucket, zeros), strict=True)
    ]
    return Difference(
        missing=sum(max(0, want - have) for want, have in pairs), extra=sum(max(0, have - want) for want, have in pairs)
    )


def _running(_stores: Stores, subjects: Subjects) -> list[Series]:
    now = int(time.time())
    scopes: list[Scope] = [INSTANCE, *subjects.people]
    return [
        Series(scope, resolution, floor_to(now, resolution.period))
        for scope in scopes
        for resolution in RESOLUTIONS.values()
    ]
