"""Web Push on the running system: real requests to a service that decrypts them."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.conftest import Stack
from tests.integration.api_world import OUT_OF_BAND, Api, Person, running_api
from tests.integration.channel_world import Browser, Notifier, PushService, push_service

ALL = {"data[alerts][follow]": "true", "data[alerts][mention]": "true", "data[alerts][favourite]": "1"}


@pytest.fixture
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
        yield running


@pytest.fixture
def service() -> Iterator[PushService]:
    with push_service() as running:
        yield running


async def pushable(api: Api, name: str) -> Person:
    """Somebody whose token allows push."""
    form = {"client_name": "push", "redirect_uris": OUT_OF_BAND, "scopes": "read write push"}
    app = (await api.post("/api/v1/apps", json=form)).ok()
    grant = {"grant_type": "client_credentials", "scope": "read write push"}
    token = (await api.post("/oauth/token", data=grant | {k: app[k] for k in ("client_id", "client_secret")})).ok()
    return await api.person(name, token["access_token"])


async def subscribe(api: Api, person: Person, browser: Browser, **fields: str) -> dict[str, Any]:
    subscription = browser.subscription
    form = {
        "subscription[endpoint]": subscription["endpoint"],
        "subscription[keys][p256dh]": subscription["keys"]["p256dh"],
        "subscription[keys][auth]": subscription["keys"]["auth"],
        **ALL,
        **fields,
    }
    entity: dict[str, Any] = (await api.post("/api/v1/push/subscription", person, data=form)).ok()
    return entity


def states(connection: psycopg.Connection[Any], *ids: int) -> dict[int, str]:
    rows = connection.execute("SELECT notification_id, state FROM notification_deliveries WHERE channel = 'push'")
    return {row[0]: row[1] for row in rows.fetchall() if row[0] in ids}


def until_finished(connection: psycopg.Connection[Any], *ids: int) -> dict[int, str]:
    """The states once nothing is pending any more."""
    deadline = time.monotonic() + 30
    while True:
        found = states(connection, *ids)
        if len(found) == len(ids) and not {"pending", "sending"} & set(found.values()):
            return found
        assert time.monotonic() < deadline, found  # each look is a query


async def test_a_subscription_is_made_shown_changed_and_removed(api: Api, service: PushService) -> None:
    ada = await pushable(api, "ada")
    (await api.get("/api/v1/push/subscription", ada)).fails(404)
    made = await subscribe(api, ada, service.browser())
    assert made["alerts"]["follow"] is made["alerts"]["favourite"] is True
    assert made["alerts"]["poll"] is False
    assert made["policy"] == "all"
    assert (await api.get("/api/v1/push/subscription", ada)).ok() == made
    form = {"data": {"alerts": {"poll": True}, "policy": "followed"}}
    changed = (await api.request("PUT", "/api/v1/push/subscription", ada, json=form)).ok()
    assert (changed["alerts"]["poll"], changed["alerts"]["follow"], changed["policy"]) == (True, False, "followed")
    instance = (await api.get("/api/v2/instance")).ok()
    assert instance["configuration"]["vapid"]["public_key"] == made["server_key"]
    (await api.request("DELETE", "/api/v1/push/subscription", ada)).ok()
    (await api.get("/api/v1/push/subscription", ada)).fails(404)


async def test_a_subscription_that_cannot_work_is_refused(system: Stack, service: PushService) -> None:
    async with running_api(system.settings, push_private_endpoints=False) as api:
        ada = await pushable(api, "ada")
        plain = await api.person("bob")
        subscription = service.browser().subscription
        (await api.post("/api/v1/push/subscription", plain, json={"subscription": subscription})).fails(403)
        for endpoint in ("http://push.example/x", "https://127.0.0.1/x", "https://[::1]/x", "https://10.1.2.3/", "x"):
            wrong = {"subscription": {**subscription, "endpoint": endpoint}}
            assert "Endpoint" in (await api.post("/api/v1/push/subscription", ada, json=wrong)).fails(422)
        keys = {"subscription": {"endpoint": "https://push.example/x", "keys": {"p256dh": "AAAA", "auth": "AAAA"}}}
        assert "keys" in (await api.post("/api/v1/push/subscription", ada, json=keys)).fails(422)


async def test_a_notification_is_pushed_once_encrypted_and_signed(
    api: Api, service: PushService, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob = await pushable(api, "ada"), await api.person("bob")
    browser, other = service.browser(), service.browser()
    made = await subscribe(api, ada, browser)
    await subscribe(api, await pushable(api, "carol"), other)
    status = await api.status(bob, "Hello <b>there</b>, a post that is quite long. " * 10)
    mention = notifier.notify(ada.id, bob.id, "mention", int(status["id"]))
    unwanted = notifier.notify(ada.id, bob.id, "reblog", int(status["id"]))
    follow = notifier.notify(ada.id, bob.id)
    service.until(lambda: len(browser.received) == 2)
    first = browser.received[0]
    assert first["title"] == f"{bob.username} mentioned you"
    assert first["body"].startswith("Hello <b>there</b>")
    assert len(first["body"]) <= 140
    assert {"preferred_locale", "notification_type", "icon"} <= set(first)
    assert first["access_token"] == ada.token
    sealed = connection.execute("SELECT sealed_token FROM push_subscriptions WHERE id = %s", [made["id"]]).fetchone()
    assert sealed is not None
    assert ada.token not in sealed[0]
    assert browser.ids() == [mention, follow]
    assert f"k={made['server_key']}" in service.authorizations[0]
    notifier.dispatch(mention, ada.id, bob.id, "mention", int(status["id"]))
    last = notifier.notify(ada.id, bob.id)
    service.until(lambda: last in browser.ids())
    assert browser.ids() == [mention, follow, last]
    assert other.received == []
    assert set(until_finished(connection, mention, follow, last).values()) == {"sent"}
    assert states(connection, unwanted) == {}


async def test_a_policy_says_whose_notifications_are_pushed(api: Api, service: PushService, notifier: Notifier) -> None:
    ada = await pushable(api, "ada")
    friend, stranger = await api.people("friend", "stranger")
    await api.follow(ada, friend)
    browser = service.browser()
    await subscribe(api, ada, browser, **{"data[policy]": "followed"})
    notifier.notify(ada.id, stranger.id)
    wanted = notifier.notify(ada.id, friend.id)
    service.until(lambda: bool(browser.received))
    assert browser.ids() == [wanted]


async def test_an_expired_subscription_is_removed(
    api: Api, service: PushService, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob = await pushable(api, "ada"), await api.person("bob")
    browser = service.browser()
    made = await subscribe(api, ada, browser)
    browser.statuses = [410]
    notified = notifier.notify(ada.id, bob.id)
    gone = "SELECT count(*) FROM push_subscriptions WHERE id = %s"
    service.until(lambda: browser.requests == 1)
    assert until_finished(connection, notified) == {notified: "failed"}
    while connection.execute(gone, [UUID(made["id"])]).fetchone() != (0,):
        pass  # each look is a query
    (await api.get("/api/v1/push/subscription", ada)).fails(404)


async def test_a_failing_target_is_tried_again_and_holds_up_nobody(
    api: Api, service: PushService, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob, carol = await pushable(api, "ada"), await api.person("bob"), await pushable(api, "carol")
    dead, live, flaky = PushService(), service.browser(), service.browser()
    unreachable = dead.browser()
    dead.close()
    await subscribe(api, ada, unreachable)
    await subscribe(api, carol, live)
    lost = [notifier.notify(ada.id, bob.id) for _ in range(5)]
    heard = [notifier.notify(carol.id, bob.id) for _ in range(5)]
    service.until(lambda: len(live.received) == 5)
    assert live.ids() == heard
    assert set(states(connection, *lost).values()) <= {"pending", "sending"}
    await subscribe(api, ada, flaky)
    flaky.statuses = [503, 429]
    again = notifier.notify(ada.id, bob.id)
    service.until(lambda: flaky.ids() == [again])
    assert flaky.requests == 3


async def test_a_killed_process_sends_nothing_twice_and_loses_at_most_what_it_was_sending(
    system: Stack, api: Api, service: PushService, notifier: Notifier, connection: psycopg.Connection[Any]
) -> None:
    ada, bob = await pushable(api, "ada"), await api.person("bob")
    browser = service.browser()
    await subscribe(api, ada, browser)
    ids = [notifier.notify(ada.id, bob.id) for _ in range(30)]
    service.until(lambda: len(browser.received) >= 5)
    system.kill("push")
    system.up()
    last = notifier.notify(ada.id, bob.id)
    service.until(lambda: last in browser.ids(), 60)
    received = browser.ids()
    assert len(set(received)) == len(received)
    found = states(connection, *ids)
    assert not {"pending"} & set(found.values())
    assert {identifier for identifier, state in found.items() if state == "sent"} <= set(received)
    assert len(ids) - len(set(received) & set(ids)) <= 1
