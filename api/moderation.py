"""Reports, and what moderators do about accounts."""

from functools import partial
from typing import Annotated, Literal
from uuid import UUID, uuid4

from aiohttp import web
from msgspec import Meta, Struct

from api.accounts import account_id, require_account
from api.auth.principal import require_user
from api.auth.roles import MODERATORS, require_moderator
from api.body import read_body
from api.context import context_of
from api.database import Row, Transaction
from api.errors import forbidden, not_found, unprocessable
from api.outbox import Outbox
from api.paging import post_id
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity
from readmodels.notifications import REPORTS_BY_ID, report_entity

routes = web.RouteTableDef()

Action = Literal["none", "warn", "silence", "unsilence", "suspend", "unsuspend"]

INSERT_REPORT = """
INSERT INTO reports (id, reporter_id, target_id, category, comment, rule_ids)
VALUES (%(id)s, %(reporter)s, %(target)s, %(category)s, %(comment)s, %(rule_ids)s)
"""
# Only posts of the account that is reported; others are left out, as in Mastodon.
INSERT_REPORT_POSTS = """
INSERT INTO report_posts (report_id, post_id)
SELECT %(id)s, p.id FROM posts p WHERE p.id = ANY(%(posts)s::bigint[]) AND p.author_id = %(target)s
"""
INSERT_ACTION = """
INSERT INTO moderation_actions (id, moderator_id, target_id, report_id, action, text)
VALUES (%(id)s, %(moderator)s, %(target)s, %(report)s, %(action)s, %(text)s)
RETURNING created_at
"""
RESOLVE_REPORT = """
UPDATE reports SET resolved_at = now(), resolved_by = %(moderator)s
WHERE id = %(report)s AND target_id = %(target)s AND resolved_at IS NULL
"""
SELECT_REPORT = "SELECT 1 FROM reports WHERE id = %(report)s AND target_id = %(target)s"
SELECT_ROLES = "SELECT user_id, role FROM identities WHERE user_id = ANY(%(ids)s::uuid[])"
EFFECTS = {
    "silence": "UPDATE users SET silenced_at = coalesce(silenced_at, now()) WHERE id = %(target)s",
    "unsilence": "UPDATE users SET silenced_at = NULL WHERE id = %(target)s",
    "suspend": "UPDATE users SET suspended_at = coalesce(suspended_at, now()) WHERE id = %(target)s",
    "unsuspend": "UPDATE users SET suspended_at = NULL WHERE id = %(target)s",
}


class Report(Struct):
    """Parameters of POST /api/v1/reports."""

    account_id: str
    status_ids: Annotated[list[str], Meta(max_length=100)] = []
    comment: Annotated[str, Meta(max_length=1_000)] = ""
    category: Literal["spam", "legal", "violation", "other"] = "other"
    rule_ids: Annotated[list[str], Meta(max_length=100)] = []


class Measure(Struct):
    """Parameters of POST /api/v1/admin/accounts/:id/action."""

    type: Literal["none", "silence", "suspend"]
    report_id: str | None = None
    text: Annotated[str, Meta(max_length=5_000)] = ""


@routes.post("/api/v1/reports")
async def report(request: web.Request) -> web.Response:
    """Report an account, and posts of it, to the moderators."""
    reporter = require_user(request, "write:reports")
    form = await read_body(request, Report)
    try:
        target, posts = UUID(form.account_id), [post_id(text) for text in form.status_ids]
    except ValueError as error:
        raise not_found() from error
    if target == reporter:
        raise unprocessable("Validation failed: Account must be somebody else's")
    parameters = {
        "id": uuid4(),
        "reporter": reporter,
        "target": target,
        "category": "violation" if form.rule_ids else form.category,
        "comment": form.comment,
        "rule_ids": form.rule_ids,
        "posts": posts,
    }
    context = context_of(request)

    async def body(transaction: Transaction, outbox: Outbox) -> Entity:
        await require_account(transaction, target)
        await transaction.execute(INSERT_REPORT, parameters)
        if posts:
            await transaction.execute(INSERT_REPORT_POSTS, parameters)
        (row,) = await transaction.rows(REPORTS_BY_ID, {"ids": [parameters["id"]]})
        await outbox.report_created(row, reporter)
        accounts = await context.entities.accounts(transaction, [target], reporter, fresh=True)
        return report_entity(row, accounts[target])

    return json_response(await write(context, reporter, body))


@routes.post("/api/v1/admin/accounts/{id}/action")
async def act(request: web.Request) -> web.Response:
    """Warn, silence or suspend an account; with a report that this settles."""
    moderator = await require_moderator(request, "admin:write:accounts", "write:accounts")
    form = await read_body(request, Measure)
    try:
        settled = UUID(form.report_id) if form.report_id else None
    except ValueError as error:
        raise not_found() from error
    action: Action = "warn" if form.type == "none" else form.type
    return await _act(request, moderator, action, form.text, settled)


@routes.post("/api/v1/admin/accounts/{id}/unsilence")
async def unsilence(request: web.Request) -> web.Response:
    """Lift a silence."""
    return await _act(request, await require_moderator(request, "admin:write:accounts", "write:accounts"), "unsilence")


@routes.post("/api/v1/admin/accounts/{id}/unsuspend")
async def unsuspend(request: web.Request) -> web.Response:
    """Lift a suspension."""
    return await _act(request, await require_moderator(request, "admin:write:accounts", "write:accounts"), "unsuspend")


async def _act(
    request: web.Request, moderator: UUID, action: Action, text: str = "", settled: UUID | None = None
) -> web.Response:
    parameters = {
        "id": uuid4(),
        "moderator": moderator,
        "target": account_id(request),
        "report": settled,
        "action": action,
        "text": text,
    }
    await write(context_of(request), moderator, partial(_record, parameters=parameters))
    return json_response({})


async def _record(transaction: Transaction, outbox: Outbox, parameters: Row) -> None:
    moderator, target = parameters["moderator"], parameters["target"]
    await require_account(transaction, target)
    roles = {row["user_id"]: row["role"] for row in await transaction.rows(SELECT_ROLES, {"ids": [moderator, target]})}
    if moderator == target or (roles.get(target) in MODERATORS and roles.get(moderator) != "admin"):
        raise forbidden()
    if parameters["report"] is not None:
        if await transaction.row(SELECT_REPORT, parameters) is None:
            raise not_found()
        await transaction.execute(RESOLVE_REPORT, parameters)
    row = await transaction.row(INSERT_ACTION, parameters)
    assert row is not None
    if parameters["action"] in EFFECTS:
        await transaction.execute(EFFECTS[parameters["action"]], parameters)
    await outbox.moderation_recorded({**parameters, "created_at": row["created_at"]})
