"""How mail is protected on its way: a real mail server with a certificate of an authority made for the test."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.servers import free_port
from sinks.smtp import MailServer, Security, tls_context
from tests.integration.channel_world import mail_server

HOST, SENDER, RECIPIENT = "127.0.0.1", "noreply@example.org", "ada@example.org"
USER, PASSWORD = "fanline", "correct horse"


class Mailbox:
    """Takes mail, and notes who came how."""

    def __init__(self) -> None:
        self.mails: list[tuple[bool, str]] = []
        self.logins: list[tuple[bytes, bytes]] = []

    def login(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert server.transport is not None
        protected = server.transport.get_extra_info("ssl_object") is not None
        self.mails.append((protected, envelope.rcpt_tos[0]))
        return "250 OK"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate that is its own authority, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Mail")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "mail.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return path


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process trusts the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls_context.cache_clear()
    yield
    tls_context.cache_clear()


@contextmanager
def guarded(mailbox: Mailbox, security: Security, certificate: Path) -> Iterator[int]:
    """The port of a mail server with that kind of security."""
    port = free_port()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    ways: dict[Security, dict[str, Any]] = {
        "none": {},
        "tls": {"ssl_context": context, "auth_require_tls": False},
        "starttls": {"tls_context": context, "require_starttls": True},
    }
    with mail_server(mailbox, port, authenticator=mailbox.login, **ways[security]):
        yield port


def message() -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = SENDER, RECIPIENT, "News"
    made.set_content("Somebody follows you.")
    return made


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_login_and_mail_go_over_a_protected_connection(security: Security, certificate: Path) -> None:
    mailbox = Mailbox()
    with guarded(mailbox, security, certificate) as port:
        outcome = MailServer(HOST, port, security, USER, PASSWORD).send(message(), SENDER, RECIPIENT)
    assert outcome.kind == "sent"
    assert mailbox.mails == [(True, RECIPIENT)]
    assert mailbox.logins == [(USER.encode(), PASSWORD.encode())]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_server_whose_certificate_is_not_trusted_gets_neither_password_nor_mail(
    security: Security, certificate: Path
) -> None:
    mailbox = Mailbox()
    with guarded(mailbox, security, certificate) as port:
        outcome = MailServer(HOST, port, security, USER, PASSWORD).send(message(), SENDER, RECIPIENT)
    assert (outcome.kind, outcome.unreached) == ("retry", True)
    assert "CERTIFICATE_VERIFY_FAILED" in str(outcome.reason)
    assert (mailbox.logins, mailbox.mails) == ([], [])


@pytest.mark.usefixtures("trusted")
def test_a_server_that_offers_no_starttls_gets_neither_password_nor_mail(certificate: Path) -> None:
    mailbox = Mailbox()
    with guarded(mailbox, "none", certificate) as port:
        outcome = MailServer(HOST, port, "starttls", USER, PASSWORD).send(message(), SENDER, RECIPIENT)
    assert (outcome.kind, outcome.unreached) == ("retry", True)
    assert (mailbox.logins, mailbox.mails) == ([], [])


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_is_said_and_the_mail_is_kept_for_later(certificate: Path) -> None:
    mailbox = Mailbox()
    with guarded(mailbox, "starttls", certificate) as port:
        outcome = MailServer(HOST, port, "starttls", USER, "wrong").send(message(), SENDER, RECIPIENT)
    assert (outcome.kind, outcome.unreached) == ("retry", True)
    assert "535" in str(outcome.reason)
    assert mailbox.mails == []
