"""A warm home timeline is byte for byte what the database says, whatever is asked and wherever it comes from."""

import random
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import psycopg
import pytest

from benchmarks.servers import Valkey, postgres, valkey, valkey_cluster
from fanline import metrics
from fanline.settings import Settings
from readmodels.flags import KEPT
from readmodels.home_rules import Page
from tests.integration.home_world import (
    Home,
    World,
    add_poll,
    add_post,
    home_timelines,
    make_people,
    make_ready,
    make_world,
    warm_up,
)

NOBODY = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with postgres() as database:
        yield database.model_copy(update={"timeline_cap": 30, "timeline_slack": 10, "celebrity_threshold": 5})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as running:
        yield running


def world_of(settings: Settings, seed: int) -> World:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("TRUNCATE users CASCADE")
        return make_world(connection, random.Random(seed))


def pages(world: World, rng: random.Random) -> list[Page]:
    def some() -> int:
        return rng.choice(world.posts)

    return [
        Page(20),
        Page(1),
        Page(40),
        Page(5, max_id=some()),
        Page(40, max_id=some()),
        Page(7, since_id=some()),
        Page(7, min_id=some()),
        Page(40, min_id=world.posts[0]),
        Page(10, max_id=some(), since_id=some()),
        Page(10, max_id=some(), min_id=some()),
    ]


async def differences(home: Home, sql: Home, world: World, rng: random.Random) -> list[tuple[UUID, Page]]:
    found = []
    before = read_from_redis()
    for viewer in world.people:
        for page in pages(world, rng):
            if await home.timelines.read(viewer, page) != await sql.timelines.read(viewer, page):
                found.append((viewer, page))
    assert read_from_redis() == before + len(world.people) * len(pages(world, rng)), "not all was read from Redis"
    return found


def read_from_redis() -> float:
    return metrics.HOME_READS.labels("redis", "warm")._value.get()


@pytest.mark.parametrize("seed", range(6))
async def test_every_page_from_redis_is_what_sql_answers(settings: Settings, server: Valkey, seed: int) -> None:
    world = world_of(settings, seed)
    async with home_timelines(settings, server.url) as home, home_timelines(settings, NOBODY) as sql:
        await make_ready(home, settings)
        await warm_up(home, world.people)
        assert await differences(home, sql, world, random.Random(seed)) == []


async def test_every_page_from_a_cluster_is_what_sql_answers(settings: Settings, tmp_path: Path) -> None:
    world = world_of(settings, 100)
    with valkey_cluster(tmp_path) as servers:
        async with (
            home_timelines(settings, servers[0].url, cluster=True) as home,
            home_timelines(settings, NOBODY) as sql,
        ):
            await make_ready(home, settings)
            await warm_up(home, world.people)
            assert await differences(home, sql, world, random.Random(100)) == []


async def test_the_joined_bytes_say_what_the_entities_say(settings: Settings, server: Valkey) -> None:
    world = world_of(settings, 200)
    async with home_timelines(settings, server.url) as home:
        await make_ready(home, settings)
        await warm_up(home, world.people)
        filtered = 0
        for viewer in world.people:
            shown = msgspec.json.decode((await home.timelines.read(viewer, Page(40))).body)
            ids = [int(status["id"]) for status in shown]
            entities = await home.database.read(
                lambda transaction, ids=ids, viewer=viewer: home.entities.statuses(transaction, ids, viewer, fresh=True)
            )
            assert shown == entities
            filtered += sum(1 for status in shown if status["filtered"])
            assert ids == sorted(ids, reverse=True)
    assert filtered > len(world.people), "filters hardly ever matched"


@pytest.mark.parametrize("direction", ["older", "newer"])
async def test_paging_through_everything_crosses_the_floor_without_gap_or_repeat(
    settings: Settings, server: Valkey, direction: str
) -> None:
    world = world_of(settings, 300)
    viewer = world.people[0]
    async with home_timelines(settings, server.url) as home, home_timelines(settings, NOBODY) as sql:
        await make_ready(home, settings)
        await warm_up(home, [viewer])
        everything = ids(await sql.timelines.read(viewer, Page(10_000)))
        assert len(everything) > settings.timeline_cap, "the world is too small to cross the floor"
        seen: list[int] = []
        page = Page(7) if direction == "older" else Page(7, min_id=0)
        while found := ids(shown := await home.timelines.read(viewer, page)):
            seen = seen + found if direction == "older" else found + seen
            page = Page(7, max_id=shown.oldest) if direction == "older" else Page(7, min_id=shown.newest)
        assert seen == everything


async def test_reposts_of_long_ago_are_still_known_as_ones_own(settings: Settings, server: Valkey) -> None:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("TRUNCATE users CASCADE")
        world = make_people(connection, 2, random.Random(400))
        viewer, author = world.people
        connection.execute("INSERT INTO follows (follower_id, followee_id) VALUES (%s, %s)", (viewer, author))
        old = add_post(connection, world, author, text="reposted long ago")
        for number in range(KEPT + 2):
            add_post(connection, world, author, text=str(number))
        recent = [post for post in world.posts if post != old]
        for original in (old, *recent):
            add_post(connection, world, viewer, repost_of=original)
    async with home_timelines(settings, server.url) as home, home_timelines(settings, NOBODY) as sql:
        await make_ready(home, settings)
        await warm_up(home, [viewer])
        page = Page(5, min_id=recent[-1])
        shown = await home.timelines.read(viewer, page)
        assert shown == await sql.timelines.read(viewer, page)
        oldest = msgspec.json.decode(shown.body)[-1]
        assert oldest["reblog"]["id"] == str(old)
        assert oldest["reblog"]["reblogged"] is True


async def test_likes_mutes_and_votes_of_long_ago_are_still_known(settings: Settings, server: Valkey) -> None:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("TRUNCATE users CASCADE")
        world = make_people(connection, 2, random.Random(401))
        viewer, author = world.people
        connection.execute("INSERT INTO follows (follower_id, followee_id) VALUES (%s, %s)", (viewer, author))
        old = add_post(connection, world, author, text="long ago")
        reply = add_post(connection, world, author, text="in its thread", reply_to=old)
        connection.execute("UPDATE posts SET conversation_id = %s WHERE id = %s", (old, reply))
        add_poll(connection, old, [viewer])
        connection.execute("INSERT INTO conversation_mutes (user_id, post_id) VALUES (%s, %s)", (viewer, old))
        for number in range(KEPT + 2):
            add_post(connection, world, author, text=str(number))
        for table in ("likes", "conversation_mutes"):
            connection.execute(
                f"INSERT INTO {table} (user_id, post_id) SELECT %s, id FROM posts ON CONFLICT DO NOTHING", (viewer,)
            )
    async with home_timelines(settings, server.url) as home, home_timelines(settings, NOBODY) as sql:
        await make_ready(home, settings)
        await warm_up(home, [viewer])
        page = Page(5, max_id=reply + 1)
        shown = await home.timelines.read(viewer, page)
        assert shown == await sql.timelines.read(viewer, page)
        answer, first = msgspec.json.decode(shown.body)
        assert (first["favourited"], first["muted"], answer["favourited"], answer["muted"]) == (True,) * 4
        assert first["poll"]["own_votes"] == [0]


def ids(shown: object) -> list[int]:
    return [int(status["id"]) for status in msgspec.json.decode(shown.body)]  # type: ignore[attr-defined]
