"""Applications: registration, and how they prove who they are."""

import hashlib
import secrets
from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from aiohttp import web
from msgspec import Meta, Struct

from api.auth import scopes
from api.auth.principal import require_application
from api.body import read_body
from api.context import context_of
from api.database import Database, Row
from api.errors import unprocessable
from api.responses import json_response

routes = web.RouteTableDef()

OUT_OF_BAND = "urn:ietf:wg:oauth:2.0:oob"
MAX_REDIRECT_URIS = 10

INSERT_APPLICATION = """
INSERT INTO applications (id, name, website, redirect_uris, scopes, client_id, client_secret_hash)
VALUES (%(id)s, %(name)s, %(website)s, %(redirect_uris)s, %(scopes)s, %(client_id)s, %(client_secret_hash)s)
"""
SELECT_BY_CLIENT_ID = "SELECT * FROM applications WHERE client_id = %(client_id)s"
SELECT_BY_ID = "SELECT * FROM applications WHERE id = %(id)s"


@dataclass(frozen=True, slots=True)
class Application:
    """A registered client."""

    id: UUID
    name: str
    website: str | None
    redirect_uris: list[str]
    scopes: frozenset[str]
    secret_hash: str


class Registration(Struct):
    """Parameters of POST /api/v1/apps."""

    client_name: Annotated[str, Meta(min_length=1, max_length=200)]
    redirect_uris: Annotated[str, Meta(min_length=1, max_length=8_000)] | list[Annotated[str, Meta(max_length=2_000)]]
    scopes: Annotated[str, Meta(max_length=2_000)] = scopes.DEFAULT
    website: Annotated[str, Meta(max_length=2_000)] | None = None


@routes.post("/api/v1/apps")
async def register(request: web.Request) -> web.Response:
    """Register an application; its secret is shown this once."""
    form = await read_body(request, Registration)
    context = context_of(request)
    redirect_uris = form.redirect_uris if isinstance(form.redirect_uris, list) else form.redirect_uris.split()
    _check_redirect_uris(redirect_uris)
    granted = parse_scopes(form.scopes or scopes.DEFAULT)
    website = form.website or None
    if website is not None and urlsplit(website).scheme not in ("http", "https"):
        raise unprocessable("Validation failed: Website must be a valid URL")
    secret = secrets.token_urlsafe(32)
    row = {
        "id": uuid4(),
        "name": form.client_name,
        "website": website,
        "redirect_uris": redirect_uris,
        "scopes": scopes.join(granted),
        "client_id": secrets.token_urlsafe(32),
        "client_secret_hash": hash_secret(secret),
    }
    await context.database.execute(INSERT_APPLICATION, row)
    return json_response(
        {
            **_entity(row),
            "client_id": row["client_id"],
            "client_secret": secret,
            "client_secret_expires_at": 0,
            "vapid_key": "",
        }
    )


@routes.get("/api/v1/apps/verify_credentials")
async def verify_credentials(request: web.Request) -> web.Response:
    """The application whose token this is."""
    principal = require_application(request)
    row = await context_of(request).database.row(SELECT_BY_ID, {"id": principal.application_id})
    assert row is not None  # its sessions cascade
    return json_response({**_entity(row), "vapid_key": ""})


async def find_application(database: Database, client_id: str) -> Application | None:
    """The application with the given public name."""
    row = await database.row(SELECT_BY_CLIENT_ID, {"client_id": client_id})
    if row is None:
        return None
    return Application(
        row["id"],
        row["name"],
        row["website"],
        row["redirect_uris"],
        frozenset(row["scopes"].split()),
        row["client_secret_hash"],
    )


def secret_matches(application: Application, secret: str) -> bool:
    """Whether this is the application's secret."""
    return compare_digest(application.secret_hash, hash_secret(secret))


def hash_secret(secret: str) -> str:
    """What is kept of a secret or code that is 32 random bytes itself: a plain hash suffices."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_scopes(text: str) -> frozenset[str]:
    """The scopes that a client names; raises `ApiError` 422."""
    try:
        return scopes.parse(text) or frozenset([scopes.DEFAULT])
    except ValueError as error:
        raise unprocessable(f"Validation failed: Scopes: {error} doesn't match configured on the server.") from error


def _check_redirect_uris(uris: list[str]) -> None:
    if not uris or len(uris) > MAX_REDIRECT_URIS:
        raise unprocessable(f"Validation failed: Redirect URI: there must be 1 to {MAX_REDIRECT_URIS}")
    for uri in uris:
        try:
            parts = urlsplit(uri)
        except ValueError:
            parts = urlsplit("")
        # Native clients use schemes of their own; a fragment or a script is no place to send a code to.
        if uri != OUT_OF_BAND and (
            not parts.scheme or parts.fragment or parts.scheme in ("javascript", "data", "vbscript", "file")
        ):
            raise unprocessable("Validation failed: Redirect URI must be an absolute URI")


def _entity(row: Row) -> dict[str, object]:
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "website": row["website"],
        "scopes": row["scopes"].split(),
        "redirect_uris": row["redirect_uris"],
        "redirect_uri": "\n".join(row["redirect_uris"]),
    }
