"""`fanline why` on the whole system: one test a reason, each in agreement with what the feed really shows."""

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from audit.stores import Stores
from audit.why import Answer, why
from audit.why_facts import post_id_of, viewer_of
from connectors.barrier import Barrier
from fanline.errors import ConfigurationError
from readmodels.effects import command
from readmodels.followers import celebrities_key
from readmodels.timelines import timeline_key
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
        yield running


@pytest.fixture(scope="module")
def stores(system: Stack) -> Iterator[Stores]:
    stores = Stores(system.settings)
    yield stores
    stores.close()


def passed(system: Stack) -> None:
    with Barrier(system.settings) as barrier:
        barrier.wait(60)


class Asked:
    """Asks for a post and holds the answer against the feed."""

    def __init__(self, api: Api, system: Stack, stores: Stores) -> None:
        self.api, self.system, self.stores = api, system, stores

    async def __call__(self, status: dict[str, Any] | str, viewer: Person, *, waiting: bool = True) -> Answer:
        if waiting:
            passed(self.system)
        post_id = int(status if isinstance(status, str) else status["id"])
        answer = why(self.system.settings, self.stores, post_id, UUID(viewer.id))
        home = (await self.api.get("/api/v1/timelines/home?limit=40", viewer)).ok()
        assert answer.shown == (str(post_id) in {each["id"] for each in home}), answer.reasons
        assert "disagreement" not in answer.codes
        assert answer.complete
        return answer

    async def warm(self, viewer: Person) -> None:
        """Reads until the viewer's timeline is warm."""
        deadline = time.monotonic() + 30
        while not self.stores.redis([command(timeline_key(UUID(viewer.id)), b"EXISTS")])[0]:
            assert time.monotonic() < deadline, "the timeline did not become warm"
            passed(self.system)
            (await self.api.get("/api/v1/timelines/home", viewer)).ok()

    async def act(self, who: Person, verb: str, whom: Person, **fields: Any) -> None:
        (await self.api.post(f"/api/v1/accounts/{whom.id}/{verb}", who, json=fields)).ok()


@pytest.fixture(scope="module")
def ask(api: Api, system: Stack, stores: Stores) -> Asked:
    return Asked(api, system, stores)


async def test_a_post_of_somebody_followed_is_there_with_the_records_that_brought_it(api: Api, ask: Asked) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    await ask.warm(bob)
    status = await api.status(ada, "hello")
    answer = await ask(status, bob)
    assert answer.codes == ["follow", "in_list"]
    assert {event.topic for event in answer.events} == {"cdc.follows", "cdc.posts", "post.created"}
    times = [event.timestamp_ms for event in answer.events]
    assert times == sorted(times)
    assert (await ask(status, ada)).codes[0] == "own"


async def test_a_cold_timeline_is_answered_by_the_database(api: Api, ask: Asked) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    assert (await ask(await api.status(ada, "hello"), bob)).codes == ["follow", "cold"]


async def test_who_does_not_follow_does_not_see_it(api: Api, ask: Asked) -> None:
    ada, bob = await api.people("ada", "bob")
    status = await api.status(ada, "hello")
    assert (await ask(status, bob)).codes == ["not_followed"]
    await api.follow(bob, ada)
    await ask.act(bob, "unfollow", ada)
    answer = await ask(status, bob)
    assert answer.codes == ["not_followed"]
    assert any(event.topic == "cdc.follows" and event.value["__deleted"] == "true" for event in answer.events)


@pytest.mark.parametrize(
    ("code", "hide"),
    [
        ("block", lambda ask, viewer, author: ask.act(viewer, "block", author)),
        ("blocked_by", lambda ask, viewer, author: ask.act(author, "block", viewer)),
        ("mute", lambda ask, viewer, author: ask.act(viewer, "mute", author, duration=3600)),
    ],
)
async def test_who_is_hidden_is_named_with_the_time_since_when(
    api: Api, ask: Asked, code: str, hide: Callable[[Asked, Person, Person], Any]
) -> None:
    ada, bob = await api.people("ada", "bob")
    status = await api.status(ada, "hello")
    await api.follow(bob, ada)
    await hide(ask, bob, ada)
    answer = await ask(status, bob)
    assert answer.codes == [code]
    assert "since 20" in answer.reasons[0].sentence
    assert ("until 20" in answer.reasons[0].sentence) == (code == "mute")
    assert any(event.topic == ("cdc.mutes" if code == "mute" else "cdc.blocks") for event in answer.events)


async def test_a_repost_is_hidden_by_its_original_author_or_because_reposts_are_unwanted(api: Api, ask: Asked) -> None:
    ada, bob, cyd = await api.people("ada", "bob", "cyd")
    await api.follow(bob, cyd)
    original = await api.status(ada, "hello")
    repost = (await api.post(f"/api/v1/statuses/{original['id']}/reblog", cyd)).ok()
    assert (await ask(repost, bob)).codes[:2] == ["follow", "repost"]
    await ask.act(bob, "follow", cyd, reblogs=False)
    assert (await ask(repost, bob)).codes == ["reposts_unwanted"]
    await ask.act(bob, "follow", cyd, reblogs=True)
    await ask.act(bob, "mute", ada)
    assert (await ask(repost, bob)).codes == ["mute"]


