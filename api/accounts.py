"""Accounts: profiles, one's own profile, and what somebody has posted."""

from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct
from psycopg.types.json import Jsonb

from api import follow_requests
from api.auth.principal import require_user, viewer_of
from api.body import read_body, read_query
from api.context import Context, context_of
from api.database import Transaction
from api.errors import not_found, unprocessable
from api.outbox import Outbox
from api.paging import link_header, read_page
from api.responses import json_response
from api.visibility import listed
from api.writes import write
from fanline.content import clean
from readmodels.entities import Entity, account_source
from readmodels.entity_queries import ACCOUNTS_BY_ID

routes = web.RouteTableDef()

MAX_DISPLAY_NAME = 100
MAX_NOTE = 5_000
MAX_FIELDS = 4
MAX_FIELD = 255
VISIBILITIES = ("public", "unlisted", "private", "direct")

SELECT_BY_USERNAME = "SELECT id FROM users WHERE lower(username) = lower(%(username)s)"
SELECT_REQUESTS = "SELECT count(*) AS count FROM follow_requests WHERE followee_id = %(id)s"
SELECT_ROLE = "SELECT role FROM identities WHERE user_id = %(id)s"
UPDATE_USER = "UPDATE users SET {assignments}, updated_at = now() WHERE id = %(id)s RETURNING *"


class Source(Struct):
    """Defaults for new posts."""

    privacy: str | None = None
    sensitive: bool | None = None
    language: Annotated[str, Meta(max_length=35)] | None = None


class Field(Struct):
    """One name and value of a profile."""

    name: Annotated[str, Meta(max_length=MAX_FIELD)] = ""
    value: Annotated[str, Meta(max_length=MAX_FIELD)] = ""


class Credentials(Struct):
    """Parameters of PATCH /api/v1/accounts/update_credentials; what is absent stays."""

    display_name: Annotated[str, Meta(max_length=MAX_DISPLAY_NAME)] | None = None
    note: Annotated[str, Meta(max_length=MAX_NOTE)] | None = None
    locked: bool | None = None
    bot: bool | None = None
    discoverable: bool | None = None
    indexable: bool | None = None
    fields_attributes: list[Field] | dict[str, Field] | None = None
    source: Source | None = None


class Lookup(Struct):
    """Parameters of GET /api/v1/accounts/lookup."""

    acct: Annotated[str, Meta(max_length=512)] = ""


class StatusFilter(Struct):
    """Parameters of GET /api/v1/accounts/:id/statuses beside those of paging."""

    exclude_replies: bool = False
    exclude_reblogs: bool = False
    only_media: bool = False
    pinned: bool = False
    tagged: Annotated[str, Meta(max_length=100)] = ""


def account_id(request: web.Request) -> UUID:
    """The account in the path; raises `ApiError` 404."""
    try:
        return UUID(request.match_info["id"])
    except ValueError as error:
        raise not_found() from error


@routes.get("/api/v1/accounts/verify_credentials")
async def verify_credentials(request: web.Request) -> web.Response:
    """One's own account, with what a profile form needs."""
    user_id = require_user(request, "read:accounts", "profile")
    return json_response(await credential_account(context_of(request), user_id))


@routes.patch("/api/v1/accounts/update_credentials")
async def update_credentials(request: web.Request) -> web.Response:
    """Change one's own profile."""
    user_id = require_user(request, "write:accounts")
    form = await read_body(request, Credentials)
    context = context_of(request)
    changes = _changes(form)
    if changes:
        assignments = ", ".join(f"{column} = %({column})s" for column in changes)
        query = UPDATE_USER.format(assignments=assignments)

        async def body(transaction: Transaction, outbox: Outbox) -> None:
            row = await transaction.row(query, {**changes, "id": user_id})
            if row is None:
                raise not_found()
            await outbox.account_updated(row)
            if changes.get("locked") is False:
                await follow_requests.grant(transaction, outbox, user_id, None)

        await write(context, user_id, body)
    return json_response(await credential_account(context, user_id))


@routes.get("/api/v1/accounts/lookup")
async def lookup(request: web.Request) -> web.Response:
    """An account by its handle."""
    context = context_of(request)
    username, _, domain = read_query(request, Lookup).acct.removeprefix("@").partition("@")
    if domain and domain.lower() != context.domain.lower():
        raise not_found()
    row = await context.database.row(SELECT_BY_USERNAME, {"username": username})
    if row is None:
        raise not_found()
    return await _account_response(context, row["id"], viewer_of(request))


@routes.get("/api/v1/accounts/{id:[0-9a-fA-F-]{32,36}}")
async def account(request: web.Request) -> web.Response:
    """An account."""
    return await _account_response(context_of(request), account_id(request), viewer_of(request))


