"""What a real mail server's refusals mean: only a recipient that does not exist ends somebody's digests."""

from email.message import EmailMessage

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from benchmarks.servers import free_port
from sinks.outcome import Outcome
from sinks.smtp import MailServer
from tests.integration.channel_world import mail_server

HOST, SENDER, RECIPIENT = "127.0.0.1", "noreply@example.org", "ada@example.org"


class Refusing:
    """A mail server that answers one command of SMTP with a refusal."""

    def __init__(self, command: str, reply: str) -> None:
        self._replies = {command: reply}

    async def handle_MAIL(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self._replies.get("MAIL", "250 OK")

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self._replies.get("RCPT", "250 OK")

    async def handle_DATA(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:
        return self._replies.get("DATA", "250 OK")


def outcome(command: str, reply: str) -> Outcome:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, RECIPIENT, "News"
    message.set_content("Somebody follows you.")
    port = free_port()
    with mail_server(Refusing(command, reply), port):
        return MailServer(HOST, port, "none", "", "").send(message, SENDER, RECIPIENT)


@pytest.mark.parametrize(
    "reply",
    ["550 5.1.1 No such user", "550 5.1.10 Null MX", "553 5.1.3 Bad address", "550 No such user", "551 User not local"],
)
def test_a_recipient_that_does_not_exist_is_gone(reply: str) -> None:
    assert outcome("RCPT", reply) == Outcome("gone", f"The mail server answers {reply}.")


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("reply", ["550 5.7.26 DMARC", "550 5.7.1 Blocked", "553 5.7.1 Not yours", "554 No"])
def test_what_a_policy_refuses_has_failed_wherever_it_is_refused(command: str, reply: str) -> None:
    assert outcome(command, reply) == Outcome("failed", f"The mail server answers {reply}.")


@pytest.mark.parametrize("command", ["MAIL", "DATA"])
@pytest.mark.parametrize("reply", ["550 No", "550 5.1.1 No such user"])
def test_a_refusal_of_anything_but_the_recipient_says_nothing_of_the_recipient(command: str, reply: str) -> None:
    assert outcome(command, reply).kind == "failed"


@pytest.mark.parametrize("reply", ["550 5.1.8 Sender address rejected: domain not found", "553 5.1.7 Bad sender"])
def test_a_sender_that_is_refused_with_the_recipient_says_nothing_of_the_recipient(reply: str) -> None:
    assert outcome("RCPT", reply).kind == "failed"


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
def test_a_refusal_for_now_is_tried_again(command: str) -> None:
    assert outcome(command, "450 4.2.0 Greylisted").kind == "retry"
