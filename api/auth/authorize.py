"""The authorisation endpoint: a page on which somebody signs in and lets an application act for them.

There is no browser session: every consent is given with the password, so no other site can give it in somebody's
name. A code is good once, for ten minutes, for the redirect URI and the PKCE challenge (S256) that it was asked with.
"""

import secrets
from html import escape
from typing import Annotated
from urllib.parse import urlencode, urlsplit, urlunsplit
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from api.auth import scopes
from api.auth.applications import OUT_OF_BAND, Application, find_application, hash_secret
from api.auth.identities import sign_in
from api.auth.oauth import asked_scopes
from api.body import read_body, read_query
from api.context import Context, context_of
from api.errors import ApiError, oauth_error

routes = web.RouteTableDef()

Short = Annotated[str, Meta(max_length=4_096)]

INSERT_CODE = """
INSERT INTO authorization_codes (code_hash, application_id, user_id, redirect_uri, scopes, code_challenge,
                                 code_challenge_method, expires_at)
VALUES (%(code_hash)s, %(application_id)s, %(user_id)s, %(redirect_uri)s, %(scopes)s, %(challenge)s, %(method)s,
        now() + interval '10 minutes')
"""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:4rem auto;padding:0 1rem;color-scheme:light dark}"
    "label{display:block;margin:1rem 0}input{font:inherit;width:100%;box-sizing:border-box;padding:.4rem}"
    "button{font:inherit;padding:.4rem 1rem;margin-right:.5rem}.error{color:#c00}code{overflow-wrap:anywhere}"
)
_PAGE = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"


class AuthorizationRequest(Struct):
    """What an application asks for; also the hidden fields of the form."""

    response_type: Short = ""
    client_id: Short = ""
    redirect_uri: Short = ""
    scope: Short = ""
    state: Short = ""
    code_challenge: Annotated[str, Meta(max_length=128)] = ""
    code_challenge_method: Short = ""


class Consent(AuthorizationRequest):
    """The form that was sent."""

    username: Short = ""
    password: Short = ""
    decision: Short = ""


@routes.get("/oauth/authorize")
async def show(request: web.Request) -> web.Response:
    """The page with the form."""
    asked = read_query(request, AuthorizationRequest)
    context = context_of(request)
    application = await _application(context, asked)
    try:
        granted = _checked(application, asked)
    except ApiError as error:
        return _back(asked, {"error": error.message, "error_description": error.description or ""})
    return _form(context, application, granted, asked)


@routes.post("/oauth/authorize")
async def decide(request: web.Request) -> web.Response:
    """Take the answer: back to the application with a code, or with `access_denied`."""
    consent = await read_body(request, Consent, with_query=False)
    context = context_of(request)
    application = await _application(context, consent)
    try:
        granted = _checked(application, consent)
    except ApiError as error:
        return _back(consent, {"error": error.message, "error_description": error.description or ""})
    if consent.decision == "deny":
        refused = "The resource owner or authorization server denied the request."
        return _back(consent, {"error": "access_denied", "error_description": refused})
    try:
        user_id = await sign_in(context, consent.username, consent.password)
    except ApiError as error:
        return _form(context, application, granted, consent, error.message, error.status)
    if user_id is None:
        return _form(context, application, granted, consent, "The name or the password is wrong.", 401)
    code = await _new_code(context, application, user_id, granted, consent)
    if consent.redirect_uri == OUT_OF_BAND:
        return _page(f"<h1>Your code</h1><p>Copy it into {escape(application.name)}:</p><p><code>{code}</code></p>")
    return _back(consent, {"code": code})


async def _application(context: Context, asked: AuthorizationRequest) -> Application:
    """The application; until it and its redirect URI are known to belong together, nobody is sent anywhere."""
    application = await find_application(context.database, asked.client_id) if asked.client_id else None
    if application is None:
        raise oauth_error("invalid_client", "Client authentication failed due to unknown client.", 401)
    if asked.redirect_uri not in application.redirect_uris:
        raise oauth_error("invalid_redirect_uri", "The redirect uri included is not valid.")
    return application


def _checked(application: Application, asked: AuthorizationRequest) -> frozenset[str]:
    if asked.response_type != "code":
        raise oauth_error("unsupported_response_type", "The authorization server supports only code.")
    # RFC 7636: a challenge without a method is plain, which protects nothing.
    if asked.code_challenge and asked.code_challenge_method != "S256":
        raise oauth_error("invalid_request", "The code challenge method must be S256.")
    return asked_scopes(application, asked.scope)


async def _new_code(
    context: Context, application: Application, user_id: UUID, granted: frozenset[str], asked: AuthorizationRequest
) -> str:
    code = secrets.token_urlsafe(32)
    await context.database.execute(
        INSERT_CODE,
        {
            "code_hash": hash_secret(code),
            "application_id": application.id,
            "user_id": user_id,
            "redirect_uri": asked.redirect_uri,
            "scopes": scopes.join(granted),
            "challenge": asked.code_challenge or None,
            "method": "S256" if asked.code_challenge else None,
        },
    )
    return code


def _back(asked: AuthorizationRequest, answer: dict[str, str]) -> web.Response:
    """Send the browser back to the application."""
    if asked.redirect_uri == OUT_OF_BAND:
        raise oauth_error(answer["error"], answer["error_description"])
    if asked.state:
        answer = {**answer, "state": asked.state}
    parts = urlsplit(asked.redirect_uri)
    query = f"{parts.query}&{urlencode(answer)}" if parts.query else urlencode(answer)
    location = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    return web.Response(status=302, headers={**HEADERS, "Location": location})


def _form(
    context: Context,
    application: Application,
    granted: frozenset[str],
    asked: AuthorizationRequest,
    fault: str = "",
    status: int = 200,
) -> web.Response:
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{escape(getattr(asked, name))}">'
        for name in AuthorizationRequest.__struct_fields__
    )
    wanted = "".join(f"<li><code>{escape(scope)}</code></li>" for scope in scopes.join(granted).split())
    title = escape(context.settings.instance_title)
    return _page(
        f"<h1>{title}</h1><p><strong>{escape(application.name)}</strong> asks to act for you:</p><ul>{wanted}</ul>"
        + (f'<p class="error" role="alert">{escape(fault)}</p>' if fault else "")
        + f'<form method="post" action="/oauth/authorize">{hidden}'
        '<label>E-mail address or username<input name="username" autocomplete="username" required></label>'
        '<label>Password<input name="password" type="password" autocomplete="current-password" required></label>'
        '<button name="decision" value="allow">Sign in and allow</button>'
        '<button name="decision" value="deny" formnovalidate>Deny</button></form>',
        status,
    )


def _page(body: str, status: int = 200) -> web.Response:
    html = f"{_PAGE}<title>Authorize</title><style>{_STYLE}</style>{body}</html>"
    return web.Response(text=html, status=status, content_type="text/html", headers=HEADERS)
