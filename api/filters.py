"""Filters (version 2): what the caller does not want to read, by keywords and by single statuses."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from api.auth.principal import require_user
from api.body import read_body
from api.context import context_of
from api.database import Row, Transaction
from api.errors import not_found, unprocessable
from api.filter_rows import (
    Keyword,
    check_numbers,
    checked_action,
    checked_contexts,
    checked_end,
    checked_title,
    insert_filter,
    keyword_entity,
    load_filter,
    load_filters,
    parse_id,
    post_entity,
    put_keywords,
    touch,
    update_filter,
)
from api.paging import post_id
from api.post_rows import visible_post
from api.responses import json_response
from api.writes import write

routes = web.RouteTableDef()

OF_KEYWORD = """
SELECT k.id, k.filter_id, k.keyword, k.whole_word FROM filter_keywords k JOIN filters f ON f.id = k.filter_id
WHERE k.id = %(id)s AND f.user_id = %(user_id)s
"""
OF_POST = """
SELECT i.id, i.filter_id, i.post_id FROM filter_posts i JOIN filters f ON f.id = i.filter_id
WHERE i.id = %(id)s AND f.user_id = %(user_id)s
"""
DELETE_FILTER = "DELETE FROM filters WHERE id = %(id)s AND user_id = %(user_id)s"
INSERT_POST = """
INSERT INTO filter_posts (id, filter_id, post_id) VALUES (%(id)s, %(filter_id)s, %(post_id)s) ON CONFLICT DO NOTHING
"""
SELECT_POST = "SELECT id, post_id FROM filter_posts WHERE filter_id = %(filter_id)s AND post_id = %(post_id)s"
DELETE_POST = "DELETE FROM filter_posts WHERE id = %(id)s"

Body = Callable[[Transaction, UUID], Awaitable[Any]]
"""What to do for the caller; the answer is its result."""


class FilterForm(Struct):
    """Parameters of POST and PUT of filters; on PUT what is absent stays."""

    title: str | None = None
    context: list[str] | None = None
    filter_action: str | None = None
    expires_in: str | int | UnsetType | None = UNSET
    """Seconds from now; empty: for ever."""
    keywords_attributes: list[Keyword] | dict[str, Keyword] = []


class FilterPostForm(Struct):
    """Parameters of POST /api/v2/filters/:id/statuses."""

    status_id: str


@routes.get("/api/v2/filters")
async def filters(request: web.Request) -> web.Response:
    """The caller's filters."""
    return await _read(request, load_filters)


@routes.post("/api/v2/filters")
async def create(request: web.Request) -> web.Response:
    """Make a filter, with keywords."""
    form = await read_body(request, FilterForm)
    columns = {
        "title": checked_title(form.title),
        "contexts": checked_contexts(form.context),
        "action": checked_action(form.filter_action or "warn"),
        "expires_at": None if isinstance(form.expires_in, UnsetType) else checked_end(form.expires_in),
    }

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        identifier = await insert_filter(transaction, user_id, columns)
        await put_keywords(transaction, identifier, _keywords(form))
        return await load_filter(transaction, user_id, identifier)

    return await _write(request, body)


@routes.get("/api/v2/filters/{id}")
async def one(request: web.Request) -> web.Response:
    """One filter."""
    identifier = _id(request)
    return await _read(request, lambda transaction, user_id: load_filter(transaction, user_id, identifier))


@routes.put("/api/v2/filters/{id}")
async def update(request: web.Request) -> web.Response:
    """Change a filter and its keywords."""
    identifier = _id(request)
    form = await read_body(request, FilterForm)
    columns: Row = {}
    if form.title is not None:
        columns["title"] = checked_title(form.title)
    if form.context is not None:
        columns["contexts"] = checked_contexts(form.context)
    if form.filter_action is not None:
        columns["action"] = checked_action(form.filter_action)
    if not isinstance(form.expires_in, UnsetType):
        columns["expires_at"] = checked_end(form.expires_in)

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        await update_filter(transaction, user_id, identifier, columns)
        await put_keywords(transaction, identifier, _keywords(form))
        return await load_filter(transaction, user_id, identifier)

    return await _write(request, body)


@routes.delete("/api/v2/filters/{id}")
async def delete(request: web.Request) -> web.Response:
    """Remove a filter."""
    identifier = _id(request)

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        if not await transaction.execute(DELETE_FILTER, {"id": identifier, "user_id": user_id}):
            raise not_found()
        return {}

    return await _write(request, body)


@routes.get("/api/v2/filters/{id}/keywords")
async def keywords(request: web.Request) -> web.Response:
    """A filter's keywords."""
    return await _part(request, "keywords")


