"""Mastodon.py listens to streams of the running system, over server-sent events and over a WebSocket."""

import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mastodon import Mastodon, StreamListener

from tests.conftest import Stack

SCOPES = ["read", "write", "follow"]
PASSWORD = "correct horse battery"
SECONDS = 30


class Heard(StreamListener):  # type: ignore[misc]
    """What a stream has said."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.changed = threading.Condition()

    def on_any_event(self, name: str, data: Any = None, for_stream: Any = None) -> None:
        self._note(name, data)

    def handle_heartbeat(self) -> None:
        self._note("heartbeat", None)

    def _note(self, name: str, data: Any) -> None:
        with self.changed:
            self.events.append((name, data))
            self.changed.notify_all()

    def of(self, name: str) -> list[Any]:
        return [data for event, data in self.events if event == name]

    def until(self, name: str) -> Any:
        with self.changed:
            assert self.changed.wait_for(lambda: self.of(name), SECONDS), f"no {name}; heard {self.events}"
        return self.of(name)[0]


@pytest.fixture
def people(system: Stack) -> Iterator[Callable[[str], Mastodon]]:
    base_url = str(system.part("api")["url"]).rstrip("/")
    client_id, client_secret = Mastodon.create_app("streams", scopes=SCOPES, api_base_url=base_url)
    made: list[Mastodon] = []

    def person(name: str) -> Mastodon:
        client = Mastodon(client_id=client_id, client_secret=client_secret, api_base_url=base_url)
        username = f"{name}_{secrets.token_hex(5)}"
        client.create_account(username, PASSWORD, f"{username}@example.org", agreement=True, scopes=SCOPES)
        made.append(client)
        return client

    yield person
    for client in made:
        client.session.close()


def end(stream: Any, say: Callable[[], object]) -> None:
    """End a stream, which waits for its thread, which waits for the next that it hears."""
    closing = threading.Thread(target=stream.close)
    closing.start()
    while closing.is_alive():
        say()
        closing.join(0.2)
    say()
    stream.join(SECONDS)
    assert not stream.is_alive()


def test_a_client_finds_the_streams_and_hears_posts_deletes_and_notifications(
    people: Callable[[str], Mastodon],
) -> None:
    ann, bob = people("ann"), people("bob")
    assert bob.stream_healthy()
    bob.account_follow(ann.me()["id"])
    heard = Heard()
    stream = bob.stream_user(heard, run_async=True)
    try:
        heard.until("heartbeat")
        status = ann.status_post(f"hello @{bob.me()['username']}")
        assert str(heard.until("update")["id"]) == str(status["id"])
        notification = heard.until("notification")
        assert (notification["type"], str(notification["status"]["id"])) == ("mention", str(status["id"]))
        ann.status_delete(status["id"])
        assert str(heard.until("delete")) == str(status["id"])
    finally:
        end(stream, lambda: ann.status_post("that is all"))


def test_a_client_hears_a_hashtag(people: Callable[[str], Mastodon]) -> None:
    ann, bob = people("ann"), people("bob")
    tag = f"tag{secrets.token_hex(5)}"
    heard = Heard()
    stream = bob.stream_hashtag(tag, heard, run_async=True)
    try:
        heard.until("heartbeat")
        ann.status_post("nothing")
        status = ann.status_post(f"#{tag}")
        assert str(heard.until("update")["id"]) == str(status["id"])
    finally:
        end(stream, lambda: ann.status_post(f"that is all #{tag}"))
