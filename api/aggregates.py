"""`GET /api/v1/aggregates`: time series for dashboards; and what Mastodon tells everybody of a server's activity."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from aiohttp import web

from api.auth.principal import require_user
from api.auth.roles import is_moderator
from api.body import read_query
from api.context import context_of
from api.errors import forbidden, not_found, unprocessable
from api.responses import json_response
from api.series import SERIES
from readmodels.aggregates import (
    DAILY,
    DAY,
    INSTANCE,
    RESOLUTIONS,
    Scope,
    floor_to,
    metrics_of,
    moment,
    oldest_kept,
)
from readmodels.deliveries import DELIVERIES
from readmodels.entities import timestamp

routes = web.RouteTableDef()

MAX_BUCKETS = 3_000
"""More than two days of minutes."""
DEFAULT_BUCKETS = 60
WEEKS = 12
WEEK = 7 * DAY
# 1970 began on a Thursday; Mastodon's weeks begin on Mondays.
FIRST_MONDAY = 4 * DAY

ACCOUNT_EXISTS = "SELECT 1 AS one FROM users WHERE id = %(id)s"


class Wanted(msgspec.Struct, rename={"start": "from", "end": "to"}):
    """The query of a time series; times are ISO 8601."""

    metric: str
    resolution: str = "hour"
    start: datetime | None = None
    end: datetime | None = None
    account_id: str | None = None


@routes.get("/api/v1/aggregates")
async def aggregates(request: web.Request) -> web.Response:
    """One metric over time: of the instance for moderators, of an account for its owner and for moderators.

    `from` (included) and `to` (excluded) are moved to the buckets that they lie in; without them the newest 60 buckets
    are given, the running one last. Every bucket within is listed. What is older than the retention is not known, and
    `from` is moved up to it.
    """
    viewer = require_user(request, "read:accounts")
    wanted = read_query(request, Wanted)
    context, series = context_of(request), request.app[SERIES]
    scope: Scope = INSTANCE if wanted.account_id is None else _account(wanted.account_id)
    if scope != viewer and not await is_moderator(context.database, viewer):
        raise forbidden()
    resolution = RESOLUTIONS.get(wanted.resolution)
    if resolution is None:
        raise unprocessable(f"Validation failed: Resolution must be {', '.join(RESOLUTIONS)}")
    metrics = (*metrics_of(scope), DELIVERIES)
    if wanted.metric not in metrics:
        raise unprocessable(f"Validation failed: Metric must be one of {', '.join(metrics)}")
    if scope != INSTANCE and await context.database.row(ACCOUNT_EXISTS, {"id": scope}) is None:
        raise not_found()
    now, width = int(time.time()), resolution.width
    end = now if wanted.end is None else _seconds(wanted.end) - 1
    end = min(floor_to(end, width), floor_to(now, width)) + width
    start = end - DEFAULT_BUCKETS * width if wanted.start is None else floor_to(_seconds(wanted.start), width)
    start = max(start, oldest_kept(resolution, now, series.kept))
    if (end - start) // width > MAX_BUCKETS:
        raise unprocessable(f"Validation failed: From and to must be at most {MAX_BUCKETS} buckets apart")
    if wanted.metric == DELIVERIES:
        found, place = await series.deliveries(scope, resolution, start, end), 0
    else:
        found, place = await series.read(scope, resolution, start, end), metrics.index(wanted.metric)
    zeros = (0,) * len(metrics)
    return json_response(
        {
            "metric": wanted.metric,
            "resolution": resolution.name,
            "account_id": None if scope == INSTANCE else str(scope),
            "from": timestamp(moment(start)),
            "to": timestamp(moment(max(start, end))),
            "buckets": [
                {"at": timestamp(moment(bucket)), "value": found.get(bucket, zeros)[place]}
                for bucket in range(start, end, width)
            ],
        }
    )


@routes.get("/api/v1/instance/activity")
async def activity(request: web.Request) -> web.Response:
    """Posts, active people and sign-ups of the last twelve weeks, the running one first (Mastodon: numbers as text)."""
    series = request.app[SERIES]
    now = int(time.time())
    this_week = floor_to(now - FIRST_MONDAY, WEEK) + FIRST_MONDAY
    weeks = [this_week - number * WEEK for number in range(WEEKS)]
    days = await series.read(INSTANCE, DAILY, weeks[-1], floor_to(now, DAY) + DAY)
    posts, sign_ups = (metrics_of(INSTANCE).index(name) for name in ("posts", "sign_ups"))
    answer = []
    for week in weeks:
        of_week = [days[day] for day in range(week, week + WEEK, DAY) if day in days]
        active = await series.active(range(week, min(week + WEEK, now + 1), DAY))
        answer.append(
            {
                "week": str(week),
                "statuses": str(sum(counts[posts] for counts in of_week)),
                "logins": str(active),
                "registrations": str(sum(counts[sign_ups] for counts in of_week)),
            }
        )
    return json_response(answer)


def _account(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise not_found() from None


def _seconds(given: datetime) -> int:
    """Unix seconds; a time without a zone is UTC."""
    aware = given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    return (aware - datetime.fromtimestamp(0, UTC)) // timedelta(seconds=1)
