"""The e-mail channel on the running system: real mails to a real mail server."""

import re
import time
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from typing import Any

import psycopg
import pytest

from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.channel_world import Mailbox, Notifier, mail_server

PREFERENCES = "/api/v1/email_preferences"


@pytest.fixture
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
        yield running


@pytest.fixture
def mailbox(system: Stack) -> Iterator[Mailbox]:
    box = Mailbox()
    with mail_server(box, system.settings.smtp_port):
        yield box


def address(person: Person) -> str:
    return f"{person.username}@example.org"


async def reader(api: Api, connection: psycopg.Connection[Any], name: str) -> Person:
    """Somebody with a confirmed address who wants a digest every hour."""
    person = await api.person(name)
    connection.execute("UPDATE identities SET confirmed_at = now() WHERE user_id = %s", [person.id])
    (await api.request("PATCH", PREFERENCES, person, json={"digest": "hourly"})).ok()
    return person


def deliveries(connection: psycopg.Connection[Any], person: Person) -> dict[int, str]:
    query = "SELECT notification_id, state FROM notification_deliveries WHERE channel = 'email' AND target = %s"
    return {row[0]: row[1] for row in connection.execute(query, [person.id]).fetchall()}


def until(done: Any) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it never came"  # each look is a query


def hour_passes(connection: psycopg.Connection[Any], person: Person, count: int) -> None:
    """Make due what waits for the person's digest, once all of it is there."""
    until(lambda: list(deliveries(connection, person).values()).count("pending") == count)
    update = "UPDATE notification_deliveries SET next_attempt_at = now() WHERE target = %s AND state = 'pending'"
    connection.execute(update, [person.id])


def parts(mail: EmailMessage) -> tuple[str, str]:
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    return plain.get_content(), html.get_content()


