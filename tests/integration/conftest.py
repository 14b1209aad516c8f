"""Fixtures that several integration tests share; a module that needs another world has an `api` of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

import readmodels
from benchmarks.servers import valkey
from fanline import database
from fanline.redis_nodes import RedisNodes
from tests.conftest import Stack
from tests.integration.api_world import Api, running_api
from tests.integration.channel_world import Notifier
from tests.integration.redis_commands import Redis

FUNCTIONS = Path(readmodels.__file__).parent / "functions"


@pytest.fixture(scope="module")
def migrated(stack: Stack) -> Stack:
    """The servers, with the database's schema, and no flow that has to run."""
    stack.fanline("migrate")
    return stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(migrated: Stack) -> AsyncIterator[Api]:
    """The API without flows."""
    async with running_api(migrated.settings) as running:
        yield running


@pytest.fixture
def connection(system: Stack) -> Iterator[psycopg.Connection[Any]]:
    """The running system's database."""
    with database.connect(system.settings, autocommit=True) as connected:
        yield connected


@pytest.fixture
def notifier(system: Stack, connection: psycopg.Connection[Any]) -> Notifier:
    """Makes notifications on the running system."""
    return Notifier(system.settings, connection)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """It is empty."""
    with valkey(tmp_path) as server:
        nodes = RedisNodes(server.url)
        nodes.load_functions(FUNCTIONS)
        yield Redis(nodes)
        nodes.close()
