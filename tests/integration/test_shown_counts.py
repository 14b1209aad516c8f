"""What entities count and flag: from Redis for readers, from SQL for who has just written, never to a million."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from api import counts as shown_counts
from api.database import Row, Transaction
from api.entities import STATUSES_OF_VIEWER
from benchmarks.servers import Valkey, postgres, valkey
from fanline.database import open_async_pool
from fanline.settings import Settings
from readmodels.entities import Entity
from readmodels.entity_queries import (
    ACCOUNT_COUNTS_BY_ID,
    FEW_ACCOUNT_COUNTS_BY_ID,
    FEW_STATUS_COUNTS_BY_ID,
    STATUS_COUNTS_BY_ID,
    STATUS_FLAGS_BY_ID,
)
from readmodels.polls import OWN_VOTES_BY_POLL
from tests.integration.home_world import Home, World, add_post, home_timelines, make_people, make_world

NOBODY = "redis://127.0.0.1:1"
COUNTING = {ACCOUNT_COUNTS_BY_ID, STATUS_COUNTS_BY_ID, FEW_ACCOUNT_COUNTS_BY_ID, FEW_STATUS_COUNTS_BY_ID}
FLAGGING = {STATUSES_OF_VIEWER, STATUS_FLAGS_BY_ID, OWN_VOTES_BY_POLL}


class Watched(Transaction):
    """Remembers which of the queries were run that count, and that look for what the viewer has done."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection)
        self.counting: list[str] = []
        self.flagging: list[str] = []

    async def rows(self, query: str, parameters: Any = None) -> list[Row]:
        if query in COUNTING:
            self.counting.append(query)
        if query in FLAGGING:
            self.flagging.append(query)
        return await super().rows(query, parameters)


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with postgres() as database:
        yield database


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as running:
        yield running


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as opened:
        opened.execute("TRUNCATE users CASCADE")
        yield opened


@asynccontextmanager
async def watched(settings: Settings) -> AsyncIterator[Watched]:
    pool = await open_async_pool(settings)
    try:
        async with pool.connection() as connected:
            await connected.set_autocommit(True)
            yield Watched(connected)
            await connected.set_autocommit(False)
    finally:
        await pool.close()


def like(connection: psycopg.Connection[Any], person: UUID, post: int) -> None:
    connection.execute("INSERT INTO likes (user_id, post_id) VALUES (%s, %s)", (person, post))


def popular(connection: psycopg.Connection[Any], likes: int) -> tuple[World, int]:
    """A post that so many people like, the author apart."""
    world = make_people(connection, likes + 1, random.Random(likes))
    post = add_post(connection, world, world.people[0], text="Look!")
    for person in world.people[1:]:
        like(connection, person, post)
    return world, post


async def one(home: Home, transaction: Watched, post: int, viewer: UUID, *, fresh: bool = False) -> Entity:
    transaction.counting.clear()
    return await home.entities.status(transaction, post, viewer, fresh=fresh)


async def test_every_count_and_flag_from_redis_is_what_sql_says(
    settings: Settings, server: Valkey, connection: psycopg.Connection[Any]
) -> None:
    world = make_world(connection, random.Random(5))
    async with home_timelines(settings, server.url) as home, watched(settings) as transaction:
        for viewer in (None, *world.people):
            for _ in ("filled", "read"):
                transaction.counting.clear()
                transaction.flagging.clear()
                statuses = await home.entities.statuses(transaction, world.posts, viewer)
                assert transaction.counting == transaction.flagging == [], "SQL was asked although Redis could tell"
                exact = await home.entities.statuses(transaction, world.posts, viewer, fresh=True)
                assert statuses == exact
                accounts = await home.entities.accounts(transaction, world.people, viewer)
                assert accounts == await home.entities.accounts(transaction, world.people, viewer, fresh=True)
                assert len(accounts) == len(world.people)


async def test_without_redis_sql_counts(settings: Settings, connection: psycopg.Connection[Any]) -> None:
    world, post = popular(connection, 3)
    async with home_timelines(settings, NOBODY) as home, watched(settings) as transaction:
        entity = await one(home, transaction, post, world.people[1])
        assert entity["favourites_count"] == 3
        assert transaction.counting == [FEW_STATUS_COUNTS_BY_ID, FEW_ACCOUNT_COUNTS_BY_ID]


async def test_who_has_just_written_is_shown_it_and_others_what_the_flows_have_counted(
    settings: Settings, server: Valkey, connection: psycopg.Connection[Any]
) -> None:
    world, post = popular(connection, 2)
    writer = world.people[0]
    async with home_timelines(settings, server.url) as home, watched(settings) as transaction:
        assert (await one(home, transaction, post, writer))["favourites_count"] == 2
        like(connection, writer, post)
        await home.own_writes.mark(writer)
        mine = await one(home, transaction, post, writer)
        assert (mine["favourited"], mine["favourites_count"]) == (True, 3)
        # No flow runs here, so that the stored count stays behind.
        assert (await one(home, transaction, post, world.people[1]))["favourites_count"] == 2
    # Another process learns of the write from Redis.
    async with home_timelines(settings, server.url) as other, watched(settings) as transaction:
        assert (await one(other, transaction, post, writer))["favourites_count"] == 3


async def test_what_is_many_is_never_counted_anew_while_redis_answers(
    settings: Settings, server: Valkey, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_counts, "FEW", 5)
    world, post = popular(connection, 7)
    writer = world.people[0]
    async with home_timelines(settings, server.url) as home, watched(settings) as transaction:
        assert (await one(home, transaction, post, world.people[1]))["favourites_count"] == 7
        like(connection, writer, post)
        await home.own_writes.mark(writer)
        mine = await one(home, transaction, post, writer)
        assert (mine["favourited"], mine["favourites_count"]) == (True, 7)
        assert transaction.counting == [FEW_STATUS_COUNTS_BY_ID, FEW_ACCOUNT_COUNTS_BY_ID]
    async with home_timelines(settings, NOBODY) as without, watched(settings) as transaction:
        assert (await one(without, transaction, post, writer, fresh=True))["favourites_count"] == 8
        assert transaction.counting == [FEW_STATUS_COUNTS_BY_ID, STATUS_COUNTS_BY_ID, FEW_ACCOUNT_COUNTS_BY_ID]


async def test_a_transaction_that_has_written_fills_nothing_in(
    settings: Settings, server: Valkey, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_counts, "FEW", 2)
    world, post = popular(connection, 3)
    async with home_timelines(settings, server.url) as home, watched(settings) as transaction:
        assert (await one(home, transaction, post, world.people[1], fresh=True))["favourites_count"] == 3
        assert transaction.counting == [FEW_STATUS_COUNTS_BY_ID, STATUS_COUNTS_BY_ID, FEW_ACCOUNT_COUNTS_BY_ID]
        like(connection, world.people[0], post)
        entity = await one(home, transaction, post, world.people[1])
        assert entity["favourites_count"] == 4, "an uncommitted count was kept"
