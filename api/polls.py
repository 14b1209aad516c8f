"""Polls: read one, vote in one."""

from typing import Annotated

import psycopg
from aiohttp import web
from msgspec import Meta, Struct

from api.auth.principal import require_user, viewer_of
from api.body import read_body
from api.context import context_of
from api.database import Transaction
from api.errors import not_found
from api.outbox import Outbox
from api.paging import post_id
from api.poll_rows import insert_votes
from api.post_rows import visible_post
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity

routes = web.RouteTableDef()

SELECT_POST = "SELECT post_id FROM polls WHERE id = %(id)s"


class Vote(Struct):
    """Parameters of POST /api/v1/polls/:id/votes: the positions of the options chosen, from 0."""

    choices: Annotated[list[int], Meta(max_length=100)]


@routes.get("/api/v1/polls/{id}")
async def poll(request: web.Request) -> web.Response:
    """A poll of a status that the viewer may see."""
    viewer, identifier = viewer_of(request), _poll_id(request)
    context = context_of(request)

    async def body(transaction: Transaction) -> Entity:
        row = await transaction.row(SELECT_POST, {"id": identifier})
        if row is None:
            raise not_found()
        await visible_post(transaction, row["post_id"], viewer)
        polls = await context.entities.polls(transaction, [identifier], viewer)
        if identifier not in polls:  # deleted between two queries
            raise not_found()
        return polls[identifier]

    return json_response(await context.database.read(body))


@routes.post("/api/v1/polls/{id}/votes")
async def vote(request: web.Request) -> web.Response:
    """Vote, once: for one option, or for several at a time where the poll allows it."""
    user_id = require_user(request, "write:statuses")
    form = await read_body(request, Vote)
    identifier = _poll_id(request)
    context = context_of(request)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity:
        row = await transaction.row(SELECT_POST, {"id": identifier})
        if row is None:
            raise not_found()
        await visible_post(transaction, row["post_id"], user_id)
        voted = await insert_votes(transaction, identifier, user_id, form.choices)
        if voted is None:
            raise not_found()
        await outbox.engagement("vote", voted["post_id"], voted["author_id"], user_id)
        return (await context.entities.polls(transaction, [identifier], user_id, fresh=True))[identifier]

    try:
        return json_response(await write(context, user_id, body))
    except psycopg.errors.ForeignKeyViolation as error:  # it was deleted at the same time
        raise not_found() from error


def _poll_id(request: web.Request) -> int:
    try:
        return post_id(request.match_info["id"])
    except ValueError as error:
        raise not_found() from error
