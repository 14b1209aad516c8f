"""What the caller wants to be told, and what their policy has filtered: /api/v2/notifications/policy and the requests.

A request is a sender whose notifications were filtered; its id is the sender's. They are paged by their newest
notification, whose id clients get from the `Link` header.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from aiohttp import web
from msgspec import Struct

from api.accounts import account_id
from api.auth.principal import require_user
from api.body import read_body
from api.context import context_of
from api.database import Row, Transaction
from api.entities import Entities
from api.errors import not_found
from api.outbox import Outbox
from api.paging import link_header, read_page
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity, timestamp
from readmodels.notification_rules import DEFAULTS, Decision
from readmodels.notifications import UNSUSPENDED

routes = web.RouteTableDef()

SELECT_POLICY = "SELECT * FROM notification_policies WHERE user_id = %(user_id)s"
UPSERT_POLICY = f"""
INSERT INTO notification_policies (user_id, {", ".join(DEFAULTS)})
VALUES (%(user_id)s, {", ".join(f"coalesce(%({part})s::text, '{default}')" for part, default in DEFAULTS.items())})
ON CONFLICT (user_id) DO UPDATE
SET {", ".join(f"{part} = coalesce(%({part})s::text, notification_policies.{part})" for part in DEFAULTS)},
    updated_at = now()
"""
_PENDING = "n.user_id = %(user_id)s::uuid AND n.filtered AND n.dismissed_at IS NULL"
SUMMARY = f"""
SELECT count(DISTINCT n.from_account_id) AS requests, count(*) AS notifications FROM notifications n
WHERE {_PENDING} AND {UNSUSPENDED}
"""
REQUESTS = f"""
SELECT r.* FROM (
  SELECT n.from_account_id AS sender, count(*) AS count, min(n.created_at) AS created_at,
         max(n.created_at) AS updated_at, max(n.id) AS last_id, max(n.post_id) AS post_id
  FROM notifications n WHERE {_PENDING} AND n.from_account_id IS NOT NULL AND {UNSUSPENDED}
  GROUP BY n.from_account_id
) r WHERE true
"""
PERMIT = """
INSERT INTO notification_permissions (user_id, from_account_id)
SELECT %(user_id)s, u.id FROM users u WHERE u.id = ANY(%(senders)s::uuid[])
ON CONFLICT (user_id, from_account_id) DO NOTHING
"""
UNFILTER = (
    f"UPDATE notifications n SET filtered = false WHERE {_PENDING} AND n.from_account_id = ANY(%(senders)s::uuid[])"
)
DISMISS = f"""
UPDATE notifications n SET dismissed_at = now() WHERE {_PENDING} AND n.from_account_id = ANY(%(senders)s::uuid[])
"""


class Policy(Struct):
    """Parameters of PATCH /api/v2/notifications/policy; what is absent stays."""

    for_not_following: Decision | None = None
    for_not_followers: Decision | None = None
    for_new_accounts: Decision | None = None
    for_private_mentions: Decision | None = None
    for_limited_accounts: Decision | None = None


class Requests(Struct):
    """Parameters of what is done with several requests: their ids."""

    id: list[str] = []


@routes.get("/api/v2/notifications/policy")
async def policy(request: web.Request) -> web.Response:
    """What the caller accepts, has filtered and has dropped."""
    viewer = require_user(request, "read:notifications")

    async def body(transaction: Transaction) -> Entity:
        return await _policy(transaction, viewer)

    return json_response(await context_of(request).database.read(body))


@routes.patch("/api/v2/notifications/policy")
async def set_policy(request: web.Request) -> web.Response:
    """Change it; it applies to what happens from now on."""
    viewer = require_user(request, "write:notifications")
    form = await read_body(request, Policy)
    parameters: dict[str, Any] = {part: getattr(form, part) for part in DEFAULTS}

    async def body(transaction: Transaction) -> Entity:
        await transaction.execute(UPSERT_POLICY, {"user_id": viewer, **parameters})
        return await _policy(transaction, viewer)

    return json_response(await context_of(request).database.transaction(body))


@routes.get("/api/v1/notifications/requests")
async def requests(request: web.Request) -> web.Response:
    """The requests, those with the newest notification first, with `Link` paging."""
    viewer = require_user(request, "read:notifications")
    page, context = read_page(request, 40, 80), context_of(request)

    async def body(transaction: Transaction) -> tuple[list[Row], list[Entity]]:
        query = REQUESTS + page.sql("r.last_id")
        rows = page.newest_first(await transaction.rows(query, {"user_id": viewer, **page.parameters()}))
        return rows, await _entities(transaction, rows, viewer, context.entities)

    rows, entities = await context.database.read(body)
    headers = link_header(request, context.public_url, rows[0]["last_id"], rows[-1]["last_id"]) if rows else {}
    return json_response(entities, headers=headers)


@routes.get("/api/v1/notifications/requests/merged")
async def merged(request: web.Request) -> web.Response:
    """Whether accepted requests are among the notifications: at once, as accepting moves them."""
    require_user(request, "read:notifications")
    return json_response({"merged": True})


@routes.get("/api/v1/notifications/requests/{id}")
async def one_request(request: web.Request) -> web.Response:
    """One request."""
    viewer, sender = require_user(request, "read:notifications"), account_id(request)
    context = context_of(request)

    async def body(transaction: Transaction) -> list[Entity]:
        parameters = {"user_id": viewer, "sender": sender}
        rows = await transaction.rows(f"{REQUESTS} AND r.sender = %(sender)s", parameters)
        return await _entities(transaction, rows, viewer, context.entities)

    found = await context.database.read(body)
    if not found:
        raise not_found()
    return json_response(found[0])


@routes.post("/api/v1/notifications/requests/accept")
async def accept_requests(request: web.Request) -> web.Response:
    """Accept several requests."""
    return await _settle(request, _ids(await read_body(request, Requests)), accept=True)


@routes.post("/api/v1/notifications/requests/dismiss")
async def dismiss_requests(request: web.Request) -> web.Response:
    """Dismiss several requests."""
    return await _settle(request, _ids(await read_body(request, Requests)), accept=False)


@routes.post("/api/v1/notifications/requests/{id}/accept")
async def accept_request(request: web.Request) -> web.Response:
    """Show what the sender's notifications told, and accept them from now on."""
    return await _settle(request, [account_id(request)], accept=True)


