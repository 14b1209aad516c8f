"""OAuth 2: tokens by password, authorisation code and client credentials, revocation, server metadata."""

import hashlib
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from datetime import datetime
from hmac import compare_digest
from typing import Annotated
from urllib.parse import unquote_plus
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from api.auth import scopes
from api.auth.applications import Application, find_application, hash_secret, secret_matches
from api.auth.identities import sign_in
from api.body import read_body
from api.context import Context, context_of
from api.database import Row, Transaction
from api.errors import ApiError, oauth_error
from api.responses import json_response

routes = web.RouteTableDef()

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
Short = Annotated[str, Meta(max_length=4_096)]

USE_CODE = """
UPDATE authorization_codes SET used_at = now()
WHERE code_hash = %(code_hash)s AND application_id = %(application_id)s AND used_at IS NULL AND expires_at > now()
RETURNING user_id, redirect_uri, scopes, code_challenge, code_challenge_method
"""


class TokenRequest(Struct):
    """Parameters of POST /oauth/token."""

    grant_type: Short = ""
    client_id: Short = ""
    client_secret: Short = ""
    username: Short = ""
    password: Short = ""
    code: Short = ""
    code_verifier: Short = ""
    redirect_uri: Short = ""
    scope: Short = ""


class RevokeRequest(Struct):
    """Parameters of POST /oauth/revoke."""

    token: Short = ""
    client_id: Short = ""
    client_secret: Short = ""


@routes.post("/oauth/token")
async def token(request: web.Request) -> web.Response:
    """Give out an access token."""
    form = await read_body(request, TokenRequest, with_query=False)
    context = context_of(request)
    application = await _application(request, form.client_id, form.client_secret)
    if form.grant_type == "authorization_code":
        return await _token_for_code(context, application, form)
    granted = asked_scopes(application, form.scope)
    if form.grant_type == "client_credentials":
        return await _token_response(context, application, None, granted)
    if form.grant_type == "password":
        user_id = await sign_in(context, form.username, form.password)
        if user_id is None:
            raise oauth_error("invalid_grant", "The name or the password is wrong.")
        return await _token_response(context, application, user_id, granted)
    raise oauth_error("unsupported_grant_type", "The grant type is not supported by this server.")


@routes.post("/oauth/revoke")
async def revoke(request: web.Request) -> web.Response:
    """End the session of one of the application's tokens; an unknown token is no error (RFC 7009)."""
    form = await read_body(request, RevokeRequest, with_query=False)
    context = context_of(request)
    application = await _application(request, form.client_id, form.client_secret)
    try:
        principal = await context.tokens.read(form.token)
    except ApiError:
        return json_response({})
    if principal.application_id != application.id:
        raise oauth_error("unauthorized_client", "You are not authorized to revoke this token", 403)
    await context.sessions.revoke(principal.session_id, application.id)
    context.tokens.forget(principal.session_id)
    return json_response({})


@routes.get("/.well-known/oauth-authorization-server")
async def metadata(request: web.Request) -> web.Response:
    """Server metadata (RFC 8414)."""
    url = context_of(request).public_url
    return json_response(
        {
            "issuer": f"{url}/",
            "service_documentation": "https://docs.joinmastodon.org/",
            "authorization_endpoint": f"{url}/oauth/authorize",
            "token_endpoint": f"{url}/oauth/token",
            "app_registration_endpoint": f"{url}/api/v1/apps",
            "revocation_endpoint": f"{url}/oauth/revoke",
            "scopes_supported": list(scopes.SCOPES),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "client_credentials", "password"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
        }
    )


async def issue_token(
    context: Context, application_id: UUID, user_id: UUID | None, granted: frozenset[str]
) -> tuple[str, datetime]:
    """A new session and its token."""

    async def body(transaction: Transaction) -> tuple[str, datetime]:
        return await context.tokens.issue(transaction, application_id, user_id, granted)

    return await context.database.transaction(body)


def token_entity(access_token: str, granted: frozenset[str], created_at: datetime) -> dict[str, object]:
    """Mastodon's Token entity."""
    return {
        "access_token": access_token,
        "token_type": "Bearer",
        "scope": scopes.join(granted),
        "created_at": int(created_at.timestamp()),
    }


def asked_scopes(application: Application, text: str) -> frozenset[str]:
    """What a client asks for, or `read`; raises `ApiError` 400 for more than it registered for."""
    try:
        asked = scopes.parse(text) or frozenset([scopes.DEFAULT])
    except ValueError as error:
        raise oauth_error("invalid_scope", f"The scope {error} is unknown.") from error
    if not scopes.within(asked, application.scopes):
        raise oauth_error("invalid_scope", "The requested scope exceeds what the application registered for.")
    return asked


async def _application(request: web.Request, client_id: str, secret: str) -> Application:
    if not client_id:
        client_id, secret = _basic(request)
    application = await find_application(context_of(request).database, client_id) if client_id else None
    if application is None or not secret_matches(application, secret):
        raise oauth_error(
            "invalid_client",
            "Client authentication failed due to unknown client, no client authentication included, "
            "or unsupported authentication method.",
            401,
        )
    return application


def _basic(request: web.Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, secret = b64decode(encoded, validate=True).decode().partition(":")
    except (Base64Error, UnicodeDecodeError):
        return "", ""
    if "\x00" in name:
        return "", ""
    return unquote_plus(name), unquote_plus(secret)


async def _token_for_code(context: Context, application: Application, form: TokenRequest) -> web.Response:
    async def body(transaction: Transaction) -> Row | None:
        return await transaction.row(USE_CODE, {"code_hash": hash_secret(form.code), "application_id": application.id})

    # The code is used up even when the rest does not fit: whoever tries has seen it.
    row = await context.database.transaction(body)
    if row is None or row["redirect_uri"] != form.redirect_uri or not _proof_fits(row, form.code_verifier):
        raise oauth_error(
            "invalid_grant",
            "The provided authorization grant is invalid, expired, revoked, does not match the redirection URI "
            "used in the authorization request, or was issued to another client.",
        )
    return await _token_response(context, application, row["user_id"], frozenset(row["scopes"].split()))


def _proof_fits(row: Row, verifier: str) -> bool:
    challenge = row["code_challenge"]
    if challenge is None:
        return True
    digest = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return compare_digest(digest, challenge)


async def _token_response(
    context: Context, application: Application, user_id: UUID | None, granted: frozenset[str]
) -> web.Response:
    access_token, created_at = await issue_token(context, application.id, user_id, granted)
    return json_response(token_entity(access_token, granted, created_at), headers=NO_STORE)
