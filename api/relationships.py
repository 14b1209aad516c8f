"""What is between two people, and lists of people: followers, following, blocks, mutes."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from aiohttp import web

from api.accounts import account_id, require_account
from api.auth.principal import require_user, viewer_of
from api.body import query_parameters
from api.context import context_of
from api.database import Row, Transaction
from api.errors import unprocessable
from api.paging import link_header, read_account_page
from api.responses import json_response
from readmodels.entities import Entity, timestamp

routes = web.RouteTableDef()

MAX_RELATIONSHIPS = 400

RELATIONSHIPS = """
SELECT u.id,
       following.follower_id IS NOT NULL AS following,
       coalesce(following.show_reblogs, requested.show_reblogs, false) AS showing_reblogs,
       coalesce(following.notify, requested.notify, false) AS notifying,
       following.languages,
       EXISTS (SELECT 1 FROM follows f WHERE f.follower_id = u.id AND f.followee_id = %(viewer)s) AS followed_by,
       EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = %(viewer)s AND b.blocked_id = u.id) AS blocking,
       EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = u.id AND b.blocked_id = %(viewer)s) AS blocked_by,
       mute.muter_id IS NOT NULL AS muting,
       coalesce(mute.hide_notifications, false) AS muting_notifications,
       mute.expires_at AS muting_expires_at,
       requested.follower_id IS NOT NULL AS requested,
       EXISTS (SELECT 1 FROM follow_requests r WHERE r.follower_id = u.id AND r.followee_id = %(viewer)s)
           AS requested_by,
       coalesce(note.comment, '') AS note
FROM users u
LEFT JOIN follows following ON following.follower_id = %(viewer)s AND following.followee_id = u.id
LEFT JOIN follow_requests requested ON requested.follower_id = %(viewer)s AND requested.followee_id = u.id
LEFT JOIN mutes mute ON mute.muter_id = %(viewer)s AND mute.muted_id = u.id
                    AND (mute.expires_at IS NULL OR mute.expires_at > now())
LEFT JOIN account_notes note ON note.user_id = %(viewer)s AND note.target_id = u.id
WHERE u.id = ANY(%(ids)s::uuid[])
"""
FOLLOWERS = "SELECT f.follower_id AS id FROM follows f WHERE f.followee_id = %(owner)s"
FOLLOWING = "SELECT f.followee_id AS id FROM follows f WHERE f.follower_id = %(owner)s"
BLOCKS = "SELECT b.blocked_id AS id FROM blocks b WHERE b.blocker_id = %(owner)s"
MUTES = """
SELECT m.muted_id AS id, m.expires_at AS mute_expires_at FROM mutes m
WHERE m.muter_id = %(owner)s AND (m.expires_at IS NULL OR m.expires_at > now())
"""
UNBLOCKED = " AND NOT EXISTS (SELECT 1 FROM blocks x WHERE x.blocker_id = {column} AND x.blocked_id = %(viewer)s::uuid)"


async def load_relationships(transaction: Transaction, viewer: UUID, ids: Sequence[UUID]) -> list[Entity]:
    """Mastodon's Relationship entities between the viewer and those ids that exist, in their order."""
    rows = await transaction.rows(RELATIONSHIPS, {"viewer": viewer, "ids": list(ids)})
    by_id: dict[UUID, Any] = {row["id"]: row for row in rows}
    return [_entity(by_id[identifier]) for identifier in dict.fromkeys(ids) if identifier in by_id]


async def relationship(transaction: Transaction, viewer: UUID, other: UUID) -> Entity:
    """The relationship to one account, which exists."""
    (entity,) = await load_relationships(transaction, viewer, [other])
    return entity


@routes.get("/api/v1/accounts/relationships")
async def relationships(request: web.Request) -> web.Response:
    """How the caller stands to several accounts: `id[]=...`."""
    viewer = require_user(request, "read:follows")
    given = query_parameters(request).get("id", [])
    texts = given if isinstance(given, list) else [given]
    if len(texts) > MAX_RELATIONSHIPS:
        raise unprocessable(f"Validation failed: at most {MAX_RELATIONSHIPS} accounts at once")
    ids = [identifier for text in texts if (identifier := _uuid(text)) is not None]
    return json_response(
        await context_of(request).database.read(lambda transaction: load_relationships(transaction, viewer, ids))
    )


@routes.get("/api/v1/accounts/{id}/followers")
async def followers(request: web.Request) -> web.Response:
    """Who follows the account, in the order of their ids."""
    return await _people(request, account_id(request), FOLLOWERS, "f.follower_id")


@routes.get("/api/v1/accounts/{id}/following")
async def following(request: web.Request) -> web.Response:
    """Whom the account follows, in the order of their ids."""
    return await _people(request, account_id(request), FOLLOWING, "f.followee_id")


@routes.get("/api/v1/blocks")
async def blocks(request: web.Request) -> web.Response:
    """Whom the caller blocks, in the order of their ids."""
    return await _people(request, require_user(request, "read:blocks"), BLOCKS, "b.blocked_id")


@routes.get("/api/v1/mutes")
async def mutes(request: web.Request) -> web.Response:
    """Whom the caller mutes and until when, in the order of their ids."""
    return await _people(request, require_user(request, "read:mutes"), MUTES, "m.muted_id")


async def _people(request: web.Request, owner: UUID, query: str, column: str) -> web.Response:
    """A page of the accounts that `query` names; in somebody else's list, without those who block the viewer."""
    context = context_of(request)
    viewer = viewer_of(request)
    page = read_account_page(request)
    if owner != viewer:
        query += UNBLOCKED.format(column=column)
    parameters = {"owner": owner, "viewer": viewer, **page.parameters()}

    async def body(transaction: Transaction) -> list[Entity]:
        await require_account(transaction, owner)
        rows = {
            row["id"]: row for row in page.newest_first(await transaction.rows(query + page.sql(column), parameters))
        }
        accounts = await context.entities.accounts(transaction, rows, viewer)
        return [accounts[identifier] | _more(row) for identifier, row in rows.items() if identifier in accounts]

    accounts = await context.database.read(body)
    headers = link_header(request, context.public_url, accounts[0]["id"], accounts[-1]["id"]) if accounts else {}
    return json_response(accounts, headers=headers)


def _more(row: Row) -> Entity:
    """What a list says of an account beside the account itself: a mute's end."""
    if "mute_expires_at" not in row:
        return {}
    ends = row["mute_expires_at"]
    return {"mute_expires_at": None if ends is None else timestamp(ends)}


def _entity(row: dict[str, Any]) -> Entity:
    expires_at = row["muting_expires_at"]
    return {
        **row,
        "id": str(row["id"]),
        "muting_expires_at": None if expires_at is None else timestamp(expires_at),
        "domain_blocking": False,
        "endorsed": False,
    }


def _uuid(text: object) -> UUID | None:
    try:
        return UUID(str(text))
    except ValueError:
        return None
