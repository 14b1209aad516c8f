"""What suspended people did is shown nowhere, and everywhere again afterwards, on the running system."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from api.streaming.catch_up import MISSED_NOTIFICATIONS
from fanline.ids import first_id_at
from readmodels import digest, push
from readmodels.notifications import group_key
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.notification_world import until_inbox_equals_oracle

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTIFY = """
INSERT INTO notifications (id, user_id, type, from_account_id, post_id, group_key, filtered, created_at)
VALUES (%(id)s, %(user_id)s, %(type)s, %(sender)s, %(post)s, %(group_key)s, %(filtered)s, %(at)s)
"""
SUBSCRIBE = """
INSERT INTO push_subscriptions (id, session_id, user_id, endpoint, key_p256dh, key_auth)
SELECT %(id)s, s.id, s.user_id, 'https://push.example/', '', '' FROM sessions s WHERE s.user_id = %(user_id)s LIMIT 1
"""
LONG_AGO = datetime.fromtimestamp(0, UTC)
APPOINT = "UPDATE identities SET role = 'moderator' WHERE user_id = %(id)s"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
        yield running


class World:
    """Ada, whom Eve has told of three posts, and then Bob of twenty and of two that her policy has filtered."""

    def __init__(self, api: Api, ada: Person, bob: Person, mod: Person) -> None:
        self.api, self.ada, self.bob, self.mod = api, ada, bob, mod
        self.eves: list[str] = []
        self.bobs: list[str] = []
        self.filtered: list[str] = []
        self.subscription = uuid4()

    async def shown(self, query: str = "") -> list[str]:
        """The ids of a page, newest first."""
        return [each["id"] for each in (await self.api.get(f"/api/v1/notifications{query}", self.ada)).ok()]

    async def grouped(self) -> list[str]:
        groups = (await self.api.get("/api/v2/notifications", self.ada)).ok()["notification_groups"]
        return [each["most_recent_notification_id"] for each in groups]

    async def unread(self, version: int) -> int:
        count: int = (await self.api.get(f"/api/v{version}/notifications/unread_count", self.ada)).ok()["count"]
        return count

    async def pending(self) -> tuple[int, int]:
        """Requests, as they are listed and as they are counted."""
        requests = (await self.api.get("/api/v1/notifications/requests", self.ada)).ok()
        summary = (await self.api.get("/api/v2/notifications/policy", self.ada)).ok()["summary"]
        return len(requests), summary["pending_requests_count"]

    async def sent(self) -> list[set[str]]:
        """What a digest, a push message and a stream that catches up would tell."""
        ids, me = [int(each) for each in self.bobs + self.eves], UUID(self.ada.id)
        mail, message = digest.unread(ids, [me]), push.messages(ids, [self.subscription])
        rows = self.api.context.database.rows
        mailed = await rows(mail.sql, mail.parameters)
        pushed = await rows(message.sql, message.parameters)
        missed = await rows(MISSED_NOTIFICATIONS, {"user_id": me, "above": 0, "since": LONG_AGO, "after": 0})
        return [
            {str(row["id"]) for row in mailed},
            {str(row["notification_id"]) for row in pushed},
            {str(row["id"]) for row in missed},
        ]

    async def moderate(self, verb: str, **form: Any) -> None:
        (await self.api.post(f"/api/v1/admin/accounts/{self.bob.id}/{verb}", self.mod, json=form)).ok()


async def world_of(api: Api) -> World:
    ada, bob, eve, mod = await api.people("ada", "bob", "eve", "mod")
    world, database, now_ms = World(api, ada, bob, mod), api.context.database, time.time_ns() // 1_000_000
    await database.execute(APPOINT, {"id": mod.id})

    async def notify(sender: Person, place: int, *, filtered: bool = False) -> str:
        post = int((await api.status(sender, "Hi."))["id"])
        number, at = first_id_at(now_ms + place) + place, datetime.fromtimestamp((now_ms + place) / 1000, UTC)
        parameters = {
            "id": number, "user_id": ada.id, "type": "mention", "sender": sender.id, "post": post,
            "group_key": group_key("mention", number, post, at), "filtered": filtered, "at": at,
        }  # fmt: skip
        await database.execute(NOTIFY, parameters)
        return str(number)

    world.eves = [await notify(eve, place) for place in range(3)][::-1]
    world.bobs = [await notify(bob, 3 + place) for place in range(20)][::-1]
    world.filtered = [await notify(bob, 30 + place, filtered=True) for place in range(2)][::-1]
    await database.execute(SUBSCRIBE, {"id": world.subscription, "user_id": ada.id})
    return world


async def test_what_suspended_people_did_is_shown_nowhere_until_the_suspension_ends(api: Api) -> None:
    world = await world_of(api)
    for suspended in (False, True, False):
        if suspended:
            await world.moderate("action", type="suspend")
        shown = world.eves if suspended else world.bobs + world.eves
        assert await world.shown() == shown
        assert await world.grouped() == shown
        assert await world.shown("?include_filtered=true") == (shown if suspended else world.filtered + shown)
        assert (await world.unread(1), await world.unread(2)) == (len(shown), len(shown))
        assert await world.pending() == ((0, 0) if suspended else (1, 1))
        assert await world.sent() == [set(shown)] * 3
        one = await api.get(f"/api/v1/notifications/{world.bobs[0]}", world.ada)
        group = await api.get(f"/api/v2/notifications/ungrouped-{world.bobs[0]}", world.ada)
        assert (one.status, group.status) == ((404, 404) if suspended else (200, 200))
        if suspended:
            await world.moderate("unsuspend")


async def test_a_page_goes_on_below_those_of_suspended_people_and_the_inbox_stays_as_it_is(api: Api) -> None:
    world = await world_of(api)
    await until_inbox_equals_oracle(api, world.ada)
    await world.moderate("action", type="suspend")
    assert await world.shown("?limit=2") == world.eves[:2]
    assert await world.shown(f"?limit=2&max_id={world.eves[1]}") == world.eves[2:]
    assert await world.shown(f"?limit=2&min_id={world.eves[2]}") == world.eves[:2]
    kept = await until_inbox_equals_oracle(api, world.ada)
    assert [str(item.id) for item in kept.items] == world.bobs + world.eves