async def test_of_a_post_and_its_reposts_the_newest_is_shown(api: Api, ask: Asked) -> None:
    ada, bob, cyd = await api.people("ada", "bob", "cyd")
    for author in (ada, cyd):
        await api.follow(bob, author)
    original = await api.status(ada, "hello")
    repost = (await api.post(f"/api/v1/statuses/{original['id']}/reblog", cyd)).ok()
    answer = await ask(original, bob)
    assert answer.codes == ["newer_repost"]
    assert repost["id"] in answer.reasons[0].sentence
    assert (await ask(repost, bob)).shown


async def test_an_answer_to_a_stranger_is_not_shown_and_one_to_a_friend_is(api: Api, ask: Asked) -> None:
    ada, bob, cyd = await api.people("ada", "bob", "cyd")
    await api.follow(bob, ada)
    asked = await api.status(cyd, "a question")
    reply = await api.status(ada, "an answer", in_reply_to_id=asked["id"])
    assert (await ask(reply, bob)).codes == ["reply"]
    await api.follow(bob, cyd)
    assert (await ask(reply, bob)).codes[:2] == ["follow", "reply"]


async def test_a_direct_post_is_in_nobody_elses_home(api: Api, ask: Asked) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    status = await api.status(ada, f"@{bob.username} between us", visibility="direct")
    assert (await ask(status, bob)).codes == ["direct"]
    assert (await ask(status, ada)).shown


async def test_of_a_deleted_post_the_log_knows_when_it_went(api: Api, ask: Asked) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    status = await api.status(ada, "hello")
    (await api.request("DELETE", f"/api/v1/statuses/{status['id']}", ada)).ok()
    answer = await ask(status, bob)
    assert answer.codes == ["deleted"]
    assert "cdc.posts [" in answer.reasons[0].sentence
    assert "post.deleted" in {event.topic for event in answer.events}


async def test_a_post_that_never_was_is_unknown(api: Api, ask: Asked) -> None:
    bob = await api.person("bob")
    never = api.context.ids.next()
    assert (await ask(str(never), bob)).codes == ["unknown"]


async def test_while_the_flow_stands_still_the_post_waits(api: Api, ask: Asked, system: Stack, stores: Stores) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    await ask.warm(bob)
    passed(system)
    stopped = system.pid("timelines")
    os.kill(stopped, signal.SIGSTOP)
    try:
        status = await api.status(ada, "waits")
        deadline = time.monotonic() + 30
        while not (answer := why(system.settings, stores, int(status["id"]), UUID(bob.id))).events:
            assert time.monotonic() < deadline
        assert answer.codes == ["follow", "lag"]
        assert not answer.shown
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert (await ask(status, bob)).codes == ["follow", "in_list"]


async def test_an_entry_lost_by_hand_is_drift(api: Api, ask: Asked, system: Stack, stores: Stores) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    await ask.warm(bob)
    status = await api.status(ada, "lost")
    assert (await ask(status, bob)).codes == ["follow", "in_list"]
    stores.redis([command(timeline_key(UUID(bob.id)), b"LREM", 0, int(status["id"]).to_bytes(8))])
    assert (await ask(status, bob)).codes == ["follow", "drift"]


async def test_a_celebritys_post_is_pulled_by_readers(api: Api, ask: Asked, stores: Stores) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    await ask.warm(bob)
    status = await api.status(ada, "for many")
    assert (await ask(status, bob)).codes == ["follow", "in_list"]
    stores.redis([command(celebrities_key(), b"SADD", UUID(ada.id).bytes)])
    stores.redis([command(timeline_key(UUID(bob.id)), b"LREM", 0, int(status["id"]).to_bytes(8))])
    try:
        assert (await ask(status, bob)).codes == ["follow", "celebrity"]
    finally:
        stores.redis([command(celebrities_key(), b"SREM", UUID(ada.id).bytes)])


async def test_below_the_floor_the_database_goes_on(api: Api, ask: Asked, stores: Stores) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    await ask.warm(bob)
    status = await api.status(ada, "old")
    assert (await ask(status, bob)).codes == ["follow", "in_list"]
    key, post = timeline_key(UUID(bob.id)), int(status["id"]).to_bytes(8)
    header = stores.redis([command(key, b"LINDEX", 0)])[0]
    stores.redis([command(key, b"LREM", 0, post), command(key, b"LSET", 0, header[:1] + post + header[9:])])
    assert (await ask(status, bob)).codes == ["follow", "below_floor"]


async def test_the_command_takes_addresses_and_handles(api: Api, system: Stack) -> None:
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    status = await api.status(ada, "hello")
    passed(system)
    answer = json.loads(system.fanline("why", status["url"], f"@{bob.username}", "--json").stdout)
    assert (answer["post"], answer["viewer"], answer["shown"]) == (status["id"], bob.id, True)
    text = system.fanline("why", status["id"], bob.id).stdout
    assert f"{status['id']} is in the home timeline of {bob.id}." in text
    assert f"@{bob.username} follows @{ada.username} since 20" in text
    assert "cdc.posts [" in text
    refused = system.fanline("why", "x", bob.username, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "is no post" in refused.stderr
    assert system.fanline("why", status["id"], "nobody_at_all", check=False).returncode == 2


async def test_what_is_no_post_and_nobody_is_said_so(stores: Stores) -> None:
    assert post_id_of("https://example.org/@ada/123") == 123
    for text in ("", "x", "-1", "1" * 20, str(2**63), "https://example.org/@ada"):
        with pytest.raises(ConfigurationError):
            post_id_of(text)
    with pytest.raises(ConfigurationError):
        viewer_of(stores, str(UUID(int=1)))
