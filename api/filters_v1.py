"""Filters (version 1), as older clients know them: each is one keyword, by whose id it goes."""

from typing import Any
from uuid import UUID

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from api.auth.principal import require_user
from api.body import read_body
from api.context import context_of
from api.database import Row, Transaction
from api.errors import not_found, unprocessable
from api.filter_rows import (
    MAX_TITLE,
    Keyword,
    checked_contexts,
    checked_end,
    insert_filter,
    parse_id,
    put_keywords,
    touch,
    update_filter,
)
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity, timestamp

routes = web.RouteTableDef()

SELECT = """
SELECT k.id, k.filter_id, k.keyword, k.whole_word, f.contexts, f.action, f.expires_at,
       (SELECT count(*) FROM filter_keywords o WHERE o.filter_id = f.id) AS keywords
FROM filters f JOIN filter_keywords k ON k.filter_id = f.id
WHERE f.user_id = %(user_id)s AND (%(id)s::uuid IS NULL OR k.id = %(id)s)
ORDER BY f.created_at, f.id, k.id
"""
DELETE_KEYWORD = "DELETE FROM filter_keywords WHERE id = %(id)s"
DELETE_EMPTY = """
DELETE FROM filters WHERE id = %(filter_id)s
  AND NOT EXISTS (SELECT 1 FROM filter_keywords k WHERE k.filter_id = filters.id)
  AND NOT EXISTS (SELECT 1 FROM filter_posts i WHERE i.filter_id = filters.id)
"""


class FilterForm(Struct):
    """Parameters of POST and PUT of filters; on PUT what is absent stays."""

    phrase: str | None = None
    context: list[str] | None = None
    irreversible: bool | None = None
    whole_word: bool | None = None
    expires_in: str | int | UnsetType | None = UNSET
    """Seconds from now; empty: for ever."""


@routes.get("/api/v1/filters")
async def filters(request: web.Request) -> web.Response:
    """The keywords of the caller's filters."""
    user_id = require_user(request, "read:filters")
    rows = await context_of(request).database.rows(SELECT, {"user_id": user_id, "id": None})
    return json_response([_entity(row) for row in rows])


@routes.get("/api/v1/filters/{id}")
async def one(request: web.Request) -> web.Response:
    """One keyword."""
    user_id = require_user(request, "read:filters")
    identifier = _id(request)
    row = await context_of(request).database.read(lambda transaction: _row(transaction, user_id, identifier))
    return json_response(_entity(row))


@routes.post("/api/v1/filters")
async def create(request: web.Request) -> web.Response:
    """Make a filter of one keyword."""
    user_id = require_user(request, "write:filters")
    form = await read_body(request, FilterForm)
    columns = {"action": "warn", "expires_at": None, "title": (form.phrase or "")[:MAX_TITLE], **_columns(form)}
    columns["contexts"] = checked_contexts(form.context)

    async def body(transaction: Transaction, _: object) -> Entity:
        keyword = Keyword(keyword=form.phrase, whole_word=form.whole_word is True)
        (identifier,) = await put_keywords(transaction, await insert_filter(transaction, user_id, columns), [keyword])
        return _entity(await _row(transaction, user_id, identifier))

    return json_response(await write(context_of(request), user_id, body))


@routes.put("/api/v1/filters/{id}")
async def update(request: web.Request) -> web.Response:
    """Change a keyword and its filter; refused where other keywords share the filter and would change with it."""
    user_id = require_user(request, "write:filters")
    identifier = _id(request)
    form = await read_body(request, FilterForm)
    columns = _columns(form)

    async def body(transaction: Transaction, _: object) -> Entity:
        row = await _row(transaction, user_id, identifier)
        shared = {name for name, value in columns.items() if row[name] != value}
        if shared and row["keywords"] > 1:
            raise unprocessable("Validation failed: these parameters belong to a filter with other keywords")
        await update_filter(transaction, user_id, row["filter_id"], columns)
        change = Keyword(str(identifier), form.phrase, form.whole_word)
        await put_keywords(transaction, row["filter_id"], [change])
        return _entity(await _row(transaction, user_id, identifier))

    return json_response(await write(context_of(request), user_id, body))


@routes.delete("/api/v1/filters/{id}")
async def delete(request: web.Request) -> web.Response:
    """Remove a keyword, and its filter with the last one."""
    user_id = require_user(request, "write:filters")
    identifier = _id(request)

    async def body(transaction: Transaction, _: object) -> Entity:
        row = await _row(transaction, user_id, identifier)
        await touch(transaction, user_id, row["filter_id"])
        await transaction.execute(DELETE_KEYWORD, {"id": identifier})
        await transaction.execute(DELETE_EMPTY, row)
        return {}

    return json_response(await write(context_of(request), user_id, body))


def _columns(form: FilterForm) -> Row:
    columns: dict[str, Any] = {}
    if form.context is not None:
        columns["contexts"] = checked_contexts(form.context)
    if form.irreversible is not None:
        columns["action"] = "hide" if form.irreversible else "warn"
    if not isinstance(form.expires_in, UnsetType):
        columns["expires_at"] = checked_end(form.expires_in)
    return columns


async def _row(transaction: Transaction, user_id: UUID, identifier: UUID) -> Row:
    row = await transaction.row(SELECT, {"user_id": user_id, "id": identifier})
    if row is None:
        raise not_found()
    return row


def _entity(row: Row) -> Entity:
    return {
        "id": str(row["id"]),
        "phrase": row["keyword"],
        "context": list(row["contexts"]),
        "whole_word": row["whole_word"],
        "expires_at": None if row["expires_at"] is None else timestamp(row["expires_at"]),
        "irreversible": row["action"] == "hide",
    }


def _id(request: web.Request) -> UUID:
    identifier = parse_id(request.match_info["id"])
    assert identifier is not None
    return identifier
