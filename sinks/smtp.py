"""Sends one mail at a time over SMTP, and says what became of it."""

import re
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from functools import cache
from typing import Literal

from fanline.errors import ConfigurationError
from fanline.settings import Settings
from sinks.outcome import SENT, Outcome

TIMEOUT_SECONDS = 15.0
Security = Literal["starttls", "tls", "none"]

# What a server says of a recipient that does not exist, or not here. With an enhanced code (RFC 3463) that one decides:
# the same 550 refuses what a policy is against, and 5.1.7 and 5.1.8 speak of the sender.
_NO_MAILBOX = (550, 551, 553)
_ENHANCED_CODE = re.compile(rb"\s*5\.\d{1,3}\.\d{1,3}\b")
_BAD_RECIPIENT = re.compile(rb"\s*5\.1\.(?![78]\b)\d{1,3}\b")
_LEADING_DOT = re.compile(rb"(?m)^\.")


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in."""

    host: str
    port: int
    security: Security
    username: str
    password: str

    def send(self, message: EmailMessage, sender: str, recipient: str) -> Outcome:
        """Hand in one mail; blocks, and never raises for what the server or the address gets wrong."""
        if not recipient.isascii():
            return Outcome("failed", "Mail to addresses beyond ASCII is not sent.")
        data = _LEADING_DOT.sub(b"..", message.as_bytes(policy=SMTP_POLICY))
        try:
            server = self._connect()
        except (OSError, smtplib.SMTPException) as error:
            return Outcome("retry", f"The mail server does not take mail: {error!r}.", unreached=True)
        try:
            return _hand_in(server, sender, recipient, data)
        finally:
            server.close()

    def _connect(self) -> smtplib.SMTP:
        if self.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=TIMEOUT_SECONDS, context=tls_context()
            )
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_SECONDS)
        try:
            server.ehlo_or_helo_if_needed()
            if self.security == "starttls":
                server.starttls(context=tls_context())
                server.ehlo_or_helo_if_needed()
            if self.username:
                server.login(self.username, self.password)
        except BaseException:
            server.close()
            raise
        return server


def mail_server(settings: Settings) -> MailServer:
    """The mail server of the settings; raises `ConfigurationError` for a kind of security that is not known."""
    security = settings.smtp_security
    if security not in ("starttls", "tls", "none"):
        raise ConfigurationError("FANLINE_SMTP_SECURITY must be starttls, tls or none.")
    return MailServer(
        settings.smtp_host,
        settings.smtp_port,
        security,  # type: ignore[arg-type]
        settings.smtp_username,
        settings.smtp_password.get_secret_value(),
    )


@cache
def tls_context() -> ssl.SSLContext:
    """What a mail server's certificate is checked with: the machine's root certificates, or `SSL_CERT_FILE`'s."""
    # To read every root certificate of the machine takes 30 ms of a core, longer than all else that a mail takes.
    return ssl.create_default_context()


def _hand_in(server: smtplib.SMTP, sender: str, recipient: str, data: bytes) -> Outcome:
    """MAIL, RCPT, DATA: until the final dot is sent, a failure is certain to have sent nothing."""
    try:
        code, reply = server.mail(sender)
        if code != 250:
            return _refused(code, reply)
        code, reply = server.rcpt(recipient)
        if code not in (250, 251):
            return _no_mailbox(code, reply) or _refused(code, reply)
        code, reply = server.docmd("DATA")
        if code != 354:
            return _refused(code, reply)
    except (OSError, smtplib.SMTPException) as error:
        return Outcome("retry", f"The connection to the mail server broke: {error!r}.", unreached=True)
    try:
        server.send(data + b"\r\n.\r\n" if not data.endswith(b"\r\n") else data + b".\r\n")
        code, reply = server.getreply()
    except (OSError, smtplib.SMTPException) as error:
        return Outcome("unknown", f"The mail server did not say whether it has taken the mail: {error!r}.")
    return SENT if code == 250 else _refused(code, reply)


def _no_mailbox(code: int, reply: bytes) -> Outcome | None:
    """The outcome if this refusal of a recipient says that there is no such mailbox."""
    named = _ENHANCED_CODE.match(reply) is not None
    gone = code >= 500 and _BAD_RECIPIENT.match(reply) is not None if named else code in _NO_MAILBOX
    return Outcome("gone", _said(code, reply)) if gone else None


def _refused(code: int, reply: bytes) -> Outcome:
    return Outcome("failed" if code >= 500 else "retry", _said(code, reply))


def _said(code: int, reply: bytes) -> str:
    return f"The mail server answers {code} {reply.decode(errors='replace')}."
