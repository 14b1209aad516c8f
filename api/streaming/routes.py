"""`/api/v1/streaming`: WebSocket at its root, server-sent events below it."""

from collections.abc import Iterable

from aiohttp import web
from msgspec import Struct

from api.auth.principal import Principal, principal_of
from api.body import read_body
from api.context import context_of
from api.errors import unauthorized
from api.streaming import sse, websocket
from api.streaming.position import Position, parse_position
from api.streaming.service import STREAMS
from api.streaming.streams import Stream, check_access, parse_stream

routes = web.RouteTableDef()

PROTOCOLS = "Sec-WebSocket-Protocol"


class Asked(Struct):
    """Parameters of a stream."""

    access_token: str = ""
    stream: str = ""
    tag: str = ""
    last_event_id: str = ""
    since_id: str = ""
    only_media: bool = False


@routes.get("/api/v1/streaming/health")
async def health(_request: web.Request) -> web.Response:
    """Whether streams are served here."""
    return web.Response(text="OK", content_type="text/plain")


@routes.get("/api/v1/streaming")
async def root(request: web.Request) -> web.StreamResponse:
    """A WebSocket; without an upgrade, the stream that is named as server-sent events."""
    asked = await read_body(request, Asked)
    stream = parse_stream(asked.stream, asked.tag) if asked.stream else None
    principal, protocol = await _principal(request, asked)
    upgrades = request.headers.get("Upgrade", "").lower() == "websocket"
    if upgrades:
        if stream is not None:
            check_access(stream, principal)
        streams = request.app[STREAMS]
        client = streams.admit(principal, "websocket")
        return await websocket.serve(request, streams, client, stream, _position(request, asked), protocol)
    return await _events(request, stream or parse_stream(""), asked)


@routes.get("/api/v1/streaming/user")
async def user(request: web.Request) -> web.StreamResponse:
    """The caller's home timeline and notifications."""
    return await _events(request, parse_stream("user"))


@routes.get("/api/v1/streaming/user/notification")
async def user_notification(request: web.Request) -> web.StreamResponse:
    """The caller's notifications."""
    return await _events(request, parse_stream("user:notification"))


@routes.get("/api/v1/streaming/public")
async def public(request: web.Request) -> web.StreamResponse:
    """The public timeline."""
    return await _events(request, parse_stream("public"))


@routes.get("/api/v1/streaming/public/local")
async def public_local(request: web.Request) -> web.StreamResponse:
    """The public timeline of this server."""
    return await _events(request, parse_stream("public:local"))


@routes.get("/api/v1/streaming/public/remote")
async def public_remote(request: web.Request) -> web.StreamResponse:
    """The public timeline of other servers, of which there are none."""
    return await _events(request, parse_stream("public:remote"))


@routes.get("/api/v1/streaming/hashtag")
async def hashtag(request: web.Request) -> web.StreamResponse:
    """Public posts with a hashtag."""
    return await _hashtag(request, "hashtag")


@routes.get("/api/v1/streaming/hashtag/local")
async def hashtag_local(request: web.Request) -> web.StreamResponse:
    """Public posts of this server with a hashtag."""
    return await _hashtag(request, "hashtag:local")


@routes.get("/api/v1/streaming/list")
@routes.get("/api/v1/streaming/direct")
async def not_offered(request: web.Request) -> web.StreamResponse:
    """Streams that this server does not have; says so."""
    return await _events(request, parse_stream(request.path.rstrip("/").rpartition("/")[2]))


async def _hashtag(request: web.Request, name: str) -> web.StreamResponse:
    asked = await read_body(request, Asked)
    return await _events(request, parse_stream(name, asked.tag), asked)


async def _events(request: web.Request, stream: Stream, asked: Asked | None = None) -> web.StreamResponse:
    asked = asked or await read_body(request, Asked)
    if asked.only_media and stream.name in ("public", "public:local", "public:remote"):
        stream = Stream(f"{stream.name}:media")
    principal, _ = await _principal(request, asked)
    check_access(stream, principal)
    streams = request.app[STREAMS]
    position = _position(request, asked)
    client = streams.admit(principal, "sse")
    return await sse.serve(request, streams, client, stream, position)


async def _principal(request: web.Request, asked: Asked) -> tuple[Principal, str | None]:
    """Whose token came with the request, and the WebSocket protocol that is to be answered."""
    principal = principal_of(request)
    if principal is not None:
        return principal, None
    tokens = context_of(request).tokens
    if asked.access_token:
        return await tokens.verify(asked.access_token), None
    # A browser's WebSocket can send a token in no other way than as the name of a protocol.
    for protocol in _protocols(request):
        return await tokens.verify(protocol), protocol
    raise unauthorized()


def _protocols(request: web.Request) -> Iterable[str]:
    return (each.strip() for each in request.headers.get(PROTOCOLS, "").split(",") if each.strip())


def _position(request: web.Request, asked: Asked) -> Position | None:
    text = request.headers.get("Last-Event-ID") or asked.last_event_id or asked.since_id
    return parse_position(text) if text else None
