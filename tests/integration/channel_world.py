"""The other ends of the channels: a push service that decrypts, a mail server, and notifications to send."""

import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

import http_ece
import msgspec
import psycopg
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02

from fanline.ids import TimeOrderedIds, created_ms
from fanline.settings import Settings
from schemas.registry import EventEncoder, encoder

_ids = TimeOrderedIds()


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class Browser:
    """One subscription's private side."""

    service: "PushService"
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    secret: bytes = field(default_factory=lambda: uuid4().bytes)
    statuses: list[int] = field(default_factory=list)
    """What the service answers next; 201 when there is nothing left."""
    received: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0

    @property
    def subscription(self) -> dict[str, Any]:
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": base64url(point), "auth": base64url(self.secret)}
        return {"endpoint": f"{self.service.url}/push/{self.name}", "keys": keys}

    def ids(self) -> list[int]:
        return [each["notification_id"] for each in self.received]


class PushService:
    """A push service on a port of its own, whose browsers decrypt what they get."""

    def __init__(self) -> None:
        self.browsers: dict[str, Browser] = {}
        self.authorizations: list[str] = []
        self.changed = threading.Condition()
        self.hold: threading.Event | None = None
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = service.take(self.path.rpartition("/")[2], self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        if self.hold is not None:
            self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def browser(self) -> Browser:
        name = uuid4().hex
        self.browsers[name] = Browser(self, name)
        return self.browsers[name]

    def take(self, name: str, headers: Any, body: bytes) -> int:
        browser = self.browsers[name]
        with self.changed:
            browser.requests += 1
            self.changed.notify_all()
        if self.hold is not None:
            self.hold.wait(30)
        with self.changed:
            if browser.statuses:
                self.changed.notify_all()
                return browser.statuses.pop(0)
            assert headers["Content-Encoding"] == "aes128gcm"
            assert int(headers["TTL"]) > 0
            assert Vapid02.verify(headers["Authorization"])
            self.authorizations.append(headers["Authorization"])
            text = http_ece.decrypt(body, private_key=browser.key, auth_secret=browser.secret, version="aes128gcm")
            browser.received.append(msgspec.json.decode(text))
            self.changed.notify_all()
        return 201

    def until(self, done: Any, seconds: float = 30) -> None:
        with self.changed:
            assert self.changed.wait_for(done, seconds), "it never came"


@contextmanager
def push_service() -> Iterator[PushService]:
    service = PushService()
    try:
        yield service
    finally:
        service.close()


class Mailbox:
    """A mail server; `refuse` maps an address to the reply that its RCPT gets."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, EmailMessage]] = []
        self.refuse: dict[str, str] = {}
        self.changed = threading.Condition()

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refuse:
            with self.changed:
                self.changed.notify_all()
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        with self.changed:
            self.mails.append((envelope.rcpt_tos[0], message))
            self.changed.notify_all()
        return "250 OK"

    def to(self, address: str) -> list[EmailMessage]:
        return [mail for recipient, mail in self.mails if recipient == address]

    def until(self, done: Any, seconds: float = 30) -> None:
        with self.changed:
            assert self.changed.wait_for(done, seconds), f"it never came; {len(self.mails)} mails"


@contextmanager
def mail_server(mailbox: Any, port: int, **options: Any) -> Iterator[None]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


class Notifier:
    """Writes notifications as the notifications flow does: a row and its event in one transaction."""

    def __init__(self, settings: Settings, connection: psycopg.Connection[Any]) -> None:
        self._encoder: EventEncoder = encoder(settings)
        self._connection = connection

    def notify(
        self,
        account: str | UUID,
        sender: str | UUID,
        kind: str = "follow",
        post: int | None = None,
        identifier: int | None = None,
    ) -> int:
        """Tell somebody of something, of now or of when the id says; the notification's id."""
        identifier = self.store(account, sender, kind, post, identifier)
        self.dispatch(identifier, account, sender, kind, post)
        return identifier

    def store(
        self,
        account: str | UUID,
        sender: str | UUID,
        kind: str = "follow",
        post: int | None = None,
        identifier: int | None = None,
    ) -> int:
        """A notification of which no event tells yet; its id."""
        identifier = identifier or _ids.next()
        self._connection.execute(
            "INSERT INTO notifications (id, user_id, type, from_account_id, post_id, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (identifier, account, kind, sender, post, datetime.fromtimestamp(created_ms(identifier) / 1_000, UTC)),
        )
        return identifier

    def dispatch(
        self,
        identifier: int,
        account: str | UUID,
        sender: str | UUID,
        kind: str = "follow",
        post: int | None = None,
        at: datetime | None = None,
    ) -> None:
        """Write the event of a notification, again if need be."""
        payload = self.event(identifier, account, sender, kind, post, at)
        self._connection.execute(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)"
            " VALUES (%s, 'notification.dispatched', %s, 'notification.dispatched', %s)",
            (uuid4(), str(account), payload),
        )

    def event(
        self,
        identifier: int,
        account: str | UUID,
        sender: str | UUID,
        kind: str = "follow",
        post: int | None = None,
        at: datetime | None = None,
    ) -> bytes:
        """The event of a notification as it is in Kafka."""
        fields = {
            "notification_id": str(identifier),
            "account_id": str(account),
            "type": kind,
            "from_account_id": str(sender),
            "post_id": None if post is None else str(post),
            "created_at": at or datetime.now(UTC),
            "group_key": None,
        }
        return self._encoder.encode("notification.dispatched", fields)
