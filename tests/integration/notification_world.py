"""What the tests of notifications share: people who do things to each other, and what each of them is told."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg

from fanline.database import connect
from fanline.settings import Settings
from readmodels import inbox
from readmodels.notifications import LISTED
from tests.conftest import Stack
from tests.integration.api_world import Api, Person

SECONDS = 30.0

Told = tuple[str, str, str | None]
"""Type, sender and status of a notification."""


async def until(reached: Callable[[], Awaitable[bool]], what: str, seconds: float = SECONDS) -> None:
    """Wait for a condition; fails saying what did not happen."""
    try:
        async with asyncio.timeout(seconds):
            while not await reached():  # noqa: ASYNC110  # servers in other processes set no event
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen within {seconds:.0f} s") from None


async def told(api: Api, who: Person, query: str = "") -> list[Told]:
    """What somebody is told, newest first."""
    entities = (await api.get(f"/api/v1/notifications{query}", who)).ok()
    return [(each["type"], each["account"]["id"], each.get("status", {}).get("id")) for each in entities]


async def until_told(api: Api, who: Person, *wanted: Told, query: str = "") -> None:
    """Wait until somebody is told exactly this, in any order."""
    seen: list[Told] = []

    async def reached() -> bool:
        nonlocal seen
        seen = await told(api, who, query)
        return sorted(seen, key=str) == sorted(wanted, key=str)

    try:
        await until(reached, "being told")
    except AssertionError as error:
        raise AssertionError(f"wanted {sorted(wanted, key=str)}, told {sorted(seen, key=str)}") from error


async def do(api: Api, who: Person, verb: str, status: dict[str, Any]) -> None:
    """Favourite, reblog and so on."""
    (await api.post(f"/api/v1/statuses/{status['id']}/{verb}", who)).ok()


def rows(settings: Settings, sql: str, *parameters: Any) -> list[Any]:
    """The rows of a query on a connection of its own."""
    with connect(settings, autocommit=True) as connection:
        cursor: psycopg.Cursor[Any] = connection.execute(sql.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


async def until_inbox_equals_oracle(api: Api, who: Person) -> inbox.Inbox:
    """Wait until somebody's inbox in Redis is what the database says; the inbox."""
    found: inbox.Inbox | None = None

    async def equal() -> bool:
        nonlocal found
        await told(api, who)  # an inbox is made by being read
        found = inbox.parse((await api.context.redis.execute([inbox.read(UUID(who.id))]))[0])
        if found is None:
            return False
        listed = await api.context.database.rows(LISTED, {"user_id": who.id, "limit": 10_000})
        return list(found.items) == [item for row in listed if (item := inbox.item_of(row)).id > found.floor]

    await until(equal, "an inbox equal to the database")
    assert found is not None
    return found


async def until_caught_up(system: Stack, *flows: str) -> None:
    """Wait until flows have applied all that is in their topics."""

    def behind() -> bool:
        report = json.loads(system.fanline("lag", "--json", *flows).stdout)
        return any(each["records"] for each in report["flows"])

    async def reached() -> bool:
        return not await asyncio.to_thread(behind)

    await until(reached, f"the end of the topics of {flows}", 60)
