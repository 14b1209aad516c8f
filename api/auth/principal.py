"""Who makes a request, as the rest of the API sees it."""

from dataclasses import dataclass
from uuid import UUID

from aiohttp import web

from api.auth.scopes import allows
from api.errors import forbidden, unauthorized, unprocessable


@dataclass(frozen=True, slots=True)
class Principal:
    """An application, and mostly a person whom it acts for."""

    session_id: UUID
    application_id: UUID
    user_id: UUID | None
    scopes: frozenset[str]
    expires_ms: int
    """When the token expires, Unix milliseconds."""


PRINCIPAL = web.RequestKey("principal", Principal)


def principal_of(request: web.Request) -> Principal | None:
    """Who calls, if a token came with the request."""
    principal: Principal | None = request.get(PRINCIPAL)
    return principal


def token_of(request: web.Request) -> str:
    """The access token in the `Authorization` header of a request that has a principal."""
    return request.headers["Authorization"].partition(" ")[2].strip()


def viewer_of(request: web.Request) -> UUID | None:
    """The person who looks, if a token came with the request: for what anybody may read."""
    principal = principal_of(request)
    return None if principal is None else principal.user_id


def require_application(request: web.Request, *scopes: str) -> Principal:
    """The caller, whose token allows one of the scopes (any, if none is named); raises `ApiError` 401 or 403."""
    principal = principal_of(request)
    if principal is None:
        raise unauthorized()
    if scopes and not any(allows(principal.scopes, scope) for scope in scopes):
        raise forbidden("This action is outside the authorized scopes")
    return principal


def require_user(request: web.Request, *scopes: str) -> UUID:
    """The person on whose behalf the call is made; raises `ApiError` 401, 403 or 422 as Mastodon does."""
    user_id = require_application(request, *scopes).user_id
    if user_id is None:
        raise unprocessable("This method requires an authenticated user")
    return user_id