@routes.get("/api/v1/accounts/{id}/statuses")
async def account_statuses(request: web.Request) -> web.Response:
    """What somebody has posted, as far as the viewer may see it."""
    context = context_of(request)
    viewer = viewer_of(request)
    author = account_id(request)
    wanted = read_query(request, StatusFilter)
    page = read_page(request)
    # From the pins, which are few: a profile may have any number of posts.
    source = "pins i JOIN posts p ON p.id = i.post_id AND i.user_id = p.author_id" if wanted.pinned else "posts p"
    query = f"SELECT p.id FROM {source} WHERE p.author_id = %(author)s AND {listed('p')}"
    if wanted.exclude_replies:
        query += " AND (p.in_reply_to_account_id IS NULL OR p.in_reply_to_account_id = p.author_id)"
    if wanted.exclude_reblogs:
        query += " AND p.repost_of_id IS NULL"
    if wanted.only_media:
        query += " AND EXISTS (SELECT 1 FROM media m WHERE m.post_id = p.id)"
    if wanted.tagged:
        query += (
            " AND EXISTS (SELECT 1 FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id"
            " WHERE ph.post_id = p.id AND h.name = %(tag)s)"
        )
    parameters = {"author": author, "viewer": viewer, "tag": wanted.tagged.lower(), **page.parameters()}

    async def body(transaction: Transaction) -> list[Entity]:
        await require_account(transaction, author)
        rows = await transaction.rows(query + page.sql("p.id"), parameters)
        return await context.entities.statuses(transaction, [row["id"] for row in page.newest_first(rows)], viewer)

    statuses = await context.database.read(body)
    headers = link_header(request, context.public_url, statuses[0]["id"], statuses[-1]["id"]) if statuses else {}
    return json_response(statuses, headers=headers)


async def require_account(transaction: Transaction, identifier: UUID) -> dict[str, Any]:
    """The account's row; raises `ApiError` 404."""
    row = await transaction.row(ACCOUNTS_BY_ID, {"ids": [identifier]})
    if row is None:
        raise not_found()
    return row


async def credential_account(context: Context, user_id: UUID) -> Entity:
    """Mastodon's CredentialAccount: the account with `source` and `role`."""

    async def body(transaction: Transaction) -> Entity:
        row = await require_account(transaction, user_id)
        requests = await transaction.row(SELECT_REQUESTS, {"id": user_id})
        role = await transaction.row(SELECT_ROLE, {"id": user_id})
        entity = (await context.entities.accounts(transaction, [user_id], user_id))[user_id]
        return entity | {
            "source": account_source(row, requests["count"] if requests else 0),
            "role": role_entity(role["role"] if role else "user"),
        }

    return await context.database.read(body)


def role_entity(name: str) -> Entity:
    """Mastodon's Role; `permissions` is a bit set that grants nothing to a plain user."""
    permissions = {"user": 0, "moderator": 1 << 4 | 1 << 10, "admin": 1}
    return {
        "id": {"user": "-99", "moderator": "1", "admin": "3"}[name],
        "name": "" if name == "user" else name.capitalize(),
        "permissions": str(permissions[name]),
        "color": "",
        "highlighted": name != "user",
    }


def _changes(form: Credentials) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "display_name": None if form.display_name is None else clean(form.display_name).replace("\n", " "),
        "note": None if form.note is None else clean(form.note),
        "locked": form.locked,
        "bot": form.bot,
        "discoverable": form.discoverable,
        "indexable": form.indexable,
    }
    if form.fields_attributes is not None:
        fields = form.fields_attributes
        given = fields if isinstance(fields, list) else [fields[key] for key in sorted(fields)]
        kept = [{"name": clean(field.name), "value": clean(field.value)} for field in given if field.name.strip()]
        if len(kept) > MAX_FIELDS:
            raise unprocessable(f"Validation failed: at most {MAX_FIELDS} profile fields are allowed")
        changes["fields"] = Jsonb(kept)
    if form.source is not None:
        if form.source.privacy is not None and form.source.privacy not in VISIBILITIES:
            raise unprocessable("Validation failed: source[privacy] must be public, unlisted, private or direct")
        changes["default_visibility"] = form.source.privacy
        changes["default_sensitive"] = form.source.sensitive
        changes["default_language"] = form.source.language or None
    return {column: value for column, value in changes.items() if value is not None}


async def _account_response(context: Context, identifier: UUID, viewer: UUID | None) -> web.Response:
    async def body(transaction: Transaction) -> Entity:
        accounts = await context.entities.accounts(transaction, [identifier], viewer)
        if identifier not in accounts:
            raise not_found()
        return accounts[identifier]

    return json_response(await context.database.read(body))
