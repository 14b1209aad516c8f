"""Markers: how far somebody has read their home timeline and notifications, shared by their clients."""

from datetime import datetime
from typing import Any

from aiohttp import web
from msgspec import Struct

from api.auth.principal import require_user
from api.body import query_parameters, read_body
from api.context import context_of
from api.database import Row, Transaction
from api.errors import unprocessable
from api.outbox import Outbox
from api.paging import post_id
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity, timestamp

routes = web.RouteTableDef()

TIMELINES = ("home", "notifications")

SELECT_MARKERS = "SELECT * FROM markers WHERE user_id = %(user_id)s AND timeline = ANY(%(timelines)s)"
UPSERT_MARKER = """
INSERT INTO markers (user_id, timeline, last_read_id) VALUES (%(user_id)s, %(timeline)s, %(last_read_id)s)
ON CONFLICT (user_id, timeline) DO UPDATE
SET last_read_id = excluded.last_read_id, version = markers.version + 1, updated_at = now()
RETURNING *
"""


class Position(Struct):
    """One marker to set."""

    last_read_id: str | int


class Markers(Struct):
    """Parameters of POST /api/v1/markers."""

    home: Position | None = None
    notifications: Position | None = None


@routes.get("/api/v1/markers")
async def markers(request: web.Request) -> web.Response:
    """The markers of the timelines named by `timeline[]`."""
    user_id = require_user(request, "read:statuses")
    given = query_parameters(request).get("timeline", [])
    names = [name for name in (given if isinstance(given, list) else [given]) if name in TIMELINES]
    rows = await context_of(request).database.rows(SELECT_MARKERS, {"user_id": user_id, "timelines": names})
    return json_response({row["timeline"]: _entity(row) for row in rows})


@routes.post("/api/v1/markers")
async def set_markers(request: web.Request) -> web.Response:
    """Set markers; answers with those that were set."""
    user_id = require_user(request, "write:statuses")
    form = await read_body(request, Markers)
    given = {"home": form.home, "notifications": form.notifications}
    positions = {name: _number(position) for name, position in given.items() if position is not None}

    async def body(transaction: Transaction, _outbox: Outbox) -> list[Row]:
        found: list[Row] = []
        for name, last_read_id in positions.items():
            parameters: dict[str, Any] = {"user_id": user_id, "timeline": name, "last_read_id": last_read_id}
            found += await transaction.rows(UPSERT_MARKER, parameters)
        return found

    rows = await write(context_of(request), user_id, body)
    return json_response({row["timeline"]: _entity(row) for row in rows})


def _number(position: Position) -> int:
    try:
        return post_id(str(position.last_read_id))
    except ValueError as error:
        raise unprocessable("Validation failed: last_read_id must be an id") from error


def _entity(row: Row) -> Entity:
    updated_at: datetime = row["updated_at"]
    return {
        "last_read_id": str(row["last_read_id"]),
        "version": row["version"],
        "updated_at": timestamp(updated_at),
    }