@routes.post("/api/v1/notifications/requests/{id}/dismiss")
async def dismiss_request(request: web.Request) -> web.Response:
    """Dismiss what the sender's notifications told; further ones are a new request."""
    return await _settle(request, [account_id(request)], accept=False)


async def _settle(request: web.Request, senders: Sequence[UUID], *, accept: bool) -> web.Response:
    viewer = require_user(request, "write:notifications")
    parameters = {"user_id": viewer, "senders": list(senders)}

    async def body(transaction: Transaction, _outbox: Outbox) -> None:
        if accept:
            await transaction.execute(PERMIT, parameters)
        await transaction.execute(UNFILTER if accept else DISMISS, parameters)

    await write(context_of(request), viewer, body)
    return json_response({})


async def _policy(transaction: Transaction, viewer: UUID) -> Entity:
    row = await transaction.row(SELECT_POLICY, {"user_id": viewer})
    summary = await transaction.row(SUMMARY, {"user_id": viewer})
    assert summary is not None
    return {part: default if row is None else row[part] for part, default in DEFAULTS.items()} | {
        "summary": {
            "pending_requests_count": summary["requests"],
            "pending_notifications_count": summary["notifications"],
        }
    }


async def _entities(transaction: Transaction, rows: Sequence[Row], viewer: UUID, entities: Entities) -> list[Entity]:
    accounts = await entities.accounts(transaction, (row["sender"] for row in rows), viewer)
    posts = [row["post_id"] for row in rows if row["post_id"] is not None]
    statuses = {entity["id"]: entity for entity in await entities.statuses(transaction, posts, viewer)}
    return [
        {
            "id": str(row["sender"]),
            "created_at": timestamp(row["created_at"]),
            "updated_at": timestamp(row["updated_at"]),
            "notifications_count": str(row["count"]),
            "account": accounts[row["sender"]],
            "last_status": statuses.get(str(row["post_id"])),
        }
        for row in rows
        if row["sender"] in accounts
    ]


def _ids(form: Requests) -> list[UUID]:
    try:
        return [UUID(text) for text in form.id]
    except ValueError as error:
        raise not_found() from error