@routes.post("/api/v2/filters/{id}/keywords")
async def add_keyword(request: web.Request) -> web.Response:
    """Add a keyword to a filter."""
    identifier = _id(request)
    form = await read_body(request, Keyword)
    form.id = None

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        await touch(transaction, user_id, identifier)
        (added,) = await put_keywords(transaction, identifier, [form])
        return keyword_entity(await _row(transaction, OF_KEYWORD, user_id, added))

    return await _write(request, body)


@routes.get("/api/v2/filters/keywords/{id}")
async def keyword(request: web.Request) -> web.Response:
    """One keyword of any of the caller's filters."""
    identifier = _id(request)

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        return keyword_entity(await _row(transaction, OF_KEYWORD, user_id, identifier))

    return await _read(request, body)


@routes.put("/api/v2/filters/keywords/{id}")
async def update_keyword(request: web.Request) -> web.Response:
    """Change a keyword."""
    form = await read_body(request, Keyword)
    return await _change_keyword(request, Keyword(str(_id(request)), form.keyword, form.whole_word))


@routes.delete("/api/v2/filters/keywords/{id}")
async def delete_keyword(request: web.Request) -> web.Response:
    """Remove a keyword."""
    return await _change_keyword(request, Keyword(str(_id(request)), destroy=True))


@routes.get("/api/v2/filters/{id}/statuses")
async def posts(request: web.Request) -> web.Response:
    """A filter's single statuses."""
    return await _part(request, "statuses")


@routes.post("/api/v2/filters/{id}/statuses")
async def add_post(request: web.Request) -> web.Response:
    """Add a status to a filter; one that is there stays as it is."""
    identifier = _id(request)
    form = await read_body(request, FilterPostForm)
    try:
        post = post_id(form.status_id)
    except ValueError as error:
        raise unprocessable("Validation failed: Status must exist") from error

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        await touch(transaction, user_id, identifier)
        await visible_post(transaction, post, user_id)
        parameters = {"id": uuid4(), "filter_id": identifier, "post_id": post}
        await transaction.execute(INSERT_POST, parameters)
        await check_numbers(transaction, identifier)
        row = await transaction.row(SELECT_POST, parameters)
        assert row is not None
        return post_entity(row)

    return await _write(request, body)


@routes.get("/api/v2/filters/statuses/{id}")
async def post(request: web.Request) -> web.Response:
    """One single status of any of the caller's filters."""
    identifier = _id(request)

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        return post_entity(await _row(transaction, OF_POST, user_id, identifier))

    return await _read(request, body)


@routes.delete("/api/v2/filters/statuses/{id}")
async def delete_post(request: web.Request) -> web.Response:
    """Remove a status from a filter."""
    identifier = _id(request)

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        row = await _row(transaction, OF_POST, user_id, identifier)
        await touch(transaction, user_id, row["filter_id"])
        await transaction.execute(DELETE_POST, {"id": identifier})
        return {}

    return await _write(request, body)


async def _change_keyword(request: web.Request, change: Keyword) -> web.Response:
    identifier = _id(request)

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        row = await _row(transaction, OF_KEYWORD, user_id, identifier)
        await touch(transaction, user_id, row["filter_id"])
        await put_keywords(transaction, row["filter_id"], [change])
        return {} if change.destroy else keyword_entity(await _row(transaction, OF_KEYWORD, user_id, identifier))

    return await _write(request, body)


async def _part(request: web.Request, name: str) -> web.Response:
    identifier = _id(request)

    async def body(transaction: Transaction, user_id: UUID) -> Any:
        return (await load_filter(transaction, user_id, identifier))[name]

    return await _read(request, body)


async def _row(transaction: Transaction, query: str, user_id: UUID, identifier: UUID) -> Row:
    row = await transaction.row(query, {"id": identifier, "user_id": user_id})
    if row is None:
        raise not_found()
    return row


async def _read(request: web.Request, body: Body) -> web.Response:
    user_id = require_user(request, "read:filters")
    return json_response(await context_of(request).database.read(lambda transaction: body(transaction, user_id)))


async def _write(request: web.Request, body: Body) -> web.Response:
    user_id = require_user(request, "write:filters")
    return json_response(await write(context_of(request), user_id, lambda transaction, _: body(transaction, user_id)))


def _keywords(form: FilterForm) -> list[Keyword]:
    given = form.keywords_attributes
    return given if isinstance(given, list) else [given[key] for key in sorted(given)]


def _id(request: web.Request) -> UUID:
    identifier = parse_id(request.match_info["id"])
    assert identifier is not None
    return identifier
