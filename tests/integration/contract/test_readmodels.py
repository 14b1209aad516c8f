"""The contract of every read model: each equals its oracle, and keeps nothing of what is gone.

People do everything that is read from somewhere else: they post, answer, repost, like, bookmark, vote, follow, mute and
block. `fanline audit` then compares every read model with the database, over REST and in the stores.
"""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from audit.stores import Stores
from connectors.barrier import Barrier
from readmodels.effects import Query
from sinks.opensearch_client import OpenSearchClient
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api

NAME = "every"
PEOPLE = 6
COMPARED = {
    "timelines", "timelines_redis", "recents", "followers", "relations", "account_cards", "account_counts", "flags",
    "status_cards", "status_counts", "poll_counts", "aggregates", "search_users", "search_posts",
}  # fmt: skip


async def live(api: Api, people: list[Person]) -> None:
    """Everybody does a bit of everything, with the person before them."""
    statuses = [await api.status(person, f"hello #every{number}") for number, person in enumerate(people)]
    question = {"options": ["yes", "no"], "expires_in": 3600}
    poll = (await api.status(people[0], "well?", poll=question))["poll"]
    for number, person in enumerate(people):
        other, theirs = people[number - 1], statuses[number - 1]["id"]
        await api.follow(person, other)
        for verb in ("favourite", "bookmark", "reblog"):
            (await api.post(f"/api/v1/statuses/{theirs}/{verb}", person)).ok()
        await api.status(person, f"@{other.username} and you?", in_reply_to_id=theirs)
        if number:
            (await api.post(f"/api/v1/polls/{poll['id']}/votes", person, json={"choices": [number % 2]})).ok()
    (await api.post(f"/api/v1/statuses/{statuses[0]['id']}/unfavourite", people[1])).ok()
    (await api.post(f"/api/v1/accounts/{people[2].id}/mute", people[3])).ok()
    (await api.post(f"/api/v1/accounts/{people[3].id}/block", people[4])).ok()
    (await api.request("DELETE", f"/api/v1/statuses/{statuses[5]['id']}", people[5])).ok()


async def read(api: Api, people: list[Person]) -> None:
    """Everybody reads what is kept only for those who read."""
    for person in people:
        for path in ("timelines/home", "notifications", f"accounts/{person.id}", f"accounts/{person.id}/statuses"):
            (await api.get(f"/api/v1/{path}", person)).ok()
        (await api.get(f"/api/v1/aggregates?metric=posts&account_id={person.id}", person)).ok()


def passed(system: Stack) -> None:
    with Barrier(system.settings) as barrier:
        barrier.wait(120)


def lived(system: Stack) -> list[Person]:
    """New people with a past, who have read after it."""

    async def run() -> list[Person]:
        async with running_api(system.settings) as api:
            people = await api.people(*[NAME] * PEOPLE)
            await live(api, people)
            for _ in range(2):
                await asyncio.to_thread(passed, system)
                await read(api, people)
            return people

    return asyncio.run(run())


def equal(system: Stack) -> dict[str, Any]:
    """Compares every read model of everybody in these tests; the audit's report."""
    done = system.fanline("audit", "--json", "--prefix", f"{NAME}_", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert {name for name in COMPARED if not report[name]["checked"]} == set()
    return report


@pytest.fixture(scope="module")
def people(system: Stack) -> list[Person]:
    return lived(system)


@pytest.fixture
def stores(system: Stack) -> Any:
    opened = Stores(system.settings)
    yield opened
    opened.close()


def test_every_read_model_equals_the_database(system: Stack, people: list[Person]) -> None:
    assert equal(system)["timelines"]["checked"] >= len(people)


def test_of_a_deleted_account_and_its_posts_nothing_can_be_read_any_more(system: Stack, stores: Stores) -> None:
    gone, *others = lived(system)
    posts = stores.rows(Query("SELECT id FROM posts WHERE author_id = %(id)s", {"id": UUID(gone.id)}))
    stores.connection.execute("DELETE FROM users WHERE id = %s", [UUID(gone.id)])
    passed(system)
    equal(system)

    async def look() -> None:
        async with running_api(system.settings) as api:
            (await api.get(f"/api/v1/accounts/{gone.id}")).fails(404)
            for person in others:
                home = (await api.get("/api/v1/timelines/home?limit=40", person)).body
                notifications = (await api.get("/api/v1/notifications?limit=40", person)).body
                assert gone.username.encode() not in home + notifications
            for post in posts:
                (await api.get(f"/api/v1/statuses/{post['id']}")).fails(404)

    asyncio.run(look())
    client = OpenSearchClient(system.settings)
    try:
        theirs = {"bool": {"should": [{"term": {"author_id": gone.id}}, {"ids": {"values": [gone.id]}}]}}
        answer = client.call("POST", f"/{system.settings.search_prefix}*/_search", {"query": theirs, "size": 1})
    finally:
        client.close()
    assert answer["hits"]["hits"] == []
    left = [key for keys in stores.scan(b"*{%s}*" % gone.id.encode()) for key in keys]
    assert not [key for key in left if key.startswith(b"ts:")]
