"""`GET /api/v1/timelines/home` as a client meets it."""

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from api.app import build_app
from audit.visitors import admitted
from benchmarks.servers import Valkey, postgres, valkey
from fanline.settings import Settings
from tests.integration.home_world import World, home_timelines, make_ready, make_world

PUBLIC_URL = "https://fanline.example"
HOME = "/api/v1/timelines/home"


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with postgres() as database:
        yield database.model_copy(update={"timeline_cap": 30, "timeline_slack": 10, "public_url": PUBLIC_URL})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as running:
        yield running


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as opened:
        yield opened


@pytest.fixture
def world(connection: psycopg.Connection[Any]) -> World:
    connection.execute("TRUNCATE users CASCADE")
    return make_world(connection, random.Random(11))


@pytest.fixture
async def client(
    settings: Settings, server: Valkey, connection: psycopg.Connection[Any], world: World
) -> AsyncIterator[TestClient[Any, Any]]:
    """The API, called as the first person of the world."""
    async with home_timelines(settings, server.url) as home:
        await make_ready(home, settings)
    app = build_app(settings.model_copy(update={"redis_url": SecretStr(server.url)}))
    with admitted(connection, world.people[:1], "test", PUBLIC_URL) as tokens:
        authorization = {"Authorization": f"Bearer {tokens[world.people[0]]}"}
        async with TestClient(TestServer(app), headers=authorization) as opened:
            yield opened


async def pages(client: TestClient[Any, Any], path: str, relation: str) -> list[list[int]]:
    """Follow the Link header to its end."""
    found = []
    while True:
        answer = await client.get(path)
        assert answer.status == 200
        ids = [int(status["id"]) for status in await answer.json()]
        if not ids:
            assert "Link" not in answer.headers
            return found
        found.append(ids)
        assert list(answer.links) == ["next", "prev"]
        url = str(answer.links[relation]["url"])
        assert url.startswith(f"{PUBLIC_URL}{HOME}?")
        path = urlsplit(url)._replace(scheme="", netloc="").geturl()


async def test_the_link_header_leads_through_everything_in_both_directions(client: TestClient[Any, Any]) -> None:
    down = await pages(client, f"{HOME}?limit=7", "next")
    everything = [post for page in down for post in page]
    assert everything == sorted(set(everything), reverse=True)
    assert len(everything) > 30, "the world is too small to cross the floor"
    assert all(len(page) == 7 for page in down[:-1])
    oldest_first = await pages(client, f"{HOME}?min_id=0&limit=7", "prev")
    assert [post for page in reversed(oldest_first) for post in page] == everything


async def test_twenty_statuses_unless_asked_for_more_and_never_more_than_forty(client: TestClient[Any, Any]) -> None:
    for query, count in (("", 20), ("?limit=3", 3), ("?limit=40", 40), ("?limit=1000", 40)):
        shown = await (await client.get(HOME + query)).json()
        assert len(shown) == count


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "max_id=-1", "since_id=9223372036854775808", "min_id=a"])
async def test_a_parameter_that_cannot_be_used_is_a_400(client: TestClient[Any, Any], query: str) -> None:
    answer = await client.get(f"{HOME}?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in (await answer.json())["error"]


async def test_nobody_has_no_home(client: TestClient[Any, Any]) -> None:
    answer = await client.get(HOME, headers={"Authorization": ""})
    assert answer.status == 401
    assert "error" in await answer.json()


async def test_a_dead_redis_changes_no_answer(client: TestClient[Any, Any], server: Valkey) -> None:
    before = await (await client.get(HOME)).json()
    server.stop()
    for _ in range(5):
        answer = await client.get(HOME)
        assert answer.status == 200
        assert await answer.json() == before
