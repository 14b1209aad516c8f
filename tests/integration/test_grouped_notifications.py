"""Groups of a popular post, which are larger than what is read of them, on the running system."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from fanline.ids import first_id_at
from readmodels.notifications import group_key
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.notification_world import until_inbox_equals_oracle

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIKES, REPOSTS = 2_000, 1_000

CROWD = """
INSERT INTO users (id, username)
SELECT gen_random_uuid(), %(name)s || g FROM generate_series(1, %(people)s) AS g
"""
NOTIFY = """
INSERT INTO notifications (id, user_id, type, from_account_id, post_id, group_key, created_at)
SELECT %(first)s + row_number() OVER (), %(user_id)s, %(type)s, u.id, %(post_id)s, %(group_key)s,
       to_timestamp(%(ms)s::float8 / 1000)
FROM users u WHERE left(u.username, char_length(%(name)s)) = %(name)s LIMIT %(people)s
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
        yield running


class Popular:
    """Somebody whose post is liked by 2,000 people, after 1,000 have reposted it, after four mentions."""

    def __init__(self, api: Api, ada: Person, mentions: list[str], likes: str, reposts: str) -> None:
        self.api, self.ada, self.mentions, self.likes, self.reposts = api, ada, mentions, likes, reposts

    @property
    def everything(self) -> list[str]:
        """The keys of all groups, newest first."""
        return [self.likes, self.reposts, *self.mentions]

    async def page(self, query: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """The groups of a page and the addresses of those beside it."""
        answer = await self.api.get(query if "://" in query else f"/api/v2/notifications{query}", self.ada)
        groups: list[dict[str, Any]] = answer.ok()["notification_groups"]
        links = [each.split(">; rel=") for each in answer.headers.get("Link", "").split(", ") if each]
        return groups, {name.strip('"'): address.removeprefix("<") for address, name in links}

    async def unread(self, query: str = "") -> int:
        count: int = (await self.api.get(f"/api/v2/notifications/unread_count{query}", self.ada)).ok()["count"]
        return count


async def popular(api: Api) -> Popular:
    ada, bob = await api.people("ada", "bob")
    post = int((await api.status(ada, "Hello."))["id"])
    database, now_ms = api.context.database, time.time_ns() // 1_000_000
    name = f"crowd_{ada.username}"[:24]
    await database.execute(CROWD, {"name": name, "people": LIKES})

    async def notify(kind: str, seconds: int, post: int, people: int, name: str) -> str:
        ms = now_ms + 1000 * seconds
        key = group_key(kind, first_id_at(ms) + 1, post, datetime.fromtimestamp(ms / 1000, UTC))
        parameters = {
            "first": first_id_at(ms), "user_id": UUID(ada.id), "type": kind, "post_id": post, "group_key": key,
            "ms": ms, "name": name, "people": people,
        }  # fmt: skip
        await database.execute(NOTIFY, parameters)
        return key

    mentions = [
        await notify("mention", seconds, int((await api.status(bob, "Hi."))["id"]), 1, bob.username)
        for seconds in range(4)
    ]
    reposts = await notify("reblog", 5, post, REPOSTS, name)
    likes = await notify("favourite", 6, post, LIKES, name)
    await until_inbox_equals_oracle(api, ada)
    return Popular(api, ada, mentions[::-1], likes, reposts)


def keys(groups: list[dict[str, Any]]) -> list[str]:
    return [each["group_key"] for each in groups]


async def test_a_page_has_as_many_groups_as_are_asked_for_however_large_they_are(api: Api) -> None:
    world = await popular(api)
    groups, links = await world.page("")
    assert keys(groups) == world.everything
    assert [each["notifications_count"] for each in groups] == [LIKES, REPOSTS, 1, 1, 1, 1]
    assert [len(each["sample_account_ids"]) for each in groups] == [8, 8, 1, 1, 1, 1]
    for each, size in zip(groups, (LIKES, REPOSTS, 1, 1, 1, 1), strict=True):
        assert int(each["page_max_id"]) - int(each["page_min_id"]) == size - 1
        assert each["page_max_id"] == each["most_recent_notification_id"]
    assert await world.page(links["next"]) == ([], {})
    single = (await world.page("?limit=5&grouped_types[]=reblog"))[0]
    assert {each["type"] for each in single} == {"favourite"}
    assert keys((await world.page("?types[]=favourite&types[]=mention"))[0]) == [world.likes, *world.mentions]


async def test_pages_in_both_directions_show_a_large_group_once(api: Api) -> None:
    world = await popular(api)
    seen: list[str] = []
    address = "?limit=2"
    while True:
        groups, links = await world.page(address)
        if not groups:
            break
        seen += keys(groups)
        address = links["next"]
    assert seen == world.everything
    last = (await world.page(""))[0][-1]["most_recent_notification_id"]
    upwards: list[list[str]] = []
    address = f"?limit=2&min_id={int(last) - 1}"
    while True:
        groups, links = await world.page(address)
        if not groups:
            break
        upwards.append(keys(groups))
        address = links["prev"]
    everything = world.everything
    assert upwards == [everything[4:], everything[2:4], everything[:2]]
    top = (await world.page(f"?limit=3&min_id={last}"))[0]
    assert keys(top) == everything[2:5]
    top = (await world.page(f"?limit=4&min_id={last}"))[0]
    assert [(each["group_key"], each["notifications_count"]) for each in top[:1]] == [(world.reposts, REPOSTS)]


async def test_unread_groups_are_counted_whatever_their_size(api: Api) -> None:
    world = await popular(api)
    assert await world.unread() == 6
    assert await world.unread("?limit=3") == 3
    assert await world.unread("?types[]=reblog") == 1
    assert await world.unread("?limit=1000&grouped_types[]=favourite") == min(1_000, 1 + REPOSTS + 4)
    third = (await world.page(""))[0][3]["most_recent_notification_id"]
    (await api.post("/api/v1/markers", world.ada, json={"notifications": {"last_read_id": third}})).ok()
    assert await world.unread() == 3
