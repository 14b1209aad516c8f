"""Home timelines stay right while Redis dies, comes back empty, loses a node, or changes under a reader."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from api.effects import run
from api.redis_client import slot_of
from benchmarks.servers import Valkey, ask, postgres, valkey, valkey_cluster
from fanline import metrics
from fanline.changes import Op, RowChange
from fanline.resp import pack
from fanline.settings import Settings
from readmodels import applying, documents, spreading
from readmodels.affected import affected
from readmodels.applying import Routed
from readmodels.effects import command
from readmodels.engagement import effects_of
from readmodels.entries import pack_entry
from readmodels.followers import celebrities_key
from readmodels.following import Limits
from readmodels.home_rules import Page
from readmodels.incremental import place
from readmodels.spreading import Post
from tests.integration.home_world import (
    PUBLIC_URL,
    Home,
    World,
    add_post,
    home_timelines,
    make_people,
    make_ready,
    make_world,
    warm_up,
)

MY_ID = pack(b"CLUSTER", b"MYID")
NOBODY = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with postgres() as database:
        yield database.model_copy(update={"celebrity_threshold": 5})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as running:
        yield running


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection[object]]:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as opened:
        opened.execute("TRUNCATE users CASCADE")
        yield opened


def reads(source: str, reason: str) -> float:
    return metrics.HOME_READS.labels(source, reason)._value.get()


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + 20
    while not await condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def publish(home: Home, settings: Settings, world: World, post_id: int) -> None:
    """Do what the flows do for a new post by somebody."""
    author = world.authors[post_id]
    limits = Limits(
        settings.timeline_cap, settings.timeline_slack, settings.followers_chunk, settings.celebrity_threshold
    )
    post = Post(author, pack_entry(post_id, None), False, post_id >> 16)
    await run(spreading.begin([post], limits), home.redis, home.database.rows)
    await tell(home, "r", post_id, author)


async def tell(home: Home, op: Op, post_id: int, author: UUID) -> None:
    """Do what the flows of cards and counts do for a post that is there now, or gone."""
    row = {
        "id": post_id,
        "author_id": str(author),
        "repost_of_id": None,
        "in_reply_to_id": None,
        "visibility": "public",
        "created_at": "2026-01-01T00:00:00Z",
    }
    await run(documents.refresh(affected("posts", row), PUBLIC_URL), home.redis, home.database.rows)
    effects = effects_of(RowChange("posts", op, row, (0, 0), 0))
    await run(applying.apply([Routed(place(1, 0), effects)]), home.redis, home.database.rows)


async def test_a_redis_that_dies_is_left_alone_and_used_again_when_it_is_back(
    settings: Settings, server: Valkey, connection: psycopg.Connection[object]
) -> None:
    world = make_world(connection, random.Random(1))
    viewer = world.people[0]
    async with home_timelines(settings, server.url) as home:
        await make_ready(home, settings)
        await warm_up(home, [viewer])
        before = await home.timelines.read(viewer, Page(20))
        server.stop()
        for _ in range(10):
            assert await home.timelines.read(viewer, Page(20)) == before
        assert reads("sql", "circuit_open") > 0
        assert home.cache.size_bytes == 0

        server.start()
        not_ready = reads("sql", "not_ready")

        async def is_seen_as_empty() -> bool:
            assert await home.timelines.read(viewer, Page(20)) == before
            return reads("sql", "not_ready") > not_ready

        await eventually(is_seen_as_empty, "the empty Redis was never asked")
        assert await home.redis.execute([command(b"t:{%s}" % str(viewer).encode(), b"EXISTS")]) == [0]

        await make_ready(home, settings)
        warm = reads("redis", "warm")

        async def is_warm_again() -> bool:
            assert await home.timelines.read(viewer, Page(20)) == before
            return reads("redis", "warm") > warm

        await eventually(is_warm_again, "the timeline was not built again")


async def test_a_flushed_redis_is_noticed_though_its_connections_live(
    settings: Settings, server: Valkey, connection: psycopg.Connection[object]
) -> None:
    world = make_world(connection, random.Random(2))
    viewer = world.people[0]
    async with home_timelines(settings, server.url) as home:
        await make_ready(home, settings)
        await warm_up(home, [viewer])
        before = await home.timelines.read(viewer, Page(20))
        assert home.cache.size_bytes > 0
        await home.redis.on_every_master(pack(b"FLUSHALL"))
        not_ready = reads("sql", "not_ready")

        async def is_noticed() -> bool:
            assert await home.timelines.read(viewer, Page(20)) == before
            return reads("sql", "not_ready") > not_ready

        await eventually(is_noticed, "the flush was not noticed")


async def test_a_timeline_of_another_generation_is_built_again(
    settings: Settings, server: Valkey, connection: psycopg.Connection[object]
) -> None:
    world = make_world(connection, random.Random(3))
    viewer = world.people[0]
    async with home_timelines(settings, server.url) as home, home_timelines(settings, NOBODY) as sql:
        await make_ready(home, settings)
        await warm_up(home, [viewer])
        add_post(connection, world, viewer, text="pushed to nobody")
        await make_ready(home, settings)
        cold = reads("sql", "cold")

        async def is_seen() -> bool:
            await home.timelines.read(viewer, Page(20))
            return reads("sql", "cold") > cold

        await eventually(is_seen, "the old timeline was served")
        await home.timelines.settle()
        warm = reads("redis", "warm")
        shown = await home.timelines.read(viewer, Page(20))
        assert reads("redis", "warm") == warm + 1
        assert shown.newest == world.posts[-1]
        assert (await sql.timelines.read(viewer, Page(20))).newest == shown.newest


async def test_a_process_serves_what_another_has_written_as_soon_as_redis_has_it(
    settings: Settings, server: Valkey, connection: psycopg.Connection[object]
) -> None:
    world = make_people(connection, 8, random.Random(4))
    author, *readers = world.people
    for reader in readers:
        connection.execute("INSERT INTO follows (follower_id, followee_id) VALUES (%s, %s)", (reader, author))
    async with (
        home_timelines(settings, server.url) as home,
        home_timelines(settings, server.url) as flows,
        home_timelines(settings, NOBODY) as sql,
    ):
        await make_ready(home, settings)
        (celebrities,) = await home.redis.execute([command(celebrities_key(), b"SMEMBERS")])
        assert celebrities == {author.bytes} or celebrities == [author.bytes]
        await warm_up(home, world.people)
        await home.tracking.live.wait()
        for number in range(20):
            post_id = add_post(connection, world, author, text=f"News {number}")
            await publish(flows, settings, world, post_id)

            async def shows_it() -> bool:
                shown = [await home.timelines.read(person, Page(5)) for person in world.people]
                return shown == [await sql.timelines.read(person, Page(5)) for person in world.people]

            await eventually(shows_it, f"post {number} is not shown as the database has it")
        assert reads("redis", "warm") > 0
        connection.execute("DELETE FROM posts WHERE id = %s", (world.posts[-1],))
        await tell(flows, "d", world.posts[-1], author)
        await eventually(shows_it, "the deleted post is still shown")


async def test_a_writer_reads_from_the_database_until_the_flows_have_passed_the_write(
    settings: Settings, server: Valkey, connection: psycopg.Connection[object]
) -> None:
    world = make_world(connection, random.Random(5))
    writer = world.people[0]
    async with home_timelines(settings, server.url) as here, home_timelines(settings, server.url) as there:
        await make_ready(here, settings)
        await warm_up(here, [writer])
        post_id = add_post(connection, world, writer, text="mine")
        await here.own_writes.mark(writer)
        for home in (here, there):
            assert (await home.timelines.read(writer, Page(20))).newest == post_id
        assert reads("sql", "own_write") >= 2
        await publish(here, settings, world, post_id)
        row = await here.database.row("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 1 AS ms")
        assert row is not None
        for home in (here, there):
            home.own_writes.passed(row["ms"])
            warm = reads("redis", "warm")
            assert (await home.timelines.read(writer, Page(20))).newest == post_id
            assert reads("redis", "warm") == warm + 1


async def test_a_lost_node_of_a_cluster_costs_freshness_of_nothing(
    settings: Settings, tmp_path: Path, connection: psycopg.Connection[object]
) -> None:
    world = make_world(connection, random.Random(6))
    with valkey_cluster(tmp_path) as servers:
        async with (
            home_timelines(settings, servers[0].url, cluster=True) as home,
            home_timelines(settings, NOBODY) as sql,
        ):
            await make_ready(home, settings)
            await warm_up(home, world.people)
            expected = {person: await sql.timelines.read(person, Page(20)) for person in world.people}
            servers[1].stop()
            for person in world.people:
                assert await home.timelines.read(person, Page(20)) == expected[person]


async def test_a_slot_that_moves_to_another_node_is_followed(settings: Settings, tmp_path: Path) -> None:
    with valkey_cluster(tmp_path) as servers:
        async with home_timelines(settings, servers[0].url, cluster=True) as home:
            key = b"moved:{%s}" % next(b"%d" % n for n in range(100) if slot_of(b"%d" % n) < 5_000)
            slot = b"%d" % slot_of(key)
            source, target = servers[0].port, servers[1].port
            (source_id,), (target_id,) = ask(source, MY_ID), ask(target, MY_ID)
            assert await home.redis.execute([command(key, b"SET", b"1"), command(key, b"DEL")]) == [b"OK", 1]
            ask(target, pack(b"CLUSTER", b"SETSLOT", slot, b"IMPORTING", source_id))
            ask(source, pack(b"CLUSTER", b"SETSLOT", slot, b"MIGRATING", target_id))
            assert await home.redis.execute([command(key, b"SET", b"2"), command(b"x", b"GET")]) == [b"OK", None]
            for port in (target, source):
                ask(port, pack(b"CLUSTER", b"SETSLOT", slot, b"NODE", target_id))
            assert await home.redis.execute([command(key, b"GET")]) == [b"2"]


async def test_a_cold_timeline_is_built_once_however_many_ask(
    settings: Settings, server: Valkey, connection: psycopg.Connection[object]
) -> None:
    world = make_world(connection, random.Random(7))
    viewer: UUID = world.people[0]
    async with home_timelines(settings, server.url) as home:
        await make_ready(home, settings)
        builds = metrics.HOME_BUILDS._value.get()
        shown = await asyncio.gather(*(home.timelines.read(viewer, Page(20)) for _ in range(30)))
        await home.timelines.settle()
        assert len({page.body for page in shown}) == 1
        assert metrics.HOME_BUILDS._value.get() == builds + 1
