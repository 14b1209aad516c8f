"""What every request passes: identity, rate limit, errors in one shape, CORS, metrics, trace and access log.

One middleware instead of six, as each costs the hot path a coroutine.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import psycopg
from aiohttp import web
from opentelemetry.trace import SpanKind

from api.access_log import AccessLog
from api.auth.principal import PRINCIPAL, Principal, principal_of
from api.context import CONTEXT, Context
from api.drain import DRAIN
from api.errors import ApiError, not_found, unauthorized
from api.limiter import Allowance
from api.responses import error_response
from fanline import metrics
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger
from fanline.tracing import span_from_traceparent

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = get_logger(__name__)
_access_log = AccessLog()
_SAFE = frozenset(["GET", "HEAD", "OPTIONS"])
# These are asked often by machines of one's own and belong to no person.
_UNLIMITED = ("/health/", "/metrics")
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Link, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    "Idempotency-Key",
}
_PREFLIGHT = {
    **_CORS,
    "Access-Control-Allow-Methods": "POST, PUT, DELETE, GET, PATCH, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, traceparent, *",
    "Access-Control-Max-Age": "7200",
}


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The middleware; no exception gets past it."""
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return web.Response(headers=_PREFLIGHT)
    drain = request.config_dict[DRAIN]
    drain.enter()
    try:
        response = await _traced(request, handler)
        if drain.draining:
            response.force_close()
        return response
    finally:
        drain.leave()


async def _traced(request: web.Request, handler: Handler) -> web.StreamResponse:
    started = time.perf_counter()
    context = request.config_dict[CONTEXT]
    traceparent = request.headers.get("traceparent")
    if traceparent is None and request.method in _SAFE:
        response = await _answer(context, request, handler)
        _finish(context, request, response, started)
        return response
    with span_from_traceparent(f"{request.method} {_route(request)}", traceparent, kind=SpanKind.SERVER):
        response = await _answer(context, request, handler)
        _finish(context, request, response, started)
        return response


async def _answer(context: Context, request: web.Request, handler: Handler) -> web.StreamResponse:
    allowance: Allowance | None = None
    try:
        principal = await _principal(context, request)
        if principal is not None:
            request[PRINCIPAL] = principal
        if not request.path.startswith(_UNLIMITED):
            allowance = context.limiter.hit(_subject(context, request, principal), context.settings.rate_limit)
            if allowance.exceeded:
                raise ApiError(429, "Too many requests")
        response = await handler(request)
    except Exception as error:  # noqa: BLE001 - the edge turns every failure into an answer
        response = _failure(request, error)
    if not response.prepared:
        response.headers.update(_CORS)
        if allowance is not None:
            _add_rate_headers(response, allowance)
    return response


async def _principal(context: Context, request: web.Request) -> Principal | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        # Applications may name themselves with Basic at the OAuth endpoints.
        if scheme.lower() == "basic" and request.path.startswith("/oauth/"):
            return None
        raise unauthorized()
    return await context.tokens.verify(token.strip())


def _subject(context: Context, request: web.Request, principal: Principal | None) -> str:
    if principal is not None and principal.user_id is not None:
        return f"user:{principal.user_id}"
    return f"address:{client_address(context, request)}"


def client_address(context: Context, request: web.Request) -> str:
    """The client's address, as far as it can be trusted."""
    if context.settings.trust_forwarded_for:
        forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        if forwarded:
            return forwarded[:64]
    return request.remote or "unknown"


def _failure(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, ApiError):
        return error_response(error)
    if isinstance(error, web.HTTPException):
        return _http_failure(error)
    if isinstance(error, DependencyUnavailable):
        _log.error("a dependency does not answer", path=request.path, reason=str(error))
        return error_response(ApiError(503, "The service is not available at the moment", headers={"Retry-After": "1"}))
    if isinstance(error, psycopg.errors.ForeignKeyViolation):  # what it names was deleted meanwhile
        return error_response(not_found())
    if isinstance(error, psycopg.DataError):
        _log.warning("the database refused a value", path=request.path, reason=str(error))
        return error_response(ApiError(422, "Validation failed: a value cannot be stored"))
    _log.error("unexpected failure", method=request.method, path=request.path, exc_info=error)
    return error_response(ApiError(500, "We are sorry, something went wrong on our end"))


def _http_failure(error: web.HTTPException) -> web.Response:
    """An answer that aiohttp made: in our shape, with its `Allow` or `Location`."""
    message = {404: "Not found", 405: "Method not allowed", 413: "The body is larger than 1 MiB"}.get(
        error.status, error.reason
    )
    kept = {name: value for name, value in error.headers.items() if name in ("Allow", "Location")}
    if error.status < 400:
        return web.Response(status=error.status, headers=kept)
    return error_response(ApiError(error.status, message, headers=kept))


def _add_rate_headers(response: web.StreamResponse, allowance: Allowance) -> None:
    headers = response.headers
    headers["X-RateLimit-Limit"] = str(allowance.limit)
    headers["X-RateLimit-Remaining"] = str(max(allowance.remaining, 0))
    headers["X-RateLimit-Reset"] = _iso(allowance.reset_ms)


_last_iso: tuple[int, str] = (0, "")


def _iso(ms: int) -> str:
    """An ISO time; windows are shared, so it is nearly always the same one."""
    global _last_iso
    if _last_iso[0] != ms:
        _last_iso = ms, datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return _last_iso[1]


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical.rstrip("/")


def _finish(context: Context, request: web.Request, response: web.StreamResponse, started: float) -> None:
    seconds = time.perf_counter() - started
    route = _route(request)
    # A stream lasts as long as its client likes (fanline_stream_* tells of it); anything else is a `Response`.
    if isinstance(response, web.Response):
        metrics.API_SECONDS.labels(request.method, route, str(response.status)).observe(seconds)
    if _access_log.wanted and context.settings.api_access_log:
        principal = principal_of(request)
        user_id = None if principal is None or principal.user_id is None else str(principal.user_id)
        _access_log.write(request.method, request.path, route, response.status, seconds, user_id)
