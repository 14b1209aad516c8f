"""The API in the test's own process, on the real servers, and people who use it."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer, get_port_socket

from api.app import build_app
from api.context import CONTEXT, Context
from api.drain import DRAIN, Drain
from api.streaming.service import STREAMS, Streams
from fanline.metrics import HOME_READS
from fanline.settings import Settings

SCOPES = "read write follow profile"
PASSWORD = "correct horse battery"
OUT_OF_BAND = "urn:ietf:wg:oauth:2.0:oob"


@dataclass(frozen=True)
class Answer:
    """A response, read."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def ok(self) -> Any:
        """The JSON of a response that must be a success."""
        assert self.status == 200, (self.status, self.body)
        return self.json

    def fails(self, status: int) -> str:
        """The message of a response that must be an error of this status, in the one shape."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["Content-Type"].startswith("application/json")
        assert set(self.json) <= {"error", "error_description"}
        message: str = self.json["error"]
        assert isinstance(message, str)
        assert message
        return message


@dataclass(frozen=True)
class Client:
    """An application registered with the API."""

    client_id: str
    client_secret: str
    token: str


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in."""

    id: str
    username: str
    token: str


class Api:
    """Requests to one running application."""

    def __init__(self, session: aiohttp.ClientSession, server: TestServer) -> None:
        self._session = session
        self._server = server
        self._client: Client | None = None
        self._registering = asyncio.Lock()

    @property
    def context(self) -> Context:
        """The application's context."""
        return self._server.app[CONTEXT]  # type: ignore[no-any-return, attr-defined]

    @property
    def drain(self) -> Drain:
        """The application's requests under way."""
        return self._server.app[DRAIN]  # type: ignore[no-any-return, attr-defined]

    @property
    def streams(self) -> Streams:
        """The application's streams."""
        return self._server.app[STREAMS]  # type: ignore[no-any-return, attr-defined]

    def url(self, path: str) -> str:
        """Where a path of this API is reached."""
        return str(self._server.make_url(path))

    async def request(self, method: str, path: str, who: Person | str | None = None, **options: Any) -> Answer:
        """Send a request on behalf of a person, with a token, or without; `path` may be an address of this API."""
        headers = dict(options.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {who if isinstance(who, str) else who.token}"
        path = path.removeprefix(self.context.public_url)
        options.setdefault("allow_redirects", False)
        async with self._session.request(method, self._server.make_url(path), headers=headers, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, who: Person | str | None = None, **options: Any) -> Answer:
        return await self.request("GET", path, who, **options)

    async def post(self, path: str, who: Person | str | None = None, **options: Any) -> Answer:
        return await self.request("POST", path, who, **options)

    async def client(self) -> Client:
        """One application with its own token, registered when first asked for."""
        # People who sign up side by side share it.
        async with self._registering:
            if self._client is None:
                form = {"client_name": "tests", "redirect_uris": OUT_OF_BAND, "scopes": SCOPES}
                app = (await self.post("/api/v1/apps", json=form)).ok()
                grant = {
                    "grant_type": "client_credentials",
                    "client_id": app["client_id"],
                    "client_secret": app["client_secret"],
                    "scope": SCOPES,
                }
                token = (await self.post("/oauth/token", data=grant)).ok()
                self._client = Client(app["client_id"], app["client_secret"], token["access_token"])
        return self._client

    async def person(self, name: str = "p", application: str | None = None) -> Person:
        """Somebody new, who signs up through the application whose token is given, or the tests' own."""
        username = f"{name}_{secrets.token_hex(6)}"
        form = {
            "username": username,
            "email": f"{username}@example.org",
            "password": PASSWORD,
            "agreement": "true",
            "locale": "en",
        }
        token = (await self.post("/api/v1/accounts", application or (await self.client()).token, data=form)).ok()[
            "access_token"
        ]
        account = (await self.get("/api/v1/accounts/verify_credentials", token)).ok()
        return Person(account["id"], username, token)

    async def people(self, *names: str) -> list[Person]:
        """Several new people."""
        return list(await asyncio.gather(*map(self.person, names)))

    async def status(self, author: Person, text: str, **fields: Any) -> dict[str, Any]:
        """Post a status."""
        entity: dict[str, Any] = (await self.post("/api/v1/statuses", author, json={"status": text, **fields})).ok()
        return entity

    async def follow(self, follower: Person, followee: Person) -> dict[str, Any]:
        """Follow somebody; the relationship."""
        entity: dict[str, Any] = (await self.post(f"/api/v1/accounts/{followee.id}/follow", follower)).ok()
        return entity

    async def once(self, path: str, who: Person | None, shows: Callable[[Any], bool]) -> Any:
        """What is at a path, once the flows have passed what makes it show something."""
        for _ in range(300):
            seen = (await self.get(path, who)).ok()
            if shows(seen):
                return seen
            await asyncio.sleep(0.1)
        raise AssertionError(f"{path} never showed it: {seen}")

    async def home_from_redis(self, viewer: Person) -> Any:
        """The viewer's home timeline, once it is warm and the flows have passed what the viewer wrote."""
        for _ in range(300):
            before = HOME_READS.labels("redis", "warm")._value.get()
            statuses = (await self.get("/api/v1/timelines/home", viewer)).ok()
            if HOME_READS.labels("redis", "warm")._value.get() > before:
                return statuses
            await asyncio.sleep(0.1)
        raise AssertionError("the home timeline was not read from Redis")


@asynccontextmanager
async def running_api(settings: Settings, *, send_buffer: int | None = None, **changes: Any) -> AsyncIterator[Api]:
    """The API on a free port; limits are out of the way unless `changes` of the settings say otherwise.

    `send_buffer` is the size of the kernel's buffer of each connection, in bytes.
    """
    wanted = {"rate_limit": 1_000_000, "api_access_log": False, **changes}
    app: web.Application = build_app(settings.model_copy(update=wanted))

    def listener(host: str, port: int, family: socket.AddressFamily) -> socket.socket:
        opened = get_port_socket(host, port, family)
        if send_buffer is not None:  # connections inherit it
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        return opened

    server = TestServer(app, socket_factory=listener)
    await server.start_server()
    try:
        async with aiohttp.ClientSession() as session:
            yield Api(session, server)
    finally:
        await server.close()