async def test_an_hour_s_unread_notifications_make_one_mail(
    api: Api, mailbox: Mailbox, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob = await reader(api, connection, "ada"), await api.person("bob")
    status = await api.status(bob, "Look <here> & there")
    read = notifier.notify(ada.id, bob.id)
    marker = {"notifications": {"last_read_id": str(read)}}
    (await api.post("/api/v1/markers", ada, json=marker)).ok()
    notifier.notify(ada.id, bob.id, "mention", int(status["id"]))
    notifier.notify(ada.id, bob.id, "favourite", int(status["id"]))
    hour_passes(connection, ada, 3)
    mailbox.until(lambda: bool(mailbox.to(address(ada))))
    [mail] = mailbox.to(address(ada))
    assert mail["Subject"] == "2 new notifications on Fanline"
    plain, html = parts(mail)
    assert f"{bob.username} mentioned you" in plain
    assert "Look <here> & there" in plain
    assert "Look &lt;here&gt; &amp; there" in html
    assert status["url"] in plain
    assert "followed" not in plain
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    until(lambda: sorted(deliveries(connection, ada).values()) == ["sent", "sent", "skipped"])


async def test_nothing_is_mailed_twice_and_only_to_who_wants_it(
    api: Api, mailbox: Mailbox, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob, never = await reader(api, connection, "ada"), await api.person("bob"), await api.person("never")
    first = notifier.notify(ada.id, bob.id)
    notifier.notify(never.id, bob.id)
    hour_passes(connection, ada, 1)
    mailbox.until(lambda: len(mailbox.to(address(ada))) == 1)
    until(lambda: deliveries(connection, ada) == {first: "sent"})
    notifier.dispatch(first, ada.id, bob.id)
    second = notifier.notify(ada.id, bob.id)
    hour_passes(connection, ada, 1)
    mailbox.until(lambda: len(mailbox.to(address(ada))) == 2)
    assert mailbox.to(address(ada))[1]["Subject"] == "1 new notification on Fanline"
    until(lambda: deliveries(connection, ada) == {first: "sent", second: "sent"})
    assert mailbox.to(address(never)) == []
    assert deliveries(connection, never) == {}


async def test_an_address_is_confirmed_before_anything_is_mailed_to_it(
    api: Api, mailbox: Mailbox, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob = await api.people("ada", "bob")
    assert (await api.get(PREFERENCES, ada)).ok() == {"digest": "never", "email": address(ada), "confirmed": False}
    assert (await api.request("PATCH", PREFERENCES, ada, json={"digest": "daily"})).ok()["digest"] == "daily"
    (await api.request("PATCH", PREFERENCES, ada, json={"digest": "yearly"})).fails(422)
    early = notifier.notify(ada.id, bob.id)
    mailbox.until(lambda: bool(mailbox.to(address(ada))))
    [question] = mailbox.to(address(ada))
    found = re.search(r"https?://\S+/confirm_email/\S+", parts(question)[0])
    assert found is not None
    path = found[0][found[0].index("/confirm_email") :]
    page = await api.get(path)
    assert b"<button>" in page.body
    assert (await api.get(PREFERENCES, ada)).ok()["confirmed"] is False
    assert (await api.post(path)).status == 200
    assert (await api.get(PREFERENCES, ada)).ok()["confirmed"] is True
    (await api.post(path)).fails(404)
    wanted = notifier.notify(ada.id, bob.id)
    until(lambda: wanted in deliveries(connection, ada))
    assert early not in deliveries(connection, ada)


async def test_one_click_ends_the_digests(
    api: Api, mailbox: Mailbox, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob = await reader(api, connection, "ada"), await api.person("bob")
    notifier.notify(ada.id, bob.id)
    hour_passes(connection, ada, 1)
    mailbox.until(lambda: bool(mailbox.to(address(ada))))
    [mail] = mailbox.to(address(ada))
    link = mail["List-Unsubscribe"].strip("<>")
    path = link[link.index("/unsubscribe") :]
    notifier.notify(ada.id, bob.id)
    until(lambda: list(deliveries(connection, ada).values()).count("pending") == 1)
    page = await api.get(path)
    assert page.headers["Content-Type"].startswith("text/html")
    assert (await api.get(PREFERENCES, ada)).ok()["digest"] == "hourly"
    assert (await api.post(path, data={"List-Unsubscribe": "One-Click"})).status == 200
    assert (await api.get(PREFERENCES, ada)).ok()["digest"] == "never"
    hour_passes(connection, ada, 1)
    until(lambda: sorted(deliveries(connection, ada).values()) == ["sent", "skipped"])
    assert len(mailbox.to(address(ada))) == 1
    (await api.post("/unsubscribe/nonsense")).fails(404)


async def test_a_mail_server_that_is_away_is_waited_for_an_unknown_mailbox_is_not_and_a_policy_ends_no_digest(
    system: Stack, api: Api, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob, lost, refused = (
        await reader(api, connection, "ada"),
        await api.person("bob"),
        await reader(api, connection, "lost"),
        await reader(api, connection, "refused"),
    )
    for person in (ada, lost, refused):
        notifier.notify(person.id, bob.id)
    hour_passes(connection, ada, 1)
    attempts = "SELECT attempts FROM notification_deliveries WHERE channel = 'email' AND target = %s AND attempts > 0"
    until(lambda: connection.execute(attempts, [ada.id]).fetchone() is not None)
    box = Mailbox()
    box.refuse[address(lost)] = "550 5.1.1 No such user"
    box.refuse[address(refused)] = "550 5.7.26 Refused by DMARC policy"
    with mail_server(box, system.settings.smtp_port):
        box.until(lambda: bool(box.to(address(ada))))
        until(lambda: list(deliveries(connection, ada).values()) == ["sent"])
        hour_passes(connection, lost, 1)
        until(lambda: list(deliveries(connection, lost).values()) == ["failed"])
        digest = "SELECT digest FROM email_preferences WHERE user_id = %s"
        until(lambda: connection.execute(digest, [lost.id]).fetchone() == ("never",))
        hour_passes(connection, refused, 1)
        until(lambda: list(deliveries(connection, refused).values()) == ["failed"])
        notifier.notify(refused.id, bob.id)
        until(lambda: sorted(deliveries(connection, refused).values()) == ["failed", "pending"])
    assert len(box.mails) == 1
