"""The other ends of the channels, on loopback, each in a thread of its own: a push service and a mail server."""

import asyncio
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import http_ece
import msgspec
from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.servers import free_port


class PushService:
    """Takes whatever is posted; every subscription has the same keys, and a name of its own in its endpoint."""

    def __init__(self) -> None:
        self.port = free_port()
        self.taken: list[tuple[float, bytes]] = []
        """When each message came, and its body."""
        self._key, self._secret = ec.generate_private_key(ec.SECP256R1()), uuid4().bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    @property
    def keys(self) -> tuple[str, str]:
        """What a subscription tells of its keys: `p256dh` and `auth`."""
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return _base64url(point), _base64url(self._secret)

    def endpoint(self, name: object) -> str:
        """Where a subscription's messages are posted."""
        return f"http://127.0.0.1:{self.port}/push/{name}"

    def notifications(self) -> list[int]:
        """The notifications in the messages that came; raises what is wrong with one."""
        return [int(msgspec.json.decode(self._decrypt(body))["notification_id"]) for _, body in self.taken]

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serve until `end` is called."""
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        app.router.add_post("/push/{name}", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        ready()
        await self._ended.wait()
        await runner.cleanup()

    def end(self) -> None:
        """End to serve."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._ended.set)

    def _decrypt(self, body: bytes) -> bytes:
        secret = self._secret
        text: bytes = http_ece.decrypt(  # type: ignore[no-untyped-call]
            body, private_key=self._key, auth_secret=secret, version="aes128gcm"
        )
        return text

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.taken.append((time.perf_counter(), body))
        return web.Response(status=201)


@contextmanager
def push_service() -> Iterator[PushService]:
    """A push service for as long as the block runs."""
    service, ready = PushService(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(service.serve(ready.set)))
    thread.start()
    try:
        ready.wait()
        yield service
    finally:
        service.end()
        thread.join()


class Mailbox:
    """Takes every mail."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, str]] = []
        """When each mail came, and to whom."""

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail; the name is aiosmtpd's."""
        self.taken.append((time.perf_counter(), envelope.rcpt_tos[0]))
        return "250 OK"


@contextmanager
def mail_server(port: int) -> Iterator[Mailbox]:
    """A mail server for as long as the block runs."""
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
