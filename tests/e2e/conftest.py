"""Mastodon.py as a client of the running system, and people who use it."""

import secrets
from collections.abc import Callable, Iterator

import pytest
from mastodon import Mastodon

from tests.conftest import Stack

SCOPES = ["read", "write", "follow"]
CALLBACK = "http://127.0.0.1:1/callback"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def base_url(system: Stack) -> str:
    """Where the API answers."""
    url: str = system.part("api")["url"]
    return url.rstrip("/")


@pytest.fixture(scope="module")
def application(base_url: str) -> tuple[str, str]:
    """Id and secret of a registered application."""
    return Mastodon.create_app("e2e", scopes=SCOPES, redirect_uris=CALLBACK, api_base_url=base_url)


@pytest.fixture
def sign_up(base_url: str, application: tuple[str, str]) -> Iterator[Callable[[str], Mastodon]]:
    """Makes clients, each signed in as somebody new."""
    clients: list[Mastodon] = []

    def make(name: str) -> Mastodon:
        client_id, client_secret = application
        client = Mastodon(
            client_id=client_id, client_secret=client_secret, api_base_url=base_url, ratelimit_method="throw"
        )
        username = f"{name}_{secrets.token_hex(5)}"
        client.create_account(username, PASSWORD, f"{username}@example.org", agreement=True, scopes=SCOPES)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.session.close()
