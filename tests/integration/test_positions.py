"""After a move to another database Redis must know nothing of places in the old one's log."""

import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from audit.stores import Stores
from benchmarks.servers import Valkey, postgres, valkey
from fanline.redis_nodes import RedisNodes
from fanline.settings import Settings
from readmodels import followers, generations, incremental
from readmodels.counts import STATUS_COUNTS
from readmodels.effects import Command, call, command
from readmodels.followers import Edge
from rebuild import positions
from tests.integration.redis_commands import Redis

POST = 7
READER, AUTHOR = UUID(int=5), UUID(int=6)
OLD, NEW = (9_000_000, 9_000_000), (1_000, 1_000)


@pytest.fixture(scope="module")
def database() -> Iterator[Settings]:
    with postgres() as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as running:
        yield running


@pytest.fixture
def redis(server: Valkey) -> Iterator[Redis]:
    nodes = RedisNodes(server.url)
    yield Redis(nodes)
    nodes.close()


@pytest.fixture
def stores(database: Settings, server: Valkey) -> Iterator[Stores]:
    opened = Stores(database.model_copy(update={"redis_url": SecretStr(server.url)}))
    yield opened
    opened.close()


def favourite(redis: Redis, position: tuple[int, int]) -> bool:
    """Whether the value was there; if not, a flow would load it now."""
    change = incremental.place(2, 0) + incremental.when(position, 200) + bytes(8) + incremental.what(2, True)
    key = STATUS_COUNTS.key(POST)
    (packed,) = incremental.Applier().pack(STATUS_COUNTS, [key], [change])
    return bool(redis(Command(key, packed))[0])


def favourites(redis: Redis) -> int | None:
    payload = incremental.body(redis(command(STATUS_COUNTS.key(POST), b"GET"))[0])
    return None if payload is None else int(struct.unpack(">4I", payload)[2])


def loaded(redis: Redis, likes: int, log_end: int) -> None:
    """A value as a flow loads it from a database whose log ends there."""
    key = STATUS_COUNTS.key(POST)
    value = incremental.held({"snapshot": "100:100:", "log_end": log_end}, struct.pack(">4I", 0, 0, likes, 0))
    (token,) = redis(call(b"incremental_begin", [key], b"mytoken!"))
    assert redis(call(b"incremental_fill", [key], token, value, 60)) == [1]


def follow(redis: Redis, follows: bool, position: tuple[int, int]) -> int:
    return int(redis(followers.apply(Edge(READER, AUTHOR, follows, 0, position), 100))[0][1])


@pytest.mark.parametrize("generation", [0, 3])
def test_lower_places_of_the_new_log_count_once_the_old_ones_are_forgotten(
    redis: Redis, stores: Stores, generation: int
) -> None:
    if generation:
        # Built, and kept up to date beside the one that serves.
        for model in (incremental.MODEL, followers.MODEL):
            redis(generations.note(model, written=generation))
    with generations.using(incremental.MODEL, generation), generations.using(followers.MODEL, generation):
        loaded(redis, 1, OLD[1] - 1)
        assert favourite(redis, OLD)
        assert (favourites(redis), follow(redis, True, OLD)) == (2, 1)
        # Without it what the new database tells is taken for a replay.
        assert favourite(redis, NEW)
        assert (favourites(redis), follow(redis, False, NEW)) == (2, 1)

        assert positions.sentences(stores) == [
            "engagement: 1 counts and flags are deleted; each is loaded from the database when it is next met.",
            "followers: the places of 1 authors are forgotten; their followers stay.",
        ]
        positions.forget(stores)
        positions.forget(stores)

        assert favourites(redis) is None
        assert not favourite(redis, NEW)
        loaded(redis, 2, NEW[1])
        assert favourite(redis, (NEW[0] + 1, NEW[1] + 1))
        assert favourites(redis) == 3
        assert follow(redis, True, (NEW[0] - 1, NEW[1] - 1)) == 1
        assert follow(redis, False, NEW) == 0
        assert follow(redis, True, (NEW[0] - 1, NEW[1] - 1)) == 0
